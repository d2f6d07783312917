//! A session: one read request, from the file lookup to the log line.

use std::{
    borrow::Cow,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::Arc,
    time::Instant,
};

use log::Level;
use parking_lot::Mutex;
use rtftp_core::{
    Outcome, RequestPath, Sender, netascii,
    wire::{
        options::{Limits, MAX_BLKSIZE, negotiate},
        packet::{ErrorCode, Mode},
    },
};
use smol::future::or;

use super::{
    admission::Admitted,
    context::ServerContext,
    encoded_file::EncodedFile,
    error_reply::Rejection,
    transfer::{Finished, Transfer},
};
use crate::{
    clock,
    disk::ServedDisk,
    files::{OpenFile, Origin},
    history::{RequestRecord, TransferStart, snapshot::State},
    local_fs::SharedRoot,
    net::{Route, TransferSocket, is_exhausted, mtu},
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

    /// Opens the file, below a root directory that is not open yet or for requests with this one, and sends it, or replies with an ERROR.
    pub(super) async fn run(self, root: Arc<SharedRoot>) {
        let abandoned = async {
            let _ = self.admitted.stop.recv().await;
            None
        };
        // First: in a flood, most sessions are evicted before they have started.
        // In memory of its own, which is free again during the transfer.
        let opened = or(abandoned, async { Some(Box::pin(self.open(root)).await) }).await;
        // What is needed only before and after the transfer is not in the future, which so fits in the allocator's cache.
        if let Some(start) = self.start_transfer(opened) {
            let finished = Transfer::run(start.transfer, &self.context.workers, &self.admitted.stop).await;
            self.finish(finished, start.file);
        }
    }

    /// Opens a socket for an open file, or replies with an ERROR.
    fn start_transfer(&self, opened: Option<Result<OpenFile, OpenFailure>>) -> Option<Start> {
        let name = EscapedName(self.admitted.request.file());
        match opened {
            // Only now: a request for a file that does not exist needs no socket.
            Some(Ok(file)) => match TransferSocket::open(&self.context.ports, self.route) {
                Ok(socket) => return Some(self.prepare(file, socket)),
                Err(error) if is_exhausted(&error) => self.give_up(&error),
                // No reply, which would not arrive: the client repeats its request.
                Err(error) => {
                    self.record.finish(State::Failed, Some(&error.to_string()));
                    self.log(Level::Error, format_args!("{error}"));
                }
            },
            Some(Err(OpenFailure::Exhausted(error))) => self.give_up(&error),
            Some(Err(OpenFailure::Rejected(rejection))) => {
                rejection.reply.send_to(&self.context, self.route);
                rejection.origin.iter().for_each(|origin| self.record.set_origin(*origin));
                self.record.finish(rejection.state, rejection.reason.as_deref());
                let origin = rejection.origin.map(|origin| format!(" from {origin}")).unwrap_or_default();
                self.log(rejection.level, format_args!("{name}{origin}: {}", rejection.log_text));
            }
            // No reply: the client has sent another request, or retransmits this one to the restarted server.
            None => {
                let reason = self.end_reason().unwrap_or("abandoned before the file was opened");
                self.record.finish(State::Failed, Some(reason));
                self.log(Level::Info, format_args!("{name}: {reason}"));
            }
        }
        None
    }

    /// Ends the session without a reply, because there is no descriptor for it: the client repeats its request.
    fn give_up(&self, error: &io::Error) {
        self.record.finish(State::Failed, Some(&format!("not answered: {error}")));
        self.context.handle_exhaustion(self.route.client, error);
    }

    /// Returns why the table has ended the session.
    fn end_reason(&self) -> Option<&'static str> {
        self.admitted.handle.end_reason()
    }

    /// Opens the requested file.
    async fn open(&self, root: Arc<SharedRoot>) -> Result<OpenFile, OpenFailure> {
        let request = &self.admitted.request;
        if request.mode() == Mode::Other {
            return Err(OpenFailure::Rejected(Rejection::unsupported_mode()));
        }
        let path = RequestPath::parse(request.file());
        let path = path.map_err(|error| OpenFailure::Rejected(Rejection::invalid_path(error)))?;
        self.context.files.open_below(&root, self.route.client, &path).await.map_err(|error| match error.exhaustion() {
            Some(exhaustion) => OpenFailure::Exhausted(io::Error::other(exhaustion.to_string())),
            None => OpenFailure::Rejected(Rejection::from_open_error(&error)),
        })
    }

    /// Negotiates the options, and creates the transfer.
    fn prepare(&self, file: OpenFile, socket: TransferSocket) -> Start {
        let started = Instant::now();
        let (origin, snapshot_age, disk) = (file.origin(), file.snapshot_age(), file.served_disk());
        file.boot_entry().iter().for_each(|title| self.record.set_boot_entry(title));
        let file = EncodedFile::new(file, self.admitted.request.mode());
        let size = file.size();
        let (settings, granted) =
            negotiate(self.admitted.request.options(), &self.limits(&file, socket.shares_port()), size);
        self.record.set_origin(origin);
        self.record.start_transfer(TransferStart {
            size,
            block_size: settings.blksize,
            window_size: settings.windowsize,
            snapshot_age,
            client_port: self.route.client.port(),
        });
        let sender = Sender::new(clock::now(), settings, granted, size);
        let sender = if socket.shares_port() { sender.on_known_port(random()) } else { sender };
        let unknown_tids = self.context.unknown_tids.clone();
        let (handle, record) = (self.admitted.handle.clone(), self.record.clone());
        let transfer = Transfer::new(sender, file, socket, unknown_tids, handle, record);
        Start { transfer: Arc::new(Mutex::new(transfer)), file: StartedFile { origin, size, disk, started } }
    }

    /// Records the end of the transfer, and logs it.
    fn finish(&self, finished: Finished, StartedFile { origin, size, disk, started }: StartedFile) {
        if let Some(socket) = finished.socket {
            self.context.ports.keep_idle(self.route, socket);
        }
        let (acknowledged, retransmitted) = (finished.acknowledged, finished.retransmitted);
        let (state, mut outcome) = describe(finished.outcome, self.end_reason());
        if state == State::Failed && acknowledged == 0 && self.record.finish_copy() {
            let name = EscapedName(self.admitted.request.file());
            return log::debug!("{} {name}: copy of a request whose file was received: {outcome}", self.route.client);
        }
        if finished.outcome == Some(Outcome::Aborted) && self.end_reason().is_some() {
            self.context.transfers_warning.log(format_args!(
                "{}: transfer ended for another client: all places are taken (--max-transfers)",
                self.route.client
            ));
        }
        if let Some(error) = finished.send_error.filter(|_| state == State::Failed) {
            outcome = format!("{outcome}; the last packet was not sent: {error}").into();
        }
        if finished.needs_fragments {
            self.note_fragments();
        }
        self.record.note_progress(clock::now(), acknowledged, retransmitted);
        self.record.finish(state, Some(&*outcome).filter(|_| state == State::Failed));
        if let Some(disk) = disk.filter(|_| state == State::Complete) {
            disk.file_received(self.record.clone());
        }
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

    /// Notes that the client's blocks arrive only in fragments: its next transfers start with them.
    fn note_fragments(&self) {
        let client = self.route.client.ip();
        if self.context.ports.fragmented_hosts().add(client, clock::now()) {
            log::info!(
                "{client}: the first blocks arrived only after they could be fragmented: smaller blocks (--max-blksize) avoid this"
            );
        }
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
        if self.admitted.handle.is_verified() {
            log::log!(level, "{client} {line}");
        } else {
            self.context.unverified_log.log(level, format_args!("{client} {line}"));
        }
    }
}

/// A transfer that is about to start.
struct Start {
    transfer: Arc<Mutex<Transfer<EncodedFile>>>,
    file: StartedFile,
}

/// What the end of a transfer needs about its file.
struct StartedFile {
    origin: Origin,
    size: Option<u64>,
    /// The disk that contains it.
    disk: Option<ServedDisk>,
    started: Instant,
}

/// The reason why a file is not sent.
#[derive(Debug)]
enum OpenFailure {
    Rejected(Rejection),
    /// There is no descriptor left.
    Exhausted(io::Error),
}

/// Returns a number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns the state for the history, and the text for the log. `None` means that the session was ended without an ERROR.
fn describe(outcome: Option<Outcome>, end_reason: Option<&'static str>) -> (State, Cow<'static, str>) {
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
        Some(Outcome::ReadFailed(reason)) => (State::Failed, reason.0.into()),
        Some(Outcome::Aborted) => {
            let reason = end_reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            (State::Failed, format!("ended by the server{reason}").into())
        }
        // Outcomes of a receiver.
        Some(_) => (State::Failed, "failed".into()),
        None => (State::Failed, end_reason.unwrap_or("replaced by the client's next request").into()),
    }
}
