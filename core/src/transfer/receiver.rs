//! The receiving end of a read request: the client's.
//!
//! A transfer goes through these states:
//!
//! 1. `Requesting`: sends the read request, again and again, until the server answers.
//!    - An OACK that accepts the request leads to `Receiving`, with ACK 0; any other OACK is refused with ERROR 8.
//!    - Block 1 leads there as well: the server knows no options (RFC 2347).
//! 2. `Receiving`: passes the blocks to the sink, in order.
//!    - The last block of a window is acknowledged (RFC 7440 section 4).
//!    - The first block behind a gap causes one ACK of what came before the gap; the server then sends from there.
//!    - The retransmission timeout repeats the last ACK.
//!    - A block shorter than the others ends the file: it is acknowledged and leads to `Dallying`.
//! 3. `Dallying`: repeats the last ACK for a server that missed it, for a few timeouts (RFC 1350 section 6).
//! 4. Terminated: the file is complete, the server sent an ERROR or no new block for `patience`, the sink failed, or the driver
//!    aborted the transfer. If the server must know, one ERROR leaves.

mod config;
mod incoming;
#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

pub use self::config::ReceiverConfig;
use crate::{
    time::{Instant, micros},
    transfer::{
        io::BlockSink,
        output::{Outcome, Output, Transmit},
        rto::Rto,
        termination::Termination,
    },
    wire::{
        block::Rollover,
        options::{RequestedOptions, Settings},
        packet::{ErrorCode, Mode, Options, Packet, Request},
        path::InvalidPath,
    },
};

/// The longest request, in bytes (RFC 2347). A send buffer of this size suffices.
pub const MAX_REQUEST: usize = 512;

/// Receives one file from one server.
///
/// A `Receiver` is plain data: it has no socket, no clock and no buffer. Pass every datagram of the server to
/// [`handle`](Self::handle). After that, and when the instant of an [`Output::Wait`] has come, call [`poll`](Self::poll) and do
/// what it returns, until it returns `Wait` or `Finished`.
///
/// The server answers from a port of its own choice, its transfer ID (RFC 1350 section 4). [`Peer`](crate::Peer) keeps track of it.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Receiver {
    /// The read request as it is sent.
    request: Vec<u8, MAX_REQUEST>,
    options: RequestedOptions,
    /// In microseconds.
    patience: u64,
    dally: u32,
    settings: Settings,
    /// The size of the file by the server's OACK, in bytes.
    size: Option<u64>,
    state: State,
    /// The first block that has not arrived.
    next: u64,
    /// The last block that was acknowledged: the window begins after it.
    acknowledged: u64,
    /// The number of bytes that the sink has stored.
    delivered: u64,
    /// Whether an ACK reported a missing block: the blocks in flight behind it are useless.
    gap_reported: bool,
    /// Whether the request, or the ACK of the last block that arrived in order, is to be sent.
    is_due: bool,
    /// When it was last sent.
    sent_at: Instant,
    /// Whether the block that answers it measures the round trip.
    measures: bool,
    rto: Rto,
    /// When the awaited packet counts as lost.
    deadline: Instant,
    /// Since when the server owes an answer: its last new block, or the start.
    waiting_since: Instant,
    retransmitted: u64,
    termination: Termination,
}

/// The state of a transfer that is not terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum State {
    /// The server has not answered.
    Requesting,
    /// The server has answered.
    Receiving,
    /// The sink has the whole file, but the last ACK may get lost.
    Dallying,
}

impl Receiver {
    /// Starts to request `file` in octet mode.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] if the name is empty, contains a NUL, or is too long for a request with these options.
    pub fn new(now: Instant, file: &[u8], config: ReceiverConfig) -> Result<Self, InvalidPath> {
        if file.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if file.contains(&0) {
            return Err(InvalidPath::Nul);
        }
        let options = config.options.to_wire();
        let packet = Packet::ReadRequest(Request { file, mode: Mode::Octet, options: Options::new(&options) });
        let mut request = Vec::from_array([0; MAX_REQUEST]);
        let len = packet.write(&mut request).ok_or(InvalidPath::TooLong)?;
        request.truncate(len);
        Ok(Self {
            request,
            options: config.options,
            patience: micros(config.patience),
            dally: config.dally,
            settings: Settings::default(),
            size: None,
            state: State::Requesting,
            next: 1,
            acknowledged: 0,
            delivered: 0,
            gap_reported: false,
            is_due: true,
            sent_at: now,
            measures: false,
            rto: Rto::new(config.bounds()),
            deadline: now,
            waiting_since: now,
            retransmitted: 0,
            termination: Termination::default(),
        })
    }

    /// Returns whether the server has accepted the request: its transfer ID is known.
    #[must_use]
    pub fn has_peer(&self) -> bool {
        self.state != State::Requesting
    }

    /// Returns whether the sink has the whole file.
    ///
    /// This happens before [`Output::Finished`], which waits for a server that may have missed the last ACK. A driver may leave
    /// at once; the server then repeats the last block in vain.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.state == State::Dallying
    }

    /// Returns the settings of the transfer: those of RFC 1350, until the server grants others.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Returns the size of the file in bytes, if it was requested and the server sent it. The transfer is not checked against it.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Returns how many bytes of the file the sink has stored.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns how many packets were sent a second time.
    #[must_use]
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// Processes a datagram of the server and writes the bytes of the file to `sink`. Invalid and unexpected datagrams change
    /// nothing.
    pub fn handle(&mut self, now: Instant, datagram: &[u8], sink: &mut impl BlockSink) {
        if let Ok(packet) = Packet::parse(datagram) {
            self.handle_packet(now, packet, sink);
        }
    }

    /// Processes a packet like [`handle`](Self::handle), for a driver that needs the packet too: to log it, or for the text of
    /// an ERROR.
    pub fn handle_packet(&mut self, now: Instant, packet: Packet<'_>, sink: &mut impl BlockSink) {
        if self.termination.is_terminated() {
            return;
        }
        match packet {
            Packet::OptionAck(granted) => self.handle_oack(now, granted),
            Packet::Data { block, payload } => {
                self.handle_data(now, Rollover::ToZero.block_of(self.next, block), payload, sink);
            }
            Packet::Error { .. } if self.is_delivered() => self.termination.finish(Outcome::Complete),
            Packet::Error { code, .. } => self.termination.finish(Outcome::PeerError(code)),
            _ => {}
        }
    }

    /// Returns the next action. `buf` takes the datagram to send; with less than [`MAX_REQUEST`] bytes the transfer may end.
    pub fn poll(&mut self, now: Instant, buf: &mut [u8]) -> Output {
        loop {
            if let Some(output) = self.termination.poll(buf) {
                return output;
            }
            let output = if self.is_due { self.transmit(now, buf) } else { self.wait(now) };
            if let Some(output) = output {
                return output;
            }
        }
    }

    /// Ends the transfer from this side: the next poll sends an ERROR with `reason`, the one after that returns `Finished`.
    pub fn abort(&mut self, reason: &'static str) {
        if !self.termination.is_terminated() {
            self.fail(Outcome::Aborted, ErrorCode::NOT_DEFINED, reason);
        }
    }

    /// Sends the request or the ACK.
    fn transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<Output> {
        let Some(len) = self.write(buf) else {
            self.fail(Outcome::Aborted, ErrorCode::NOT_DEFINED, "the send buffer is too small");
            return None;
        };
        self.is_due = false;
        self.sent_at = now;
        self.deadline = now.after(self.answer_timeout());
        Some(Output::Transmit(Transmit { len, segment: len }))
    }

    fn write(&self, buf: &mut [u8]) -> Option<usize> {
        if self.has_peer() {
            return Packet::Ack { block: Rollover::ToZero.number_of(self.acknowledged) }.write(buf);
        }
        buf.get_mut(..self.request.len())?.copy_from_slice(&self.request);
        Some(self.request.len())
    }

    /// Waits for a packet until the deadline, then repeats the request or the ACK, or gives up.
    fn wait(&mut self, now: Instant) -> Option<Output> {
        let give_up = Instant::from_micros(self.waiting_since.as_micros().saturating_add(self.patience));
        let until = self.deadline.min(give_up);
        if now < until {
            return Some(Output::Wait(until));
        }
        if self.is_delivered() {
            self.termination.finish(Outcome::Complete);
        } else if now >= give_up {
            self.fail(Outcome::TimedOut, ErrorCode::NOT_DEFINED, "timed out");
        } else {
            self.rto.back_off();
            self.repeat();
        }
        None
    }

    /// Returns how long to wait for an answer to a packet that is sent now.
    fn answer_timeout(&self) -> Duration {
        let timeout = self.rto.timeout();
        if self.is_delivered() { timeout.saturating_mul(self.dally) } else { timeout }
    }

    fn refuse(&mut self, code: ErrorCode, message: &'static str) {
        self.fail(Outcome::Refused(code), code, message);
    }

    /// Ends the transfer, with an ERROR if the server's transfer ID is known.
    fn fail(&mut self, outcome: Outcome, code: ErrorCode, message: &'static str) {
        if self.has_peer() {
            self.termination.fail(outcome, code, message);
        } else {
            self.termination.finish(outcome);
        }
    }
}
