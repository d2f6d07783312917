//! One transfer: the core's sender, driven by a socket, a file and the clock.

use std::{
    cell::Cell,
    future::poll_fn,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rtftp_core::{Instant, Outcome, Output, Sender};
use smol::{
    channel::Receiver,
    future::{or, pending, yield_now},
};

use crate::{
    clock,
    event_loop::{Handler, Socket, Turn, Workers},
    files::open_file::OpenFile,
    history::RequestRecord,
    net::{Route, TransferSocket},
    server::admission::SessionHandle,
};

/// How much of a window goes out at once at most, in bytes; the largest packet fits.
const SEND_BUFFER: usize = 65_536;
/// How many datagrams of a client are taken in at once at most. More than the copies of an ACK that one loss in a window of 64 brings.
const MAX_DATAGRAMS: usize = 64;
/// How often others are told how far a transfer is that goes on: with a thousand of them each telling is a walk to cold memory.
const TELLING: Duration = Duration::from_millis(100);

/// A file on its way to a client.
#[derive(Debug)]
pub(crate) struct Transfer {
    sender: Sender,
    file: OpenFile,
    peer: TransferSocket,
    ticket: Arc<SessionHandle>,
    record: Arc<RequestRecord>,
    /// When the client was last heard, and which such time its ticket and its entry were told last.
    heard: Option<Instant>,
    told: Option<Instant>,
    /// What the socket has no room for yet.
    unsent: Option<Unsent>,
    /// What the event loop left to the task.
    left: Option<Step>,
}

/// Datagrams one after the other, each `segment` bytes long, only the last may be shorter.
#[derive(Debug)]
struct Unsent {
    datagrams: Vec<u8>,
    segment: usize,
}

/// What a transfer needs to go on.
#[derive(Debug, Clone)]
enum Step {
    /// A datagram of the client, or this instant.
    Wait(Instant),
    /// Nothing, once the others had their turn.
    Again,
    /// The file's bytes.
    Load,
    /// Room in the socket.
    Room,
    /// It is over.
    Finished(Outcome),
}

/// The way to a transfer that shares its port, for whoever receives there.
#[derive(Debug)]
pub(crate) struct Delivery {
    transfer: Weak<Mutex<Transfer>>,
    socket: Weak<Socket>,
}

impl Delivery {
    /// Hands a datagram over, if it is the transfer's; whether it is. What is to be done about it is done in the transfer's next turn.
    pub(crate) fn deliver(&self, datagram: &[u8], route: Route) -> bool {
        let Some((transfer, socket)) = self.transfer.upgrade().zip(self.socket.upgrade()) else { return false };
        let mut transfer = lock(&transfer);
        if !transfer.peer.is_at(route) {
            return false;
        }
        transfer.handle(datagram);
        socket.nudge();
        true
    }
}

impl Transfer {
    pub(crate) fn new(
        sender: Sender,
        file: OpenFile,
        peer: TransferSocket,
        ticket: Arc<SessionHandle>,
        record: Arc<RequestRecord>,
    ) -> Self {
        Self { sender, file, peer, ticket, record, heard: None, told: None, unsent: None, left: None }
    }

    /// Sends the file to its end, and returns how that was: `None` when the server gave the transfer up because its client asked
    /// for something else. Word from the server ends the transfer, with that reason, or, when the channel is closed, without one.
    pub(crate) async fn run(self, workers: &Workers, word: &Receiver<&'static str>) -> (Option<Outcome>, Sender) {
        // What comes to a shared port is received by the first one, which is to have it done at once.
        let event_loop = if self.peer.shares_port() { workers.first() } else { workers.next() };
        let socket = Arc::new(self.peer.socket(event_loop));
        let shared = Arc::new(Mutex::new(self));
        lock(&shared).allow_delivery(&shared, &socket);
        let outcome = run(&shared, &socket, word).await;
        let sender = lock(&shared).sender.clone();
        (outcome, sender)
    }

    /// Tells its ticket how to hand over what comes to a shared port.
    fn allow_delivery(&self, shared: &Arc<Mutex<Self>>, socket: &Arc<Socket>) {
        if self.peer.shares_port() {
            let delivery = Delivery { transfer: Arc::downgrade(shared), socket: Arc::downgrade(socket) };
            // A ticket is for one transfer.
            let _ = self.ticket.delivery.set(delivery);
        }
    }

    /// Takes in a datagram of the client.
    fn handle(&mut self, datagram: &[u8]) {
        let now = clock::now();
        self.sender.handle(now, datagram);
        self.heard = Some(now);
        self.tell(now);
    }

    /// Tells others that the client was heard, and how far the transfer is, unless they know or were told a moment ago.
    fn tell(&mut self, now: Instant) {
        let Some(heard) = self.heard.filter(|_| self.heard > self.told) else { return };
        if self.told.is_none_or(|told| now.since(told) >= TELLING) {
            self.told = Some(heard);
            self.ticket.last_seen.record(heard);
            self.record.note_activity(heard, self.sender.acknowledged(), self.sender.retransmitted());
        }
    }

    /// Sends what is to be sent now, and says what is needed next.
    fn step(&mut self) -> Step {
        if let Some(left) = self.left.take() {
            return left;
        }
        if let Some(Unsent { datagrams, segment }) = self.unsent.take()
            && !self.send(&datagrams, segment)
        {
            return Step::Room;
        }
        let now = clock::now();
        // Also when the client has fallen silent: others are to know how far it came.
        self.tell(now);
        let mut buf = SendBuffer::take();
        loop {
            match self.sender.poll(now, &mut self.file, &mut buf) {
                Output::Transmit(transmit) => {
                    if !self.send(&buf[..transmit.len], transmit.segment) {
                        return Step::Room;
                    }
                    // A window may be larger than any buffer.
                    if transmit.len > SEND_BUFFER / 2 {
                        return Step::Again;
                    }
                }
                Output::Wait(until) => return Step::Wait(until),
                Output::NeedData => return Step::Load,
                Output::Finished(outcome) => return Step::Finished(outcome),
            }
        }
    }

    /// Sends datagrams, or keeps those that there is no room for; whether all have left.
    fn send(&mut self, datagrams: &[u8], segment: usize) -> bool {
        let sent = self.peer.send(datagrams, segment);
        if sent < datagrams.len() {
            self.unsent = Some(Unsent { datagrams: datagrams[sent..].to_vec(), segment });
        }
        self.unsent.is_none()
    }
}

impl Handler for Transfer {
    fn receive(&mut self) {
        let mut buf = [0; 1024];
        for _ in 0..MAX_DATAGRAMS {
            let Some(len) = self.peer.recv(&mut buf) else { return };
            self.handle(&buf[..len]);
            if self.sender.is_idle() {
                return;
            }
        }
    }

    fn turn(&mut self) -> Turn {
        match self.step() {
            Step::Wait(until) => Turn::Wait(until),
            Step::Again => Turn::Again,
            step => {
                self.left = Some(step);
                Turn::Leave
            }
        }
    }
}

/// Leaves the transfer to the event loop and sees to what only a task can.
async fn run(shared: &Arc<Mutex<Transfer>>, socket: &Socket, word: &Receiver<&'static str>) -> Option<Outcome> {
    let mut word = pin!(word.recv());
    let mut is_stopped = false;
    loop {
        let step = lock(shared).step();
        if let Step::Finished(outcome) = step {
            return Some(outcome);
        }
        let needed = async {
            meet(step, shared, socket).await;
            None
        };
        let stop = async { if is_stopped { pending().await } else { Some(word.as_mut().await.ok()) } };
        if let Some(reason) = or(needed, stop).await {
            let mut transfer = lock(shared);
            transfer.sender.abort(reason?);
            // The ERROR needs nothing more.
            transfer.left = None;
            is_stopped = true;
        }
    }
}

/// Waits for what a transfer needs.
async fn meet(step: Step, shared: &Arc<Mutex<Transfer>>, socket: &Socket) {
    match step {
        Step::Wait(until) => socket.host(shared.clone(), until).await,
        Step::Again => yield_now().await,
        Step::Load => {
            let loaded = poll_fn(|context| lock(shared).file.poll_ready(context));
            // The client may have something to say meanwhile.
            let heard = async {
                socket.readable(None).await;
                lock(shared).receive();
            };
            or(loaded, heard).await;
        }
        Step::Room => socket.writable().await,
        Step::Finished(_) => {}
    }
}

fn lock(shared: &Mutex<Transfer>) -> MutexGuard<'_, Transfer> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory for what is sent now. All transfers of a thread share it: what has been sent is read again if it must be sent again.
struct SendBuffer(Vec<u8>);

thread_local! {
    /// The buffer that nobody uses. One that waits for room in its socket is with its transfer, and the next one makes another.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(vec![]) };
}

impl SendBuffer {
    fn take() -> Self {
        let mut buf = SPARE.take();
        buf.resize(SEND_BUFFER, 0);
        Self(buf)
    }
}

impl Drop for SendBuffer {
    fn drop(&mut self) {
        // A thread that ends has no use for it.
        let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
    }
}

impl Deref for SendBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SendBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
