//! The changes of the boards as server-sent events (the HTML standard, section 9.2).

use std::{io, net::IpAddr, time::Duration};

use rtftp_runtime::connections::Place;
use smol::{Timer, net::TcpStream};

use super::{
    fleet::Fleet,
    rows::Cursor,
    send::{RESPONSE_TIMEOUT, send_chunks, with_timeout},
};

/// The time between two events.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sends all boards, in several events if there are many, and then each second those that have changed, until the client disconnects or
/// reads too slowly.
///
/// # Errors
///
/// Always returns an error at its end.
pub(super) async fn send(stream: &mut TcpStream, fleet: &Fleet, place: &Place<IpAddr>) -> io::Result<()> {
    let mut cursor = Cursor::default();
    loop {
        let event = format!("data: {}\n\n", fleet.changes(&mut cursor).await);
        with_timeout(RESPONSE_TIMEOUT, send_chunks(stream, event.as_bytes())).await?;
        // At the limit, the connection whose last event is the oldest gives way to a new one.
        place.note_progress();
        if !cursor.has_more() {
            Timer::after(INTERVAL).await;
        }
    }
}
