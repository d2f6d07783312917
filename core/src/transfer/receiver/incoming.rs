//! Incoming packets: the OACK, and the blocks and their acknowledgement.

use super::{Receiver, State};
use crate::{
    time::Instant,
    transfer::{io::BlockSink, output::Outcome},
    wire::packet::{ErrorCode, Options},
};

/// The distance of the block before the awaited one, since block numbers on the wire only go up.
const PREVIOUS: u64 = 0xffff;

impl Receiver {
    /// Processes an OACK. The first one counts; a copy before block 1 means that ACK 0 was lost.
    pub(super) fn handle_oack(&mut self, now: Instant, granted: Options<'_>) {
        if self.has_peer() {
            if self.next == 1 && !self.gap_reported {
                self.handle_copy(now);
            }
            return;
        }
        self.start_receiving(now);
        match self.options.accept_oack(granted) {
            Some((settings, size)) => {
                (self.settings, self.size) = (settings, size);
                self.rto.restart(settings.timeout);
                self.acknowledge(true);
            }
            None => self.refuse(ErrorCode::OPTIONS_REFUSED, "these options were not requested"),
        }
    }

    /// Processes the first answer. It does not measure the round trip: the server may have had to connect to a disk first.
    fn start_receiving(&mut self, now: Instant) {
        self.state = State::Receiving;
        self.waiting_since = now;
        self.rto.restart(None);
    }

    /// Processes a block, whose number is `next` or later.
    pub(super) fn handle_data(&mut self, now: Instant, block: u64, payload: &[u8], sink: &mut impl BlockSink) {
        let distance = block.saturating_sub(self.next);
        match self.state {
            // The server knows no options (RFC 2347).
            State::Requesting if distance == 0 => self.start_receiving(now),
            State::Requesting => return,
            State::Receiving => {}
            State::Dallying if distance == PREVIOUS => return self.handle_copy(now),
            State::Dallying => return,
        }
        let window_end = self.acknowledged.saturating_add(self.settings.windowsize.into());
        if payload.len() > usize::from(self.settings.blksize) {
            self.refuse(ErrorCode::ILLEGAL_OPERATION, "Illegal TFTP operation: the block is longer than negotiated");
        } else if distance == 0 {
            self.deliver(now, payload, window_end, sink);
        } else if block <= window_end {
            self.report_gap(now);
        } else if distance == PREVIOUS {
            self.handle_copy(now);
        }
    }

    /// Passes the awaited block to the sink. Acknowledges the last block of a window (RFC 7440 section 4) and of the file.
    fn deliver(&mut self, now: Instant, payload: &[u8], window_end: u64, sink: &mut impl BlockSink) {
        if let Err(failed) = sink.write(self.delivered, payload) {
            return self.fail(Outcome::WriteFailed(failed), ErrorCode::DISK_FULL, failed.0);
        }
        self.delivered = self.delivered.saturating_add(u64::try_from(payload.len()).unwrap_or(u64::MAX));
        if self.measures {
            self.rto.record(now.since(self.sent_at));
        }
        self.rto.reset_backoff();
        self.measures = false;
        self.gap_reported = false;
        self.waiting_since = now;
        self.deadline = now.after(self.answer_timeout());
        let block = self.next;
        self.next = block.saturating_add(1);
        if payload.len() < usize::from(self.settings.blksize) {
            self.state = State::Dallying;
            self.acknowledge(false);
        } else if block >= window_end {
            self.acknowledge(true);
        }
    }

    /// Processes a block behind the awaited one. One ACK reports the gap to the server, which starts a window there (RFC 7440
    /// section 4); an ACK for each block behind the gap would be a storm.
    fn report_gap(&mut self, now: Instant) {
        self.deadline = now.after(self.answer_timeout());
        if !self.gap_reported {
            // Without a new block since, it is a copy of the last ACK and measures nothing.
            self.acknowledge(self.acknowledged.saturating_add(1) < self.next);
            self.gap_reported = true;
        }
    }

    /// Processes a copy of the last block that arrived in order, or of the OACK.
    ///
    /// A copy means that the ACK was lost, but only if the answer to that ACK could have arrived by now. Before that the copy comes
    /// from the network or from a hasty server. A client that answers each of those doubles everything for the rest of the
    /// transfer with a server that answers each ACK (RFC 1123 section 4.2.3.1).
    fn handle_copy(&mut self, now: Instant) {
        self.measures = false;
        let quiet = now.since(self.sent_at.max(self.waiting_since));
        if quiet.saturating_mul(2) >= self.rto.without_backoff() {
            if self.is_delivered() {
                // The server's next retransmission takes twice as long.
                self.rto.back_off();
            }
            self.repeat();
        }
    }

    /// Sends the request or the last ACK again. The answer to it does not measure the round trip (Karn's rule).
    pub(super) fn repeat(&mut self) {
        if self.acknowledged.saturating_add(1) == self.next {
            self.retransmitted = self.retransmitted.saturating_add(1);
        }
        self.acknowledge(false);
    }

    /// Acknowledges everything that arrived in order. The window starts behind it.
    fn acknowledge(&mut self, measures: bool) {
        self.acknowledged = self.next.saturating_sub(1);
        self.gap_reported = false;
        self.measures = measures;
        self.is_due = true;
    }
}
