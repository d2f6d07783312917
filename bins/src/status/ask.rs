//! What the daemon is asked at its socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rtftp_runtime::history::snapshot::{Event, Snapshot};

/// The largest answer that is taken, in bytes.
const MOST: u64 = 256 << 20;
/// The longest line of an event, in bytes.
const LINE: u64 = 64 << 10;
/// How long the daemon may take for a snapshot.
const PATIENCE: Duration = Duration::from_secs(30);

/// The record as JSON.
pub(super) fn json(socket: &Path) -> Result<Vec<u8>, String> {
    let ask = || -> io::Result<Vec<u8>> {
        let stream = connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Nothing is asked, so the daemon need not wait for a question.
        stream.shutdown(Shutdown::Write)?;
        let mut json = vec![];
        stream.take(MOST).read_to_end(&mut json)?;
        Ok(json)
    };
    match ask() {
        Ok(json) if json.is_empty() => Err(format!("{}: no answer: too many ask already", socket.display())),
        Ok(json) => Ok(json),
        Err(error) => Err(unreachable(socket, &error)),
    }
}

/// The record.
pub(super) fn snapshot(socket: &Path) -> Result<Snapshot, String> {
    serde_json::from_slice(&json(socket)?).map_err(|error| strange(socket, &error))
}

/// The events from now on: each line, and the client it is about.
pub(super) fn events(socket: &Path) -> Result<impl Iterator<Item = Result<(String, String), String>>, String> {
    let follow = || -> io::Result<UnixStream> {
        let mut stream = connect(socket)?;
        stream.write_all(b"follow\n")?;
        Ok(stream)
    };
    let mut lines = BufReader::new(follow().map_err(|error| unreachable(socket, &error))?);
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match lines.by_ref().take(LINE).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                let event = serde_json::from_str(&line).map_err(|error| strange(socket, &error));
                Some(event.map(|event: Event| (line, event.client)))
            }
            Err(error) => Some(Err(unreachable(socket, &error))),
        }
    }))
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket)
}

fn unreachable(socket: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            " (does rtftp run, and with this --status-socket?)"
        }
        io::ErrorKind::PermissionDenied => " (only root and its group may ask)",
        _ => "",
    };
    format!("{}: {error}{hint}", socket.display())
}

fn strange(socket: &Path, error: &serde_json::Error) -> String {
    format!("{}: not what a daemon of this version says: {error}", socket.display())
}
