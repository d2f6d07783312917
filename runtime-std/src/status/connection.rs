//! One connection to the status socket.

use std::{io, sync::Arc, time::Duration};

use smol::{
    channel::Receiver,
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::UnixStream,
};

use crate::{clock::within, monitor::Monitor};

/// The request for events.
pub(super) const FOLLOW: &[u8] = b"follow\n";
/// The start of the request for one board.
const CLIENT: &[u8] = b"client ";
/// The time to wait for a request. A client that wants the snapshot need not send one.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);
/// The time in which a client must read the snapshot, or one event.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which an idle connection is checked for a disconnected client.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(2);

/// What a client requests.
enum Request {
    Snapshot,
    /// The snapshot with only the board of this address or name.
    Client(String),
    Events,
}

/// Sends the snapshot or the events, whichever the client requests.
pub(super) async fn serve_connection(mut stream: UnixStream, monitor: Monitor) -> io::Result<()> {
    match read_request(&mut stream).await {
        Request::Snapshot => write(&mut stream, &monitor.json().await).await,
        Request::Client(name) => write(&mut stream, &monitor.json_of(&name).await).await,
        Request::Events => match monitor.history().subscribe() {
            Some(events) => send_events(stream, events).await,
            None => Ok(()),
        },
    }
}

async fn read_request(stream: &mut UnixStream) -> Request {
    let (mut request, mut len) = ([0; 1024], 0);
    let read = async {
        // Reads to the end of the line: closing a socket with unread data resets the connection, and the client would see an error.
        while !request[..len].contains(&b'\n')
            && let Ok(more @ 1..) = stream.read(&mut request[len..]).await
        {
            len += more;
        }
    };
    within(REQUEST_TIMEOUT, read).await;
    let request = &request[..len];
    let name = request.strip_prefix(CLIENT).and_then(|name| str::from_utf8(name.strip_suffix(b"\n")?).ok());
    match name {
        Some(name) => Request::Client(name.to_owned()),
        None if request.starts_with(FOLLOW) => Request::Events,
        None => Request::Snapshot,
    }
}

/// Sends events until the client disconnects, or its channel is closed because it reads too slowly.
async fn send_events(mut stream: UnixStream, events: Receiver<Arc<str>>) -> io::Result<()> {
    loop {
        match within(LIVENESS_INTERVAL, events.recv()).await {
            Some(Ok(event)) => write(&mut stream, event.as_bytes()).await?,
            Some(Err(_)) => return Ok(()),
            // Writing zero bytes fails if the client has disconnected.
            None => drop(stream.write(&[]).await?),
        }
    }
}

/// Sends bytes, which the client must read within [`WRITE_TIMEOUT`].
async fn write(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    within(WRITE_TIMEOUT, stream.write_all(bytes)).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}
