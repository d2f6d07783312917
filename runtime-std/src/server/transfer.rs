//! A transfer: the core's [`Sender`], driven by a socket, a file and the clock.
//!
//! [`Transfer::run`] registers the transfer with an event loop, which from then on calls its [`Handler`] methods: `receive` hands the
//! client's datagrams to the sender, `poll` sends what the sender asks for and returns what the transfer needs [next](Next).

use std::{
    cell::Cell,
    fmt::Debug,
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use rtftp_core::{BlockReader, Instant, Outcome, Output, Sender};
use smol::{
    channel::Receiver,
    future::{or, pending},
};

use super::admission::{Delivery, SessionHandle};
use crate::{
    clock,
    event_loop::{Handler, Next, Registered, Workers},
    history::RequestRecord,
    net::{Route, TransferSocket, UnknownTidSockets},
};

/// The size of the send buffer in bytes; the largest packet fits.
const SEND_BUFFER: usize = 65_536;
/// The number of datagrams received at once: more than the duplicate ACKs that one loss in a window of 64 blocks causes.
const MAX_DATAGRAMS: usize = 64;
/// The interval at which progress is reported: with a thousand transfers, each report is an access to cold memory. A transfer that
/// lasts longer replies to unknown sources.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A file that a transfer can send.
pub(super) trait TransferFile: BlockReader + Debug + Send + 'static {
    /// Loads the data that the last read lacked. Ready when that is loaded or has failed, which the next read reports.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// A file being sent to a client.
#[derive(Debug)]
pub(super) struct Transfer<F> {
    sender: Sender,
    file: F,
    socket: TransferSocket,
    unknown_tids: Arc<UnknownTidSockets>,
    handle: Arc<SessionHandle>,
    record: Arc<RequestRecord>,
    /// Makes the transfer due, for example when its file has loaded data.
    waker: Waker,
    /// The datagrams that the socket's send buffer has had no space for.
    unsent: Option<Unsent>,
    /// The time of the client's last packet, and the one that was last reported.
    last_seen: Option<Instant>,
    reported: Option<Instant>,
    outcome: Option<Outcome>,
    /// Whether the first window was repeated in fragments.
    needs_fragments: bool,
}

/// Consecutive datagrams of `segment` bytes each; the last may be shorter.
#[derive(Debug)]
struct Unsent {
    datagrams: Vec<u8>,
    segment: usize,
}

/// A transfer that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// `None` if the client's next request replaced the session.
    pub(super) outcome: Option<Outcome>,
    /// The number of bytes acknowledged.
    pub(super) acknowledged: u64,
    /// The number of packets sent more than once.
    pub(super) retransmitted: u64,
    /// The reason why this machine did not send the last packet; `None` if it did.
    pub(super) send_error: Option<io::Error>,
    /// Whether the first window arrived only in fragments.
    pub(super) needs_fragments: bool,
    /// The socket, if another transfer can use it.
    pub(super) socket: Option<Registered>,
}

impl<F: TransferFile> Transfer<F> {
    pub(super) fn new(
        sender: Sender,
        file: F,
        socket: TransferSocket,
        unknown_tids: Arc<UnknownTidSockets>,
        handle: Arc<SessionHandle>,
        record: Arc<RequestRecord>,
    ) -> Self {
        let waker = Waker::noop().clone();
        Self {
            sender,
            file,
            socket,
            unknown_tids,
            handle,
            record,
            waker,
            unsent: None,
            last_seen: None,
            reported: None,
            outcome: None,
            needs_fragments: false,
        }
    }

    /// Sends the file. A reason received from `stop` aborts the transfer with an ERROR; if `stop` is closed, it ends without one.
    pub(super) async fn run(transfer: Arc<Mutex<Self>>, workers: &Workers, stop: &Receiver<&'static str>) -> Finished {
        let (registered, waker) = Self::register(&transfer, workers);
        let finished = registered.run_handler(transfer.clone());
        let stopped = async {
            if let Ok(reason) = stop.recv().await {
                transfer.lock().sender.abort(reason);
                waker.wake_by_ref();
                // The transfer sends an ERROR and finishes.
                pending::<()>().await;
            }
        };
        or(finished, stopped).await;
        let mut transfer = transfer.lock();
        Finished {
            socket: transfer.socket.is_reusable().then_some(registered),
            send_error: transfer.socket.take_send_error(),
            // It may have ended just before the client's next request replaced it.
            outcome: transfer.outcome.or_else(|| transfer.sender.outcome()),
            acknowledged: transfer.sender.acknowledged(),
            retransmitted: transfer.sender.retransmitted(),
            needs_fragments: transfer.needs_fragments && transfer.sender.acknowledged() > 0,
        }
    }

    /// Registers the socket with the event loop of a worker, and returns the waker of the transfer.
    fn register(transfer: &Arc<Mutex<Self>>, workers: &Workers) -> (Registered, Waker) {
        let mut this = transfer.lock();
        // The main worker receives from a shared port, and wakes a transfer on its own thread without a system call.
        let event_loop = if this.socket.shares_port() { workers.main() } else { workers.pick() };
        let registered = this.socket.register(event_loop);
        this.waker = registered.waker();
        this.accept_delivery(transfer);
        (registered, this.waker.clone())
    }

    /// Registers the transfer for datagrams that arrive at the shared port, and for questions of the table of sessions.
    fn accept_delivery(&self, transfer: &Arc<Mutex<Self>>) {
        let inbox = Inbox { transfer: Arc::downgrade(transfer), waker: self.waker.clone() };
        // Cannot be set already: a session has one transfer.
        let _ = self.handle.delivery.set(Box::new(inbox));
    }

    /// Handles a datagram from the client.
    fn handle(&mut self, datagram: &[u8]) {
        let now = clock::now();
        self.sender.handle(now, datagram);
        // At the shared port a datagram proves nothing by itself.
        if self.sender.is_verified() || !self.socket.shares_port() {
            self.last_seen = Some(now);
        }
        self.report(now);
    }

    /// Ends the transfer if the client has closed its port, after the datagrams that it sent before.
    fn end_if_port_closed(&mut self) {
        if self.socket.is_port_closed() {
            self.receive();
            self.sender.port_closed();
        }
    }

    /// Reports the client's last packet and the progress of the transfer, unless nothing has changed or the last report is recent.
    fn report(&mut self, now: Instant) {
        let Some(last_seen) = self.last_seen.filter(|_| self.last_seen > self.reported) else { return };
        if self.reported.is_none_or(|reported| now.since(reported) >= REPORT_INTERVAL) {
            if self.reported.is_some() {
                self.socket.reply_to_unknown_sources(&self.unknown_tids);
            }
            self.reported = Some(last_seen);
            self.handle.note(last_seen, self.sender.acknowledged());
            self.record.note_activity(last_seen, self.sender.acknowledged(), self.sender.retransmitted());
        }
    }

    /// Sends datagrams and keeps those that the send buffer has no space for. Returns whether all were sent.
    fn send(&mut self, datagrams: &[u8], segment: usize) -> bool {
        let sent = self.socket.send(datagrams, segment);
        if sent < datagrams.len() {
            self.unsent = Some(Unsent { datagrams: datagrams[sent..].to_vec(), segment });
        }
        self.unsent.is_none()
    }
}

impl<F: TransferFile> Handler for Transfer<F> {
    fn receive(&mut self) {
        let mut buf = [0; 1024];
        for _ in 0..MAX_DATAGRAMS {
            let Some(len) = self.socket.recv(&mut buf) else { return };
            self.handle(&buf[..len]);
            // Nothing is in flight, so nothing else that has arrived can matter: saves a call that finds the socket empty.
            if self.sender.is_idle() {
                return;
            }
        }
    }

    fn poll(&mut self) -> Next {
        if let Some(Unsent { datagrams, segment }) = self.unsent.take()
            && !self.send(&datagrams, segment)
        {
            return Next::Writable;
        }
        let now = clock::now();
        // Even if the client has fallen silent, to publish its last progress.
        self.report(now);
        let mut buf = SendBuffer::take();
        loop {
            self.end_if_port_closed();
            match self.sender.poll(now, &mut self.file, &mut buf) {
                Output::Transmit(transmit) => {
                    if self.sender.may_exceed_mtu(now) && self.socket.allow_fragments() {
                        self.needs_fragments = true;
                    }
                    if !self.send(&buf[..transmit.len], transmit.segment) {
                        return Next::Writable;
                    }
                    // A window may be larger than any buffer.
                    if transmit.len > SEND_BUFFER / 2 {
                        return Next::Yield;
                    }
                }
                Output::Wait(until) => return Next::Wait(until),
                Output::NeedData => {
                    let loading = self.file.poll_ready(&mut Context::from_waker(&self.waker));
                    return if loading.is_ready() { Next::Yield } else { Next::Sleep };
                }
                Output::Finished(outcome) => {
                    self.outcome = Some(outcome);
                    return Next::Detach;
                }
            }
        }
    }
}

/// Gives others than the event loop access to a running transfer.
#[derive(Debug)]
struct Inbox<F> {
    transfer: Weak<Mutex<Transfer<F>>>,
    waker: Waker,
}

impl<F: TransferFile> Delivery for Inbox<F> {
    fn deliver(&self, datagram: &[u8], route: Route) -> bool {
        let Some(transfer) = self.transfer.upgrade() else { return false };
        let mut transfer = transfer.lock();
        if !transfer.socket.has_route(route) {
            return false;
        }
        transfer.handle(datagram);
        // The event loop polls it after all datagrams that have arrived by now.
        self.waker.wake_by_ref();
        true
    }

    fn port_closed(&self) {
        if let Some(transfer) = self.transfer.upgrade() {
            transfer.lock().sender.port_closed();
            self.waker.wake_by_ref();
        }
    }

    fn has_ended(&self) -> bool {
        let Some(transfer) = self.transfer.upgrade() else { return true };
        let mut transfer = transfer.lock();
        transfer.receive();
        self.waker.wake_by_ref();
        transfer.sender.outcome().is_some()
    }
}

/// A send buffer, shared by all transfers of a thread: packets are read from the file again if they must be retransmitted.
struct SendBuffer(Vec<u8>);

thread_local! {
    /// The thread's buffer, while it is not in use.
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
        // Fails if the thread is ending.
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

#[cfg(test)]
mod tests;
