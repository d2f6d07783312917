//! A session: one read request, from the file lookup to the log line.

use std::{borrow::Cow, fmt, sync::Arc, time::Instant};

use log::Level;
use rtftp_core::{
    Outcome, RequestPath, Sender, netascii,
    wire::{
        options::{Limits, MAX_BLKSIZE, negotiate},
        packet::{ErrorCode, Mode},
    },
};
use smol::future::or;

use super::{
    admission::Admitted, context::ServerContext, encoded_file::EncodedFile, error_reply::Rejection, transfer::Transfer,
};
use crate::{
    clock,
    files::OpenFile,
    history::{RequestRecord, TransferStart, snapshot::State},
    net::{Route, TransferSocket, mtu},
    text::EscapedName,
};

/// The most bytes of a file in a window if transfers share the listening port, so that anyone can forge a client's ACKs: each
/// brings a window. A window of 64 blocks fits, in Ethernet frames.
const SHARED_PORT_WINDOW: u32 = 128 << 10;

/// A read request that is being answered.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<ServerContext>,
    route: Route,
    admitted: Admitted,
    record: Arc<RequestRecord>,
}

impl Session {
    pub(super) fn new(context: Arc<ServerContext>, route: Route, admitted: Admitted, record: RequestRecord) -> Self {
        Self { context, route, admitted, record: Arc::new(record) }
    }

    /// Opens the file and sends it, or replies with an ERROR.
    pub(super) async fn run(self) {
        let mut socket = match TransferSocket::open(&self.context.ports, self.route) {
            Ok(socket) => socket,
            // No reply, which would need a socket too: the client retransmits its request.
            Err(error) => {
                self.record.finish(State::Failed, Some(&error.to_string()));
                return self.log(Level::Error, format_args!("{error}"));
            }
        };
        let name = EscapedName(self.admitted.request.file());
        let abandoned = async {
            let _ = self.admitted.stop.recv().await;
            None
        };
        match or(async { Some(self.open().await) }, abandoned).await {
            Some(Ok(file)) => self.send(file, socket).await,
            Some(Err(rejection)) => {
                rejection.reply.send(&mut socket);
                rejection.origin.iter().for_each(|origin| self.record.set_origin(*origin));
                self.record.finish(rejection.state, rejection.reason.as_deref());
                let origin = rejection.origin.map(|origin| format!(" from {origin}")).unwrap_or_default();
                self.log(rejection.level, format_args!("{name}{origin}: {}", rejection.log_text));
            }
            // No reply: the client has sent another request, or retransmits this one to the restarted server.
            None => {
                self.record.finish(State::Failed, Some("abandoned before the file was opened"));
                self.log(Level::Info, format_args!("{name}: abandoned before the file was opened"));
            }
        }
    }

    /// Opens the requested file.
    async fn open(&self) -> Result<OpenFile, Rejection> {
        let request = &self.admitted.request;
        if request.mode() == Mode::Other {
            return Err(Rejection::unsupported_mode());
        }
        let path = RequestPath::parse(request.file()).map_err(Rejection::invalid_path)?;
        self.context.files.open(self.route.client, &path).await.map_err(|error| Rejection::from_open_error(&error))
    }

    /// Sends the file.
    async fn send(&self, file: OpenFile, mut socket: TransferSocket) {
        let started = Instant::now();
        let (origin, snapshot_age) = (file.origin(), file.snapshot_age());
        let file = EncodedFile::new(file, self.admitted.request.mode());
        socket.reply_to_unknown_sources(&self.context.unknown_tids);
        let size = file.size();
        let (settings, granted) =
            negotiate(self.admitted.request.options(), &self.limits(&file, socket.shares_port()), size);
        self.record.set_origin(origin);
        self.record.start_transfer(TransferStart {
            size,
            block_size: settings.blksize,
            window_size: settings.windowsize,
            snapshot_age,
        });
        let sender = Sender::new(clock::now(), settings, granted, size);
        let sender = if socket.shares_port() { sender.on_known_port() } else { sender };
        let transfer = Transfer::new(sender, file, socket, self.admitted.handle.clone(), self.record.clone());
        let finished = transfer.run(&self.context.workers, &self.admitted.stop).await;
        let (acknowledged, retransmitted) = (finished.acknowledged, finished.retransmitted);
        let (state, mut outcome) = describe(finished.outcome);
        if let Some(error) = finished.send_error.filter(|_| state == State::Failed) {
            outcome = format!("{outcome}; the last packet was not sent: {error}").into();
        }
        self.record.note_progress(clock::now(), acknowledged, retransmitted);
        self.record.finish(state, Some(&*outcome).filter(|_| state == State::Failed));
        let seconds = started.elapsed().as_secs_f64();
        self.log(
            Level::Info,
            format_args!(
                "{} from {origin}: {acknowledged}{} bytes in {seconds:.3} s, {:.1} MB/s, {retransmitted} retransmitted, {outcome}",
                EscapedName(self.admitted.request.file()),
                size.map(|size| format!(" of {size}")).unwrap_or_default(),
                acknowledged as f64 / seconds / 1e6,
            ),
        );
    }

    /// Returns the largest options to grant for a file.
    fn limits(&self, file: &EncodedFile, shares_port: bool) -> Limits {
        let mut limits = self.context.limits;
        if shares_port {
            limits.window_bytes = limits.window_bytes.min(SHARED_PORT_WINDOW);
        }
        if let EncodedFile::Netascii(_) = file {
            limits.windowsize = limits.windowsize.min(netascii::MAX_WINDOWSIZE);
        }
        if self.context.mtu_clamp {
            let unfragmented = mtu::largest_block(self.route.client).unwrap_or_else(|error| {
                self.log(Level::Warn, format_args!("cannot read the path MTU, block size not limited: {error}"));
                MAX_BLKSIZE
            });
            limits.blksize = limits.blksize.min(unfragmented);
        }
        limits
    }

    /// Writes a log line about the request. The number of lines about unverified clients is limited.
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let client = self.route.client;
        if self.admitted.handle.last_seen.is_verified() {
            log::log!(level, "{client} {line}");
        } else {
            self.context.unverified_log.log(level, format_args!("{client} {line}"));
        }
    }
}

/// Returns the state for the history, and the text for the log. `None` means that the client's next request replaced the session.
fn describe(outcome: Option<Outcome>) -> (State, Cow<'static, str>) {
    match outcome {
        Some(Outcome::Complete) => (State::Complete, "complete".into()),
        Some(Outcome::Probed) => (State::Probe, "probe".into()),
        Some(Outcome::PeerError(ErrorCode(code))) => {
            (State::Failed, format!("ended by the client with error {code}").into())
        }
        Some(Outcome::FirstBlockLost { repetitions }) => {
            (State::Failed, format!("block 1 never acknowledged, {repetitions} repetitions").into())
        }
        Some(Outcome::PortClosed) => (State::Failed, "the client has closed its port".into()),
        Some(Outcome::TimedOut) => (State::Failed, "timed out".into()),
        Some(Outcome::ReadFailed(reason)) => (State::Failed, format!("failed: {reason}").into()),
        Some(Outcome::Aborted) => (State::Failed, "ended by the server".into()),
        // Outcomes of a receiver.
        Some(_) => (State::Failed, "failed".into()),
        None => (State::Failed, "replaced by the client's next request".into()),
    }
}
