//! The sending end of a read request: the server's.
//!
//! A transfer goes through these states:
//!
//! 1. `Offering`, only if an option was granted: sends the OACK, which counts as block 0 and is a window of
//!    its own. It is sent again until ACK 0 comes and never after that (RFC 2347; GRUB starts over on a second OACK).
//!    Until its first ACK a client is *unverified*: its request may be forged, and every packet may go to a victim. So it gets
//!    the first packet at most [`MAX_UNVERIFIED`] times, after 0, 1, 3, 7, 15 and 31 s, whatever options it asked for.
//! 2. `Sending`: sends the blocks of the window, at once or paced.
//! 3. `Waiting`: the whole window is in flight.
//!    - An ACK of a block in flight moves the window behind that block and leads back to `Sending` (RFC 7440 section 4).
//!    - The retransmission timeout leads back to the first block that is not acknowledged, and doubles itself.
//! 4. Terminated: the last block is acknowledged, the client sent an ERROR, has closed its port or sent nothing new for
//!    [`PATIENCE`], the file cannot be read, or the driver aborted the transfer. If the client must know, one ERROR leaves; it
//!    counts as one of the packets of an unverified client.

mod ack;
mod blocks;
#[cfg(test)]
mod tests;

use core::time::Duration;

use self::blocks::{BUFFER_TOO_SMALL, Blocks, MIN_BUFFER};
use crate::{
    time::Instant,
    transfer::{
        challenge::Challenge,
        io::{BlockReader, ReadFailed},
        output::{Outcome, Output, Transmit},
        pacing::Pacer,
        rto::{Bounds, Rto},
        termination::Termination,
    },
    wire::{
        options::{DEFAULT_BLKSIZE, Granted, Settings},
        packet::{ErrorCode, Packet},
    },
};

/// The time without a new acknowledgement after which the sender gives up. GRUB pauses one transfer while it reads another file
/// to its end, so this is a minute and not a number of retransmissions.
/// A client with a granted `timeout` gets at least four times that.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The number of intervals of a granted `timeout` without a new acknowledgement after which the sender gives up.
const PATIENCE_INTERVALS: u32 = 4;

/// The most packets that a client receives before it is verified.
pub const MAX_UNVERIFIED: u32 = 6;

/// The time after the first packet to an unverified client; it doubles with every further one.
const UNVERIFIED_INTERVAL: Duration = Duration::from_secs(1);

/// The number of repetitions of block 1 from which an ERROR of the client is no probe: the client waited for that block.
const MAX_PROBE_REPETITIONS: u32 = 4;

/// The time without an answer after which a repeated first window possibly exceeds the MTU of the path. On a fast network it is repeated
/// sooner, because a single loss is common.
const MTU_DOUBT: Duration = Duration::from_millis(100);

/// Sends one file to one client.
///
/// A `Sender` is plain data: it has no socket, no clock and no buffer. Pass every datagram of the client to
/// [`handle`](Self::handle). After that, and when the instant of an [`Output::Wait`] has come, call [`poll`](Self::poll) and do
/// what it returns, until it returns `Wait` or `Finished`.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sender {
    blocks: Blocks,
    windowsize: u16,
    granted: Granted,
    /// The first block that is not acknowledged.
    base: u64,
    /// The block to send next, from `base` to the end of the window.
    next: u64,
    /// One past the highest block that was ever sent.
    frontier: u64,
    /// The client is verified once all blocks up to this one are acknowledged.
    proof: u64,
    /// How often a packet, or a window, was sent to the unverified client; to one that has not proved itself, since its last ACK.
    unverified_sendings: u32,
    /// What a client at a known port must prove.
    challenge: Option<Challenge>,
    rto: Rto,
    patience: Duration,
    /// When the blocks in flight count as lost.
    deadline: Instant,
    /// Since when the client owes an answer: its last new acknowledgement, or when a new block last left.
    waiting_since: Instant,
    flight: Option<Flight>,
    /// Whether a timeout started the flight: an ACK may then also answer the flight before (Karn's rule).
    is_retransmission: bool,
    /// One past the last block of the last retransmission, until the ACK after it.
    retransmission_end: u64,
    pacer: Pacer,
    retransmitted: u64,
    termination: Termination,
}

/// The blocks that were sent since the last ACK or timeout.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Flight {
    start: Instant,
    first: u64,
}

/// The state of a transfer that is not terminated.
enum State {
    /// The OACK is to be sent.
    Offering,
    /// A block of the window is to be sent.
    Sending,
    /// Everything in the window is sent.
    Waiting,
}

impl Sender {
    /// Starts a transfer of a file of `size` bytes with the result of [`negotiate`](crate::wire::options::negotiate). Without a
    /// size, the file ends at the first short read.
    #[must_use]
    pub fn new(now: Instant, settings: Settings, granted: Granted, size: Option<u64>) -> Self {
        let Settings { blksize, windowsize, timeout, rollover } = settings;
        let first = if granted.is_empty() { 1 } else { 0 };
        let interval = timeout.unwrap_or_default();
        let bounds = Bounds::DEFAULT.at_least(interval);
        Self {
            blocks: Blocks { blksize, size, rollover },
            windowsize,
            granted,
            base: first,
            next: first,
            frontier: first,
            proof: first,
            unverified_sendings: 1,
            challenge: None,
            rto: if windowsize > 1 { Rto::new(bounds) } else { Rto::lockstep(bounds) },
            patience: interval.saturating_mul(PATIENCE_INTERVALS).max(PATIENCE),
            deadline: now,
            waiting_since: now,
            flight: None,
            is_retransmission: false,
            retransmission_end: 0,
            pacer: Pacer::default(),
            retransmitted: 0,
            termination: Termination::default(),
        }
    }

    /// Trusts the client only after an ACK of block 1, and sends a large file at full speed only once the client's ACKs depend on the
    /// time at which their blocks leave. For a driver that answers from the port of requests: there an ACK needs no knowledge of a
    /// port, so it may be forged like the request. `seed` is a random number.
    #[must_use]
    pub fn on_known_port(self, seed: u64) -> Self {
        Self { proof: 1, challenge: Some(Challenge::new(seed)), ..self }
    }

    /// Returns whether the client has acknowledged a packet, so that its address is not forged.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.base > self.proof
    }

    /// Returns the outcome, once the transfer is over. An ERROR may still have to be sent.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.termination.outcome()
    }

    /// Returns how many bytes of the file the client has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        let before = self.blocks.offset(self.base);
        self.blocks.size.map_or(before, |size| before.min(size))
    }

    /// Returns how many packets were sent a second time.
    #[must_use]
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// Returns whether nothing is in flight. No datagram that has already arrived can then change anything, except an ERROR: a
    /// driver may leave the rest in its socket and save the call that finds it empty.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.termination.is_terminated() || self.base >= self.frontier
    }

    /// Returns the size of a buffer that takes all packets of a window, in bytes. A smaller one works too; it must take one packet.
    #[must_use]
    pub fn window_len(&self) -> usize {
        self.blocks.packet_len().saturating_mul(self.windowsize.into()).max(MIN_BUFFER)
    }

    /// Returns whether the blocks are possibly larger than the path carries: the first window is repeated without an answer, although
    /// the smaller OACK was acknowledged. A driver that has told routers not to fragment should then allow it, since some firewalls
    /// drop the ICMP messages with which routers report their MTU.
    #[must_use]
    pub fn may_exceed_mtu(&self, now: Instant) -> bool {
        let is_repeated = self.base == 1 && self.rto.expiries() > 0;
        is_repeated && self.blocks.blksize > DEFAULT_BLKSIZE && now.since(self.waiting_since) >= MTU_DOUBT
    }

    /// Processes a datagram from the client's address and port. Invalid and unexpected datagrams change nothing.
    pub fn handle(&mut self, now: Instant, datagram: &[u8]) {
        if self.termination.is_terminated() {
            return;
        }
        match Packet::parse(datagram) {
            Ok(Packet::Ack { block }) => self.acknowledge(now, self.blocks.rollover.block_of(self.base, block)),
            Ok(Packet::Error { code, .. }) => self.termination.finish(self.peer_error(code)),
            _ => {}
        }
    }

    /// Returns the next action. `buf` takes the datagrams to send: the larger it is, the more of a window leaves at once.
    ///
    /// A `buf` too small for one packet (the block size and 4 bytes, at least 516) ends the transfer.
    pub fn poll(&mut self, now: Instant, file: &mut impl BlockReader, buf: &mut [u8]) -> Output {
        loop {
            if let Some(output) = self.termination.poll(buf) {
                return output;
            }
            let output = match self.state() {
                State::Offering => self.send_oack(now, file, buf),
                State::Sending => self.send_blocks(now, file, buf),
                State::Waiting => self.wait(now),
            };
            if let Some(output) = output {
                return output;
            }
        }
    }

    /// Ends the transfer from this side: the next poll sends an ERROR with `reason`, the one after that returns `Finished`.
    pub fn abort(&mut self, reason: &'static str) {
        if !self.termination.is_terminated() {
            self.fail(Outcome::Aborted, reason);
        }
    }

    /// Ends the transfer without an ERROR: the network has reported that nobody receives at the client's port (ICMP "port
    /// unreachable").
    pub fn port_closed(&mut self) {
        if !self.termination.is_terminated() {
            self.termination.finish(Outcome::PortClosed);
        }
    }

    fn state(&self) -> State {
        match self.next {
            next if next >= self.window_end() => State::Waiting,
            0 => State::Offering,
            _ => State::Sending,
        }
    }

    /// Sends the OACK. It is a promise to the client, so it leaves only when the first block can be read.
    fn send_oack(&mut self, now: Instant, file: &mut impl BlockReader, buf: &mut [u8]) -> Option<Output> {
        if buf.len() < self.blocks.min_buffer() {
            return self.read_failed(BUFFER_TOO_SMALL);
        }
        match self.blocks.read(file, 1, 1, buf) {
            Ok(Some(_)) => {}
            Ok(None) => return Some(Output::NeedData),
            Err(failed) => return self.read_failed(failed),
        }
        match Packet::OptionAck(self.granted.options()).write(buf) {
            Some(len) => self.transmit(now, Flight { start: now, first: 0 }, 1, Transmit { len, segment: len }),
            None => self.read_failed(BUFFER_TOO_SMALL),
        }
    }

    /// Sends the next blocks of the window, as many as the pacer allows, are loaded and fit into the buffer.
    fn send_blocks(&mut self, now: Instant, file: &mut impl BlockReader, buf: &mut [u8]) -> Option<Output> {
        if let Some(challenge) =
            self.challenge.as_ref().filter(|challenge| self.flight.is_none() && now < challenge.release())
        {
            return Some(Output::Wait(challenge.release()));
        }
        let flight = self.flight.unwrap_or(Flight { start: now, first: self.next });
        let end = self.window_end().min(flight.first.saturating_add(self.pacer.allowed(now, flight.start)));
        if self.next >= end {
            let sent = self.next.saturating_sub(flight.first);
            return Some(Output::Wait(self.pacer.release_time(flight.start, sent)));
        }
        match self.blocks.write_packets(file, self.next..end, buf) {
            Ok(Some((count, transmit))) => self.transmit(now, flight, count, transmit),
            Ok(None) => {
                // Blocks that are loaded late start a flight of their own.
                self.flight = None;
                Some(Output::NeedData)
            }
            Err(failed) => self.read_failed(failed),
        }
    }

    /// Records that `count` packets from `next` on leave now.
    fn transmit(&mut self, now: Instant, flight: Flight, count: usize, transmit: Transmit) -> Option<Output> {
        let count = u64::try_from(count).unwrap_or(0);
        let again = self.frontier.saturating_sub(self.next).min(count);
        self.retransmitted = self.retransmitted.saturating_add(again);
        self.next = self.next.saturating_add(count);
        if self.next > self.frontier {
            self.frontier = self.next;
            self.waiting_since = now;
        }
        self.flight = Some(flight);
        self.deadline = now.after(self.timeout());
        Some(Output::Transmit(transmit))
    }

    /// Waits for an ACK until the deadline, then goes back to the first block that is not acknowledged, or gives up.
    fn wait(&mut self, now: Instant) -> Option<Output> {
        if now < self.deadline {
            return Some(Output::Wait(self.deadline));
        }
        if !self.is_verified() || self.challenge.is_some() {
            if self.unverified_sendings >= MAX_UNVERIFIED {
                self.fail(Outcome::TimedOut, "timed out");
                return None;
            }
            self.unverified_sendings = self.unverified_sendings.saturating_add(1);
        } else if now.since(self.waiting_since) >= self.patience {
            self.fail(Outcome::TimedOut, "timed out");
            return None;
        }
        if self.base > 0 {
            self.pacer.on_timeout(self.windowsize, self.rto.round_trip());
        }
        self.rto.back_off();
        self.next = self.base;
        self.flight = None;
        self.is_retransmission = true;
        None
    }

    /// Returns how long to wait for an answer to the packets that leave now.
    fn timeout(&self) -> Duration {
        let expiries = self.rto.expiries().min(MAX_UNVERIFIED);
        match (self.is_verified(), &self.challenge) {
            (false, _) => UNVERIFIED_INTERVAL.saturating_mul(1 << expiries),
            (true, Some(_)) if expiries > 0 => UNVERIFIED_INTERVAL.saturating_mul(1 << expiries.saturating_sub(1)),
            (true, _) => self.rto.timeout(),
        }
    }

    /// Returns the outcome of an ERROR of the client, which ends the transfer at once (RFC 1350 section 7). Before a block is
    /// acknowledged, firmware sends codes 0 and 8 when it has learnt the size.
    fn peer_error(&self, code: ErrorCode) -> Outcome {
        let repetitions = self.rto.expiries();
        if self.base == 1 && repetitions > MAX_PROBE_REPETITIONS {
            Outcome::FirstBlockLost { repetitions }
        } else if self.base <= 1 && matches!(code, ErrorCode::NOT_DEFINED | ErrorCode::OPTIONS_REFUSED) {
            Outcome::Probed
        } else {
            Outcome::PeerError(code)
        }
    }

    fn read_failed(&mut self, failed: ReadFailed) -> Option<Output> {
        self.fail(Outcome::ReadFailed(failed), failed.0);
        None
    }

    /// Terminates the transfer with an ERROR, unless the client has had all packets that an unverified one gets.
    fn fail(&mut self, outcome: Outcome, message: &'static str) {
        if self.is_verified() || self.unverified_sendings < MAX_UNVERIFIED {
            self.termination.fail(outcome, ErrorCode::NOT_DEFINED, message);
        } else {
            self.termination.finish(outcome);
        }
    }

    /// Returns one past the last block of the window.
    fn window_end(&self) -> u64 {
        if self.base == 0 {
            return 1;
        }
        let end = self.base.saturating_add(self.windowsize.into());
        self.blocks.last().map_or(end, |last| end.min(last.saturating_add(1)))
    }
}
