//! One connection: requests and their responses, one after the other.

use std::{
    fmt, io,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rtftp_core::{ReadFailed, RequestPath};
use rustix::net::{SendFlags, sockopt};
use smol::{Async, future::or, io::AsyncReadExt};

use super::{
    body::{self, SEND_BUFFER, SendError},
    range::Part,
    request::{self, Request},
    response::{self, Entity},
    service::Service,
    status::Status,
    table::Place,
};
use crate::{
    clock::{self, within},
    files::{OpenError, OpenFile, Origin},
    history::{RequestRecord, TransferStart, snapshot::State},
    text::EscapedName,
};

/// The time limit for the next request of a connection. iPXE keeps one connection for a whole boot.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The time after which firmware that waits for a response gives up is 5 s (EDK2); a response without the file leaves before.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// The time limit for sending the head of a response, which the send buffer has space for.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The bytes at the start of a file that show its type.
const TYPE_BYTES: usize = 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    pub(super) service: &'a Service,
    pub(super) stream: Async<TcpStream>,
    pub(super) client: SocketAddr,
    pub(super) place: Place,
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

impl Connection<'_> {
    /// Serves requests until the client or a limit ends the connection.
    pub(super) async fn serve(self) {
        // Failures make the connection slower, not wrong.
        let _ = self.stream.get_ref().set_nodelay(true);
        let _ = sockopt::set_socket_send_buffer_size(self.stream.as_fd(), SEND_BUFFER);
        let mut received = Vec::new();
        loop {
            let stopped = async {
                self.place.stopped().await;
                None
            };
            let head = or(within(REQUEST_TIMEOUT, read_head(&self.stream, &mut received)), stopped).await;
            let Some(Ok(head)) = head else { return };
            self.place.note_progress();
            let request = match &head {
                Ok(head) => request::parse(head),
                Err(status) => Err(*status),
            };
            let keep_alive = match request {
                Ok(request) => {
                    let stopped = async {
                        self.place.stopped().await;
                        false
                    };
                    or(self.respond(&request), stopped).await
                }
                Err(status) => {
                    let _ = self.send_head(status, None, false, false, false).await;
                    false
                }
            };
            if !keep_alive {
                return;
            }
            self.place.note_progress();
        }
    }

    /// Sends the response to a request. Returns whether the connection can be used for another one.
    async fn respond(&self, request: &Request<'_>) -> bool {
        let started = Instant::now();
        let name = request.target;
        let record = self.service.history.record_http_request(self.client.ip(), name);
        // The client has answered in TCP's handshake.
        record.note_activity(clock::now(), 0, 0);
        let path = request.path(&self.service.prefix);
        let found = match path {
            Ok(path) => self.find(request, &path, &record).await,
            Err(error) => Err(Refusal { status: error.into(), origin: None, reason: error.to_string() }),
        };
        let Found { mut file, entity, status } = match found {
            Ok(found) => found,
            Err(refusal) => {
                let state = match refusal.status {
                    Status::NotFound => State::Missing,
                    Status::Internal | Status::Unavailable => State::Failed,
                    _ => State::Refused,
                };
                refusal.origin.iter().for_each(|origin| record.set_origin(*origin));
                record.finish(state, Some(refusal.reason.as_str()));
                let origin = refusal.origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
                self.log(name, format_args!("{}: {origin}{}", refusal.status.line(), refusal.reason));
                return self
                    .send_head(refusal.status, None, request.keep_alive, request.is_http_1_0, false)
                    .await
                    .is_ok()
                    && request.keep_alive;
            }
        };
        let has_body = !request.is_head && matches!(status, Status::Ok | Status::PartialContent);
        let head = self.send_head(status, Some(&entity), request.keep_alive, request.is_http_1_0, has_body).await;
        if head.is_err() || !has_body {
            record.finish(State::Probe, None);
            return head.is_ok() && request.keep_alive;
        }
        record.start_transfer(TransferStart {
            size: Some(entity.size),
            block_size: 0,
            window_size: 0,
            snapshot_age: file.snapshot_age(),
        });
        let len = entity.part.end - entity.part.start;
        let sent = body::send(&self.stream, &mut file, entity.part.clone(), &self.place, &record).await;
        let outcome = match &sent {
            Ok(()) => {
                record.finish(State::Complete, None);
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
        sent.is_ok() && request.keep_alive
    }

    /// Opens the requested file and decides what to send of it.
    async fn find(&self, request: &Request<'_>, path: &RequestPath, record: &RequestRecord) -> Result<Found, Refusal> {
        let opened = async {
            let opened = self.service.files.open(self.client, path).await;
            let mut file = opened.map_err(|error| Refusal::from(&error))?;
            record.set_origin(file.origin());
            let tag = file.version().map(|version| format!("\"{version}\""));
            let part = request.part(tag.as_deref(), file.size());
            let at = match &part {
                Part::Bytes(part) => part.start,
                Part::Whole | Part::Unsatisfiable => 0,
            };
            let mut buf = vec![];
            let start = file.bytes_at(at, TYPE_BYTES, &mut buf).await;
            let failed =
                |ReadFailed(reason)| Refusal { status: Status::Unavailable, origin: None, reason: reason.into() };
            let content_type = response::content_type(path.as_bytes(), start.map_err(failed)?);
            Ok((file, tag, part, content_type))
        };
        let late = || Refusal {
            status: Status::Unavailable,
            origin: None,
            reason: format!("not opened within {} s, the client may try again", OPEN_TIMEOUT.as_secs()),
        };
        let (file, tag, part, content_type) = within(OPEN_TIMEOUT, opened).await.unwrap_or_else(|| Err(late()))?;
        let size = file.size();
        let (status, part) = match part {
            Part::Whole => (Status::Ok, 0..size),
            Part::Bytes(part) => (Status::PartialContent, part),
            Part::Unsatisfiable => (Status::RangeNotSatisfiable, 0..0),
        };
        let status = if request.has_version(tag.as_deref()) { Status::NotModified } else { status };
        let entity = Entity { size, part, content_type, tag, modified: file.modified() };
        Ok(Found { file, entity, status })
    }

    /// Sends the head of a response.
    async fn send_head(
        &self,
        status: Status,
        entity: Option<&Entity>,
        keep_alive: bool,
        is_http_1_0: bool,
        has_body: bool,
    ) -> io::Result<()> {
        let head = response::head(status, entity, keep_alive, is_http_1_0);
        // The body begins in the same packet.
        let flags = if has_body { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        let mut rest = head.as_bytes();
        let send = async {
            while !rest.is_empty() {
                let send = |socket: &TcpStream| Ok(rustix::net::send(socket, rest, flags)?);
                let sent = self.stream.write_with(send).await?;
                rest = &rest[sent..];
            }
            Ok(())
        };
        within(HEAD_TIMEOUT, send).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn log(&self, name: &[u8], text: fmt::Arguments<'_>) {
        log::info!("{} {} over HTTP: {text}", self.client, EscapedName(name));
    }
}

impl From<&OpenError> for Refusal {
    fn from(error: &OpenError) -> Self {
        Self { status: error.into(), origin: error.origin(), reason: error.to_string() }
    }
}

/// Reads the head of the next request; `received` keeps what follows it. The inner error is the status to respond with.
async fn read_head(stream: &Async<TcpStream>, received: &mut Vec<u8>) -> io::Result<Result<Vec<u8>, Status>> {
    let mut buf = [0; 2048];
    loop {
        if let Some(head) = request::take_head(received).transpose() {
            return Ok(head);
        }
        match (&mut &*stream).read(&mut buf).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => received.extend_from_slice(&buf[..len]),
        }
    }
}
