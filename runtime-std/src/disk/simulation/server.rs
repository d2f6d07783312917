//! An NBD server in virtual time: its disk is written by its owner while it is read, and it fails as servers and networks do.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut, Read as _},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::io::{AsyncRead, AsyncWrite};

use super::{
    history::SECTOR,
    paged_disk::PagedDisk,
    power_cut::{Operation, Random},
};
use crate::{
    clock::{self, Timer},
    nbd::script::{greeting, info_export, option_reply, simple_reply},
};

/// Numbers of the protocol.
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const HAS_FLAGS: u16 = 1;
const CAN_MULTI_CONN: u16 = 1 << 8;
const READ: u16 = 0;
const DISCONNECT: u16 = 2;
const EIO: u32 = 5;

/// The latencies of servers in milliseconds: in memory, on a disk, far away.
const LATENCIES: [u64; 6] = [0, 0, 0, 1, 5, 20];

/// What goes wrong at the server, at a read with this number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// It closes the connection.
    Close(usize),
    /// It never replies on this connection any more.
    Hang(usize),
    /// It replies late.
    Late(Range<usize>, Duration),
    /// It reports an error.
    Error(Range<usize>),
    /// From then on it replies to nobody for this long, and accepts connections meanwhile.
    Silent(usize, Duration),
    /// It ends, and with it all connections; it is started again after this time.
    Restart(usize, Duration),
}

/// The owner of the disk, who goes on with recorded operations.
pub(super) struct Owner {
    pub(super) operations: Arc<[Operation]>,
    /// The number of the next operation.
    pub(super) next: usize,
    /// The time between two operations; `None` if there is no owner any more.
    pub(super) interval: Option<Duration>,
    /// The time of the last operation.
    pub(super) last: Instant,
}

impl Owner {
    /// Applies the operations until now.
    fn advance(&mut self, disk: &mut PagedDisk) {
        let Some(interval) = self.interval else { return };
        while let Some(operation) = self.operations.get(self.next)
            && clock::elapsed(self.last) >= interval
        {
            disk.apply(operation);
            self.next += 1;
            self.last += interval;
        }
    }

    /// Applies some of the sectors of the next operation, sometimes.
    fn advance_partly(&self, disk: &mut PagedDisk, random: &mut Random) {
        if self.interval.is_some()
            && let Some(operation @ Operation::Write { bytes, .. }) = self.operations.get(self.next)
            && random.below(4) == 0
        {
            disk.apply_part(operation, 0..random.below(bytes.len() / SECTOR) * SECTOR);
        }
    }
}

/// A server. A clone refers to the same one.
#[derive(Clone)]
pub(super) struct Server(Arc<Mutex<State>>);

struct State {
    disk: PagedDisk,
    owner: Owner,
    fault: Fault,
    random: Random,
    /// The time that a reply takes at least.
    latency: Duration,
    flags: u16,
    /// The number of reads until now.
    reads: usize,
    /// The time at which the fault that lasts for some time began.
    failing_since: Option<Instant>,
    /// The number of restarts.
    restarts: usize,
    connections: usize,
}

impl Server {
    pub(super) fn new(disk: PagedDisk, owner: Owner, fault: Fault, mut random: Random) -> Self {
        let latency = Duration::from_millis(LATENCIES[random.below(LATENCIES.len())]);
        let flags = HAS_FLAGS | if random.below(2) == 0 { CAN_MULTI_CONN } else { 0 };
        Self(Arc::new(Mutex::new(State {
            disk,
            owner,
            fault,
            random,
            latency,
            flags,
            reads: 0,
            failing_since: None,
            restarts: 0,
            connections: 0,
        })))
    }

    /// Accepts a connection.
    pub(super) fn connect(&self) -> io::Result<Connection> {
        let mut state = self.0.lock();
        if state.is_failing() && matches!(state.fault, Fault::Restart(..)) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        state.connections += 1;
        let mut connection = Connection {
            server: self.clone(),
            phase: Phase::Greeting,
            received: Vec::new(),
            replies: BTreeMap::new(),
            count: 0,
            sending: Vec::new(),
            sent: 0,
            timer: None,
            is_closed: false,
            is_hanging: false,
            restarts: state.restarts,
        };
        connection.reply(&mut state, greeting(3));
        Ok(connection)
    }

    /// Returns the number of the owner's next operation.
    pub(super) fn played(&self) -> usize {
        let mut state = self.0.lock();
        let State { disk, owner, .. } = &mut *state;
        owner.advance(disk);
        owner.next
    }

    /// Returns the number of connections.
    pub(super) fn connection_count(&self) -> usize {
        self.0.lock().connections
    }
}

impl State {
    /// Returns whether a fault lasts that concerns all connections.
    fn is_failing(&self) -> bool {
        let (Fault::Silent(_, time) | Fault::Restart(_, time)) = self.fault else { return false };
        self.failing_since.is_some_and(|since| clock::elapsed(since) < time)
    }

    /// Returns the delay of the next reply.
    fn delay(&mut self) -> Duration {
        let mut delay = self.latency + Duration::from_micros(20 + self.random.below(200) as u64);
        if let (Fault::Silent(_, time), Some(since)) = (&self.fault, self.failing_since) {
            delay += time.saturating_sub(clock::elapsed(since));
        }
        delay
    }

    /// Returns the reply to a read.
    fn read(&mut self, cookie: u64, offset: u64, len: usize) -> Vec<u8> {
        let Self { disk, owner, random, .. } = self;
        owner.advance(disk);
        owner.advance_partly(disk, random);
        let mut reply = simple_reply(0, cookie, &[]);
        reply.reserve_exact(len);
        if disk.read(offset as usize, len, &mut reply) { reply } else { simple_reply(EIO, cookie, &[]) }
    }
}

enum Phase {
    Greeting,
    Options,
    Transmission,
}

/// A reply that is not sent yet.
enum Reply {
    Bytes(Vec<u8>),
    Read { cookie: u64, offset: u64, len: usize },
}

/// A connection, as the stream of the client.
pub(super) struct Connection {
    server: Server,
    phase: Phase,
    received: Vec<u8>,
    /// The replies by the time at which they are sent.
    replies: BTreeMap<(Instant, u64), Reply>,
    count: u64,
    /// The reply that is being sent.
    sending: Vec<u8>,
    sent: usize,
    timer: Option<Timer>,
    is_closed: bool,
    is_hanging: bool,
    /// The number of restarts before it.
    restarts: usize,
}

impl Connection {
    /// Sends a reply after the usual delay.
    fn reply(&mut self, state: &mut State, bytes: Vec<u8>) {
        let delay = state.delay();
        self.reply_after(delay, Reply::Bytes(bytes));
    }

    fn reply_after(&mut self, delay: Duration, reply: Reply) {
        self.count += 1;
        self.replies.insert((clock::instant() + delay, self.count), reply);
    }

    /// Handles what was received. Returns `false` if more must be received before.
    fn handle(&mut self, state: &mut State) -> bool {
        let field = |at: usize, len: usize, bytes: &[u8]| {
            bytes.get(at..at + len).map(|field| field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        match self.phase {
            Phase::Greeting => {
                if self.received.len() < 4 {
                    return false;
                }
                self.received.drain(..4);
                self.phase = Phase::Options;
            }
            Phase::Options => {
                let Some(len) = field(12, 4, &self.received).map(|len| len as usize) else { return false };
                if self.received.len() < 16 + len {
                    return false;
                }
                let option = field(8, 4, &self.received).unwrap_or_default() as u32;
                self.received.drain(..16 + len);
                let bytes = match option {
                    OPT_GO => {
                        self.phase = Phase::Transmission;
                        let export = info_export(state.disk.len() as u64, state.flags);
                        [option_reply(option, REP_INFO, &export), option_reply(option, REP_ACK, &[])].concat()
                    }
                    OPT_ABORT => option_reply(option, REP_ACK, &[]),
                    _ => option_reply(option, REP_ERR_UNSUP, &[]),
                };
                self.reply(state, bytes);
            }
            Phase::Transmission => {
                let Some(len) = field(24, 4, &self.received) else { return false };
                let [command, cookie, offset] =
                    [(6, 2), (8, 8), (16, 8)].map(|(at, len)| field(at, len, &self.received).unwrap_or_default());
                self.received.drain(..28);
                match command as u16 {
                    READ => self.handle_read(state, cookie, offset, len as usize),
                    DISCONNECT => self.is_closed = true,
                    _ => unreachable!("the client only reads"),
                }
            }
        }
        true
    }

    fn handle_read(&mut self, state: &mut State, cookie: u64, offset: u64, len: usize) {
        let number = state.reads;
        state.reads += 1;
        match state.fault.clone() {
            Fault::Close(at) if at == number => self.is_closed = true,
            Fault::Hang(at) if at == number => self.is_hanging = true,
            Fault::Silent(at, _) if at == number => state.failing_since = Some(clock::instant()),
            Fault::Restart(at, _) if at == number => {
                state.failing_since = Some(clock::instant());
                state.restarts += 1;
            }
            _ => {}
        }
        if self.is_hanging {
            return;
        }
        let mut delay = state.delay();
        match &state.fault {
            Fault::Error(reads) if reads.contains(&number) => {
                return self.reply_after(delay, Reply::Bytes(simple_reply(EIO, cookie, &[])));
            }
            Fault::Late(reads, by) if reads.contains(&number) => delay += *by,
            _ => {}
        }
        // The server reads its disk before or after its delay.
        let reply = if state.random.below(2) == 0 {
            Reply::Bytes(state.read(cookie, offset, len))
        } else {
            Reply::Read { cookie, offset, len }
        };
        self.reply_after(delay, reply);
    }

    /// Returns whether the server has closed the connection.
    fn is_closed(&self, state: &State) -> bool {
        self.is_closed || self.restarts < state.restarts
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let server = self.server.clone();
        let mut state = server.0.lock();
        if self.is_closed(&state) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.received.extend_from_slice(bytes);
        while self.handle(&mut state) {}
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Connection {
    /// Only the task that reads also writes, so nothing but a timer must wake it.
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(context, &mut [IoSliceMut::new(buf)])
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let server = this.server.clone();
        let mut state = server.0.lock();
        loop {
            if this.is_closed(&state) {
                return Poll::Ready(Ok(0));
            }
            if this.sent < this.sending.len() {
                let len = (&this.sending[this.sent..]).read_vectored(bufs)?;
                this.sent += len;
                return Poll::Ready(Ok(len));
            }
            let Some(first) = this.replies.first_entry() else {
                this.timer = None;
                return Poll::Pending;
            };
            let time = first.key().0;
            if time > clock::instant() {
                let timer = this.timer.insert(Timer::at(time));
                match Pin::new(timer).poll(context) {
                    Poll::Ready(_) => continue,
                    Poll::Pending => return Poll::Pending,
                }
            }
            this.sending = match first.remove() {
                Reply::Bytes(bytes) => bytes,
                Reply::Read { cookie, offset, len } => state.read(cookie, offset, len),
            };
            this.sent = 0;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.0.lock().connections -= 1;
    }
}
