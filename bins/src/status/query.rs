//! Queries the daemon at its status socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rtftp_runtime::history::snapshot::{Event, Snapshot};

/// The maximum size of a snapshot, in bytes.
const MAX_SNAPSHOT: u64 = 256 << 20;
/// The maximum length of an event, in bytes.
const MAX_EVENT: u64 = 64 << 10;
/// The time limit for a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the history as JSON.
pub(super) fn json(socket: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let stream = connect(socket)?;
        stream.set_read_timeout(Some(SNAPSHOT_TIMEOUT))?;
        // Tells the daemon that no command follows.
        stream.shutdown(Shutdown::Write)?;
        let mut json = vec![];
        stream.take(MAX_SNAPSHOT).read_to_end(&mut json)?;
        Ok(json)
    };
    match read() {
        Ok(json) if json.is_empty() => {
            Err(format!("{}: the daemon closed the connection: too many connections are open", socket.display()))
        }
        Ok(json) => Ok(json),
        Err(error) => Err(io_error(socket, &error)),
    }
}

/// Returns the history.
pub(super) fn snapshot(socket: &Path) -> Result<Snapshot, String> {
    serde_json::from_slice(&json(socket)?).map_err(|error| invalid(socket, &error))
}

/// Subscribes to events; each item is a line of JSON and its client.
pub(super) fn events(socket: &Path) -> Result<impl Iterator<Item = Result<(String, String), String>>, String> {
    let follow = || -> io::Result<UnixStream> {
        let mut stream = connect(socket)?;
        stream.write_all(b"follow\n")?;
        Ok(stream)
    };
    let mut lines = BufReader::new(follow().map_err(|error| io_error(socket, &error))?);
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match lines.by_ref().take(MAX_EVENT).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                let event = serde_json::from_str(&line).map_err(|error| invalid(socket, &error));
                Some(event.map(|event: Event| (line, event.client)))
            }
            Err(error) => Some(Err(io_error(socket, &error))),
        }
    }))
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket)
}

fn io_error(socket: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ": is rtftp running with this --status-socket?",
        io::ErrorKind::PermissionDenied => ": only root, the user of the daemon and its group have access",
        _ => "",
    };
    format!("{}: {error}{hint}", socket.display())
}

fn invalid(socket: &Path, error: &serde_json::Error) -> String {
    format!("{}: unexpected data, is the daemon of another version? {error}", socket.display())
}
