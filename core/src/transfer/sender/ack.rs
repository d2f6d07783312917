//! Acknowledgements: how they move the window, and what they measure.

use super::{Flight, Sender};
use crate::{time::Instant, transfer::output::Outcome};

impl Sender {
    /// Processes an acknowledgement of all blocks up to `block`, which is `base` or later.
    ///
    /// It moves the window behind `block`, and the next block too, even back from blocks sent beyond it (RFC 7440 section 4).
    /// From then on a second copy of the same ACK names a block that was not sent, and like every such number changes nothing:
    /// a duplicate ACK never causes DATA to be sent again (RFC 1123 section 4.2.3.1).
    pub(super) fn acknowledge(&mut self, now: Instant, block: u64) {
        if block >= self.frontier {
            let is_next = block < self.frontier.saturating_add(self.windowsize.into());
            if let Some(challenge) = self.challenge.as_mut().filter(|challenge| is_next && now < challenge.release()) {
                challenge.record_forged();
            }
            return;
        }
        let base = block.saturating_add(1);
        let flight = self.flight.take();
        if let Some(flight) = flight {
            self.measure(now, flight, base);
        }
        if base <= self.proof {
            self.unverified_sendings = self.unverified_sendings.saturating_add(1);
        } else if let Some(challenge) = &mut self.challenge {
            self.unverified_sendings = 1;
            let round_trip = flight.filter(|_| !self.is_retransmission && base >= self.next);
            let window = u64::from(self.windowsize).saturating_mul(self.blocks.blksize.into());
            let round_trip = round_trip.map(|flight| now.since(flight.start));
            if challenge.record(now, round_trip, self.blocks.offset(base), window) {
                self.challenge = None;
            }
        }
        let retransmission_end = if self.is_retransmission { self.next } else { 0 };
        self.is_retransmission = false;
        self.waiting_since = now;
        self.base = base;
        // EDK2 also acknowledges blocks it already has: its second ACK of a retransmission names the end of that, and is no loss.
        self.next = if base == self.retransmission_end { self.next.max(base) } else { base };
        self.retransmission_end = retransmission_end;
        if self.blocks.last().is_some_and(|last| block >= last) {
            self.termination.finish(Outcome::Complete);
        }
    }

    /// Updates the round trip and the pacing from an ACK of all blocks of a flight before `base`.
    fn measure(&mut self, now: Instant, flight: Flight, base: u64) {
        if self.is_retransmission {
            self.rto.record_ambiguous(now.since(self.waiting_since));
        } else {
            self.rto.record(now.since(flight.start));
        }
        if base >= self.next {
            self.pacer.on_success();
        } else {
            let arrived = base.saturating_sub(self.base);
            // Without the time over which the blocks were spread, which would grow with every loss.
            let sent = self.next.saturating_sub(flight.first).saturating_sub(1);
            let last_left = self.pacer.release_time(flight.start, sent);
            self.pacer.on_loss(arrived, self.windowsize, now.since(last_left), self.rto.round_trip());
        }
    }
}
