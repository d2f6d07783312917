//! Queries the daemon at its status socket.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use rtftp_runtime::history::snapshot::{Event, Snapshot};

/// The maximum size of a snapshot, in bytes.
const MAX_SNAPSHOT: u64 = 256 << 20;
/// The maximum length of the name of a client in a request, in bytes.
const MAX_CLIENT: usize = 512;
/// The maximum length of an event, in bytes.
const MAX_EVENT: u64 = 64 << 10;
/// The maximum time to wait for the next bytes of a snapshot.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A failed query at a socket.
#[derive(Debug)]
pub(super) struct QueryError {
    socket: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// The connection failed.
    Io(io::Error),
    /// The daemon closed the connection without a reply.
    NoReply,
    /// The reply is not valid.
    Invalid(serde_json::Error),
}

/// Returns the history as JSON; with a client, only that one is needed.
pub(super) fn json(socket: &Path, client: Option<&str>) -> Result<Vec<u8>, QueryError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        if let Some(client) = client.filter(|client| client.len() < MAX_CLIENT && !client.contains('\n')) {
            stream.write_all(format!("client {client}\n").as_bytes())?;
        }
        // Without a request, the daemon replies at once.
        stream.shutdown(Shutdown::Write)?;
        let mut json = vec![];
        stream.take(MAX_SNAPSHOT).read_to_end(&mut json)?;
        Ok(json)
    };
    let json = read().map_err(|error| failed(socket, Reason::Io(error)))?;
    if json.is_empty() { Err(failed(socket, Reason::NoReply)) } else { Ok(json) }
}

/// Returns the history; with a client, only that one is needed.
pub(super) fn snapshot(socket: &Path, client: Option<&str>) -> Result<Snapshot, QueryError> {
    serde_json::from_slice(&json(socket, client)?).map_err(|error| failed(socket, Reason::Invalid(error)))
}

/// Subscribes to events; each item is a line of JSON and its client. Ends when the daemon closes the connection.
pub(super) fn events(socket: &Path) -> Result<impl Iterator<Item = Result<(String, String), QueryError>>, QueryError> {
    let subscribe = || -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"follow\n")?;
        Ok(stream)
    };
    let mut lines = BufReader::new(subscribe().map_err(|error| failed(socket, Reason::Io(error)))?);
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match lines.by_ref().take(MAX_EVENT).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                let event = serde_json::from_str(&line).map_err(|error| failed(socket, Reason::Invalid(error)));
                Some(event.map(|event: Event| (line, event.client)))
            }
            Err(error) => Some(Err(failed(socket, Reason::Io(error)))),
        }
    }))
}

fn failed(socket: &Path, reason: Reason) -> QueryError {
    QueryError { socket: socket.to_owned(), reason }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.socket.display())?;
        match &self.reason {
            Reason::Io(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        ": is rtftp running with this --status-socket?"
                    }
                    io::ErrorKind::PermissionDenied => ": only root, the user of the daemon and its group have access",
                    _ => "",
                };
                write!(f, "{error}{hint}")
            }
            Reason::NoReply => f.write_str("no reply: the daemon serves too many connections, try again later"),
            Reason::Invalid(error) => write!(f, "unexpected reply, is the daemon of another version? {error}"),
        }
    }
}
