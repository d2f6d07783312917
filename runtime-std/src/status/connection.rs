//! One connection to the status socket.

use std::{io, sync::Arc, time::Duration};

use smol::{
    Timer,
    channel::Receiver,
    future::or,
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::UnixStream,
};

use crate::{clock::within, history::History};

/// The request for events.
pub(super) const FOLLOW: &[u8] = b"follow\n";
/// The time to wait for a request. A client that wants the snapshot need not send one.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);
/// The time in which a client must read the snapshot, or one event.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which an idle connection is checked for a disconnected client.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(2);

/// Sends the snapshot or the events, whichever the client requests.
pub(super) async fn serve_connection(mut stream: UnixStream, history: History) -> io::Result<()> {
    if !requests_events(&mut stream).await {
        let json = smol::unblock(move || history.json()).await;
        return within(WRITE_TIMEOUT, stream.write_all(&json)).await;
    }
    match history.subscribe() {
        Some(events) => send_events(stream, events).await,
        None => Ok(()),
    }
}

/// Reads the request, and returns whether it is for events.
async fn requests_events(stream: &mut UnixStream) -> bool {
    let (mut request, mut len) = ([0; 1024], 0);
    let read = async {
        // Reads to the end of the line: closing a socket with unread data resets the connection, and the client would see an error.
        while !request[..len].contains(&b'\n')
            && let Ok(more @ 1..) = stream.read(&mut request[len..]).await
        {
            len += more;
        }
    };
    let timeout = async {
        Timer::after(REQUEST_TIMEOUT).await;
    };
    or(read, timeout).await;
    request[..len].starts_with(FOLLOW)
}

/// Sends events until the client disconnects, or its channel is closed because it reads too slowly.
async fn send_events(mut stream: UnixStream, events: Receiver<Arc<str>>) -> io::Result<()> {
    loop {
        let next = async { Some(events.recv().await) };
        let check = async {
            Timer::after(LIVENESS_INTERVAL).await;
            None
        };
        match or(next, check).await {
            Some(Ok(event)) => within(WRITE_TIMEOUT, stream.write_all(event.as_bytes())).await?,
            Some(Err(_)) => return Ok(()),
            // Writing zero bytes fails if the client has disconnected.
            None => drop(stream.write(&[]).await?),
        }
    }
}
