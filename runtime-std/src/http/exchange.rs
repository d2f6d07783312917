//! One request and its response.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rtftp_core::{ReadFailed, RequestPath};

use super::{
    body::{self, SendError},
    conditions::{Outcome, Version},
    range::Part,
    request::{Persistence, Request},
    response::{self, Entity, TYPE_BYTES, content_type},
    service::Service,
    status::Status,
    transport::Transport,
};
use crate::{
    clock::{self, within},
    connections::Place,
    files::{OpenError, OpenFile, Origin},
    history::{RequestRecord, TransferStart, snapshot::State},
    local_fs::SharedRoot,
    text::EscapedName,
};

/// The time after which firmware that waits for a response gives up is 5 s (EDK2); a response without the file leaves before.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// The time limit for sending the head of a response, which the send buffer has space for.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The answering of the requests of a connection.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Service,
    pub(super) client: SocketAddr,
    pub(super) place: &'a Place<IpAddr>,
}

/// A file that was found, and what is sent of it.
struct Found {
    file: OpenFile,
    entity: Entity,
    status: Status,
}

/// The reason why no file is sent.
struct Refusal {
    status: Status,
    /// The root that the reason is about.
    origin: Option<Origin>,
    /// The reason for the log and the history.
    reason: String,
}

impl Exchange<'_> {
    /// Sends the response to a request. Returns what happens to the connection.
    ///
    /// # Errors
    ///
    /// The response was not sent to its end.
    pub(super) async fn respond(&self, stream: &mut Transport, request: &Request<'_>) -> io::Result<Persistence> {
        let started = Instant::now();
        // Other connections are served before each request of a client that never waits.
        let root = self.service.root().await;
        let name = request.target;
        let record = Arc::new(self.service.history.record_http_request(self.client.ip(), name));
        // The client has answered in TCP's handshake.
        record.note_activity(clock::now(), 0, 0);
        let path = request.path(&self.service.prefix);
        let found = match path {
            Ok(path) => self.find(root, request, &path, &record).await,
            Err(error) => Err(Refusal { status: error.into(), origin: None, reason: error.to_string() }),
        };
        let Found { mut file, entity, status } = match found {
            Ok(found) => found,
            Err(Refusal { status, origin, reason }) => {
                let state = match status {
                    Status::NotFound => State::Missing,
                    Status::Internal | Status::Unavailable => State::Failed,
                    _ => State::Refused,
                };
                origin.iter().for_each(|origin| record.set_origin(*origin));
                record.finish(state, Some(reason.as_str()));
                let origin = origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
                self.log(name, format_args!("{}: {origin}{reason}", status.line()));
                send_head(stream, &response::head(status, None, request.persistence)).await?;
                return Ok(request.persistence.after_error());
            }
        };
        if request.is_head || !matches!(status, Status::Ok | Status::PartialContent) {
            record.finish(State::Probe, None);
            send_head(stream, &response::head(status, Some(&entity), request.persistence)).await?;
            return Ok(request.persistence);
        }
        record.start_transfer(TransferStart {
            size: Some(entity.size),
            block_size: 0,
            window_size: 0,
            snapshot_age: file.snapshot_age(),
            client_port: 0,
        });
        let len = entity.part.end - entity.part.start;
        let head = response::head(status, Some(&entity), request.persistence);
        let sent = body::send(stream, &head, &mut file, entity.part.clone(), self.place, &record).await;
        let outcome = match &sent {
            Ok(()) => {
                record.finish(State::Complete, None);
                file.served_disk().iter().for_each(|disk| disk.file_received(record.clone()));
                "complete".to_owned()
            }
            // Usual: GRUB opens a file to see whether it exists.
            Err(SendError::Client) => {
                record.finish(State::Probe, None);
                "closed by the client".to_owned()
            }
            Err(SendError::File(ReadFailed(reason))) => {
                record.finish(State::Failed, Some(reason));
                format!("failed: {reason}")
            }
        };
        let (seconds, bytes) = (started.elapsed().as_secs_f64(), record.acknowledged());
        let origin = file.origin();
        let speed = bytes as f64 / seconds / 1e6;
        self.log(
            name,
            format_args!("from {origin}: {bytes} of {len} bytes in {seconds:.3} s, {speed:.1} MB/s, {outcome}"),
        );
        sent.map(|()| request.persistence).map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// Opens the requested file and decides what to send of it.
    async fn find(
        &self,
        root: Arc<SharedRoot>,
        request: &Request<'_>,
        path: &RequestPath,
        record: &RequestRecord,
    ) -> Result<Found, Refusal> {
        let opened = async {
            let opened = self.service.files.open_below(&root, self.client, path).await;
            let mut file = opened.map_err(|error| Refusal::from(&error))?;
            record.set_origin(file.origin());
            file.boot_entry().iter().for_each(|title| record.set_boot_entry(title));
            let now = SystemTime::now();
            let version = Version::new(file.version().map(|version| format!("\"{version}\"")), file.modified(), now);
            let (status, part) = chosen_part(request, &version, file.size(), now);
            let failed =
                |ReadFailed(reason)| Refusal { status: Status::Unavailable, origin: None, reason: reason.into() };
            let mut buf = vec![];
            let start = file.bytes_at(0, TYPE_BYTES as usize, &mut buf).await.map_err(failed)?;
            let content_type = content_type(path.as_bytes(), start);
            // A disk that cannot be read is reported by the status, not by a body that ends early.
            file.bytes_at(part.start, 1, &mut buf).await.map_err(failed)?;
            let entity = Entity { size: file.size(), part, content_type, version };
            Ok(Found { file, entity, status })
        };
        let late = || Refusal {
            status: Status::Unavailable,
            origin: None,
            reason: format!("not opened within {} s, the client may try again", OPEN_TIMEOUT.as_secs()),
        };
        within(OPEN_TIMEOUT, opened).await.unwrap_or_else(|| Err(late()))
    }

    fn log(&self, name: &[u8], text: fmt::Arguments<'_>) {
        log::info!("{} {} over HTTP: {text}", self.client, EscapedName(name));
    }
}

/// Returns the status of the response for a file, and the part to send of it.
fn chosen_part(request: &Request<'_>, version: &Version, size: u64, now: SystemTime) -> (Status, Range<u64>) {
    match (request.conditions.evaluate(version), request.part(version, size, now)) {
        (Outcome::NotModified, _) => (Status::NotModified, 0..0),
        (Outcome::Failed, _) => (Status::PreconditionFailed, 0..0),
        (Outcome::Proceed, Part::Whole) => (Status::Ok, 0..size),
        (Outcome::Proceed, Part::Bytes(part)) => (Status::PartialContent, part),
        (Outcome::Proceed, Part::Unsatisfiable) => (Status::RangeNotSatisfiable, 0..0),
    }
}

impl From<&OpenError> for Refusal {
    fn from(error: &OpenError) -> Self {
        Self { status: error.into(), origin: error.origin(), reason: error.to_string() }
    }
}

/// Sends the head of a response without a body.
///
/// # Errors
///
/// The client does not read, or has closed the connection.
pub(super) async fn send_head(stream: &mut Transport, head: &str) -> io::Result<()> {
    let sent = within(HEAD_TIMEOUT, stream.send([head.as_bytes(), &[]])).await;
    sent.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}
