//! One request, from the search for its file to its line in the log.

use std::{borrow::Cow, fmt, sync::Arc, time::Instant};

use log::Level;
use rtftp_core::{
    Outcome, Packet, RequestPath, Sender, netascii,
    netascii::Netascii,
    wire::{
        options::{Limits, MAX_BLKSIZE, negotiate},
        packet::{ErrorCode, Mode, Request},
    },
};
use smol::{channel::Receiver, future::or};

use crate::{
    clock,
    error::{OpenError, Unavailable},
    event_loop::Workers,
    files::{
        open_file::OpenFile,
        store::{FileStore, Origin},
    },
    history::{RequestRecord, TransferStart, snapshot::State},
    net::{Route, TransferSocket, UnknownTidSockets, mtu, ports::Ports},
    rate_limit::UnverifiedLog,
    server::{admission::SessionHandle, transfer::Transfer},
    text::EscapedName,
};

/// An ERROR to a client: its code and its text.
pub(crate) type Refusal = (ErrorCode, &'static str);

/// Sends an ERROR, once: it is neither acknowledged nor repeated (RFC 1350 section 7).
pub(crate) fn refuse(ports: &Ports, route: Route, refusal: Refusal, strangers: &UnverifiedLog) {
    match TransferSocket::new(ports, route) {
        Ok(mut peer) => send_error(&mut peer, refusal),
        Err(error) => {
            strangers.line(Level::Error, format_args!("{}: {error}", route.client));
        }
    }
}

fn send_error(peer: &mut TransferSocket, (code, message): Refusal) {
    let mut buf = [0; 128];
    if let Some(len) = (Packet::Error { code, message: message.as_bytes() }).write(&mut buf) {
        peer.send(&buf[..len], len);
    }
}

/// A read request that is being answered.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) workers: Arc<Workers>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) guards: Arc<UnknownTidSockets>,
    pub(crate) files: Arc<FileStore>,
    pub(crate) limits: Limits,
    /// Whether no block is to be larger than what reaches the client in one packet.
    pub(crate) mtu_clamp: bool,
    pub(crate) route: Route,
    /// The datagram.
    pub(crate) request: Vec<u8>,
    pub(crate) ticket: Arc<SessionHandle>,
    /// Word from the server; closed when the client asks for something else.
    pub(crate) stop: Receiver<&'static str>,
    /// Takes the lines as long as the client has not answered.
    pub(crate) strangers: Arc<UnverifiedLog>,
    /// Its place in the record.
    pub(crate) record: Arc<RequestRecord>,
}

impl Session {
    /// Answers the request to its end.
    pub(crate) async fn run(self) {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(&self.request) else { return };
        let mut peer = match TransferSocket::new(&self.ports, self.route) {
            Ok(peer) => peer,
            // Silence, as an answer would need the same: the client asks again.
            Err(error) => {
                self.record.finish(State::Failed, Some(&error.to_string()));
                return self.log(Level::Error, format_args!("{error}"));
            }
        };
        let name = EscapedName(request.file);
        let stopped = async {
            let _ = self.stop.recv().await;
            None
        };
        match or(async { Some(self.open(request).await) }, stopped).await {
            // Nothing was promised yet: silence, and the client asks again.
            None => {
                self.record.finish(State::Failed, Some("given up before the file was open"));
                self.log(Level::Info, format_args!("{name}: given up before the file was open"));
            }
            Some(Ok((file, origin))) => self.send(request, file, origin, peer).await,
            Some(Err(Refused { refusal, origin, level, reason, state, why })) => {
                origin.iter().for_each(|origin| self.record.set_origin(*origin));
                self.record.finish(state, why.as_deref());
                send_error(&mut peer, refusal);
                let origin = origin.map(|origin| format!(" from {origin}")).unwrap_or_default();
                self.log(level, format_args!("{name}{origin}: {reason}"));
            }
        }
    }

    /// Writes a line about the request.
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let client = self.route.client;
        if self.ticket.last_seen.is_verified() {
            log::log!(level, "{client} {line}");
        } else {
            self.strangers.line(level, format_args!("{client} {line}"));
        }
    }

    /// Finds the file.
    async fn open(&self, request: Request<'_>) -> Result<(OpenFile, Origin), Refused> {
        if request.mode == Mode::Other {
            let refusal = (ErrorCode::NOT_DEFINED, "only octet and netascii mode are served");
            return Err(Refused::new(refusal, "the mode is neither octet nor netascii"));
        }
        let path = RequestPath::parse(request.file)
            .map_err(|error| Refused::new((ErrorCode::ACCESS_VIOLATION, "access violation"), error))?;
        let opened = self.files.open(self.route.client, &path).await;
        opened
            .map(|(file, origin)| match request.mode {
                Mode::Netascii => (OpenFile::Netascii(Box::new(Netascii::new(file))), origin),
                Mode::Octet | Mode::Other => (file, origin),
            })
            .map_err(|(error, origin)| {
                let failed = |why: &Unavailable, reason: &dyn fmt::Display| Refused {
                    state: State::Failed,
                    why: Some(why.reason.clone()),
                    ..Refused::new((ErrorCode::NOT_DEFINED, why.to_client), reason)
                };
                let refused = match &error {
                    OpenError::NotFound => Refused {
                        state: State::Missing,
                        why: None,
                        ..Refused::new((ErrorCode::FILE_NOT_FOUND, "file not found"), error)
                    },
                    OpenError::Forbidden(_) => Refused::new((ErrorCode::ACCESS_VIOLATION, "access violation"), error),
                    // Why is in the log once already, as an event of the disk.
                    OpenError::Unavailable(why) if matches!(origin, Some(Origin::Disk(_))) => {
                        failed(why, &why.to_client)
                    }
                    OpenError::Unavailable(why) => Refused { level: Level::Error, ..failed(why, why) },
                };
                Refused { origin, ..refused }
            })
    }

    /// The largest block that reaches the client in one packet; any, if that cannot be told.
    fn largest_block(&self) -> u16 {
        mtu::largest_block(self.route.client).unwrap_or_else(|error| {
            self.log(Level::Warn, format_args!("blocks of any size: the MTU is not known: {error}"));
            MAX_BLKSIZE
        })
    }

    /// Sends the file, and writes the line.
    async fn send(&self, request: Request<'_>, mut file: OpenFile, origin: Origin, mut peer: TransferSocket) {
        let started = Instant::now();
        peer.guard(&self.guards);
        let mut limits = self.limits;
        if let OpenFile::Netascii(_) = file {
            limits.windowsize = limits.windowsize.min(netascii::MAX_WINDOWSIZE);
        }
        if self.mtu_clamp {
            limits.blksize = limits.blksize.min(self.largest_block());
        }
        let size = file.size();
        let (settings, granted) = negotiate(request.options, &limits, size);
        self.record.set_origin(origin);
        self.record.start_transfer(TransferStart {
            size,
            block_size: settings.blksize,
            window_size: settings.windowsize,
            snapshot_age: file.snapshot_age(),
        });
        let sender = Sender::new(clock::now(), settings, granted, size);
        let transfer = Transfer::new(sender, file, peer, self.ticket.clone(), self.record.clone());
        let (outcome, sender) = transfer.run(&self.workers, &self.stop).await;
        let (state, outcome) = ending(outcome);
        self.record.note_progress(clock::now(), sender.acknowledged(), sender.retransmitted());
        self.record.finish(state, Some(&*outcome).filter(|_| state == State::Failed));
        let seconds = started.elapsed().as_secs_f64();
        self.log(
            Level::Info,
            format_args!(
                "{} from {origin}: {}{} bytes in {seconds:.3} s, {:.1} MB/s, {} retransmitted, {outcome}",
                EscapedName(request.file),
                sender.acknowledged(),
                size.map(|size| format!(" of {size}")).unwrap_or_default(),
                sender.acknowledged() as f64 / seconds / 1e6,
                sender.retransmitted(),
            ),
        );
    }
}

/// What the end of a transfer is in the record, and in words.
fn ending(outcome: Option<Outcome>) -> (State, Cow<'static, str>) {
    match outcome {
        Some(Outcome::Complete) => (State::Complete, "complete".into()),
        Some(Outcome::Probed) => (State::Probe, "probe".into()),
        Some(Outcome::PeerError(ErrorCode(code))) => {
            (State::Failed, format!("ended by the client with error {code}").into())
        }
        Some(Outcome::TimedOut) => (State::Failed, "timed out".into()),
        Some(Outcome::ReadFailed(reason)) => (State::Failed, format!("failed: {reason}").into()),
        Some(Outcome::Aborted) => (State::Failed, "ended by the server".into()),
        // What only a receiver comes to.
        Some(Outcome::WriteFailed(_) | Outcome::Refused(_)) => (State::Failed, "failed".into()),
        None => (State::Failed, "given up for the client's next request".into()),
    }
}

/// Why a request gets no file.
struct Refused {
    refusal: Refusal,
    origin: Option<Origin>,
    /// For the log, like the reason.
    level: Level,
    reason: String,
    /// For the record, like why it is so.
    state: State,
    why: Option<String>,
}

impl Refused {
    fn new(refusal: Refusal, reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self { refusal, origin: None, level: Level::Info, why: Some(reason.clone()), reason, state: State::Refused }
    }
}
