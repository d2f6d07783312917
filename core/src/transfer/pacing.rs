//! Pacing: how fast the blocks of a window leave (RFC 7440 section 6).
//!
//! A window is sent at once as long as that works. A network card or a switch with a short queue loses the same end of every
//! such burst, again and again. So when windows keep losing blocks, the next ones are spread over one round trip, which gives
//! the queue time to drain. Every window without a loss shortens the interval between blocks again.
//!
//! Losses that do not come from speed must stay cheap. A window spread over a round trip takes about twice as long at most, and
//! no interval is longer than the slowest link needs for a block.

use core::{mem, time::Duration};

use crate::time::{Instant, micros};

/// The loss score from which windows are paced: two windows with a loss.
const PACING_SCORE: u8 = 4;
/// The highest loss score: this many windows without a loss clear it.
const MAX_SCORE: u8 = 8;
/// A window has stalled if at most one block in this many arrived.
const STALL_FRACTION: u64 = 8;
/// The longest interval, in microseconds: a full Ethernet frame takes 1.23 ms at 10 Mbit/s, and boards boot over nothing slower.
/// A longer one would only make losses with other causes more expensive.
const MAX_INTERVAL: u64 = 1_250;
/// Intervals shorter than this count as none, in microseconds.
const MIN_INTERVAL: u64 = 5;

/// Paces the blocks of windows.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Pacer {
    /// The time between two blocks, in microseconds; 0 sends a window at once.
    interval: u64,
    /// Plus 2 for every window with a loss, minus 1 for every window without one.
    loss_score: u8,
    /// Whether the last window stalled.
    stalled: bool,
}

impl Pacer {
    /// Returns how many blocks of a flight that started at `start` may have left by `now`.
    pub(crate) fn allowed(&self, now: Instant, start: Instant) -> u64 {
        let elapsed = now.as_micros().saturating_sub(start.as_micros());
        elapsed.checked_div(self.interval).map_or(u64::MAX, |intervals| intervals.saturating_add(1))
    }

    /// Returns when the block after the first `sent` blocks of a flight may leave.
    pub(crate) fn release_time(&self, start: Instant, sent: u64) -> Instant {
        Instant::from_micros(start.as_micros().saturating_add(self.interval.saturating_mul(sent)))
    }

    /// Records the loss of blocks: of a window of `blocks`, only the first `arrived` arrived in order. The answer came `elapsed`
    /// after the last block; a usual answer takes `round_trip`.
    pub(crate) fn on_loss(&mut self, arrived: u64, blocks: u16, elapsed: Duration, round_trip: Duration) {
        if arrived.saturating_mul(STALL_FRACTION) > u64::from(blocks) {
            self.stalled = false;
        } else if mem::replace(&mut self.stalled, true) {
            return self.halve_rate(arrived, round_trip);
        }
        self.loss_score = self.loss_score.saturating_add(2).min(MAX_SCORE);
        if self.loss_score >= PACING_SCORE {
            let interval = micros(elapsed).checked_div(u64::from(blocks)).unwrap_or(0);
            self.interval = self.interval.max(interval.min(MAX_INTERVAL));
        }
    }

    /// Records a window of `blocks` blocks without any answer. A usual answer takes `round_trip`.
    pub(crate) fn on_timeout(&mut self, blocks: u16, round_trip: Duration) {
        if mem::replace(&mut self.stalled, true) {
            self.halve_rate(blocks.into(), round_trip);
        }
    }

    /// Records a window that arrived whole.
    pub(crate) fn on_success(&mut self) {
        self.stalled = false;
        self.loss_score = self.loss_score.saturating_sub(1);
        self.interval = self.interval.saturating_sub(self.interval.div_ceil(16));
        if self.interval < MIN_INTERVAL {
            self.interval = 0;
        }
    }

    /// Halves the rate, at least to `blocks` blocks a round trip.
    ///
    /// Two stalled windows in a row are more than bad luck: a queue is full after the first few blocks. That leaves little to
    /// measure.
    fn halve_rate(&mut self, blocks: u64, round_trip: Duration) {
        let interval = micros(round_trip).checked_div(blocks).unwrap_or(0);
        let doubled = self.interval.saturating_mul(2).max(MIN_INTERVAL);
        self.interval = doubled.max(interval).min(MAX_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(1000);

    fn after(micros: u64) -> Instant {
        START.after(Duration::from_micros(micros))
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn paces_after_two_windows_with_losses() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.allowed(START, START), u64::MAX);
        pacer.on_loss(5, 8, ms(8), ms(8));
        assert_eq!(pacer.allowed(START, START), u64::MAX, "one loss is no pattern");
        pacer.on_loss(5, 8, ms(8), ms(8));
        assert_eq!(pacer.allowed(START, START), 1);
        assert_eq!(pacer.allowed(after(999), START), 1);
        assert_eq!(pacer.allowed(after(1000), START), 2);
        assert_eq!(pacer.allowed(after(7500), START), 8);
        assert_eq!(pacer.release_time(START, 3), after(3000));
    }

    #[test]
    fn block_is_allowed_at_its_release_time() {
        let mut pacer = Pacer::default();
        (0..2).for_each(|_| pacer.on_loss(40, 64, Duration::from_micros(12_347), ms(12)));
        for sent in 1..200 {
            let next = pacer.release_time(START, sent);
            assert_eq!(pacer.allowed(next, START), sent + 1);
        }
    }

    #[test]
    fn repeated_timeouts_halve_the_rate() {
        let mut pacer = Pacer::default();
        pacer.on_timeout(64, Duration::from_micros(640));
        assert_eq!(pacer.allowed(START, START), u64::MAX);
        for interval in [10, 20, 40, 80] {
            pacer.on_timeout(64, Duration::from_micros(640));
            assert_eq!(pacer.release_time(START, 1), after(interval));
        }
    }

    #[test]
    fn two_stalled_windows_in_a_row_halve_the_rate() {
        let mut pacer = Pacer::default();
        for arrived in [2, 3, 2, 3] {
            pacer.on_loss(arrived, 16, ms(0), ms(1));
            assert_eq!(pacer.allowed(START, START), u64::MAX, "not in a row");
        }
        pacer.on_loss(2, 16, ms(0), ms(1));
        pacer.on_loss(2, 16, ms(0), ms(1));
        assert_eq!(pacer.release_time(START, 1), after(500), "two blocks a round trip");
        pacer.on_timeout(16, ms(1));
        assert_eq!(pacer.release_time(START, 1), after(1000), "a timeout halves it once more");
        pacer.on_success();
        let faster = pacer.release_time(START, 1);
        pacer.on_timeout(16, ms(1));
        assert_eq!(pacer.release_time(START, 1), faster, "the first timeout after a whole window changes nothing");
    }

    /// While a window could be spread over 0.2 s, losses with other causes made fetches take ten times as long.
    #[test]
    fn interval_is_at_most_that_of_10_mbit_a_second() {
        let mut pacer = Pacer::default();
        (0..99).for_each(|_| pacer.on_loss(8, 16, ms(500), ms(500)));
        assert_eq!(pacer.release_time(START, 1), after(MAX_INTERVAL));
        (0..99).for_each(|_| pacer.on_timeout(16, ms(500)));
        assert_eq!(pacer.release_time(START, 1), after(MAX_INTERVAL));
    }

    #[test]
    fn windows_without_losses_end_the_pacing() {
        let mut pacer = Pacer::default();
        (0..9).for_each(|_| pacer.on_loss(40, 64, ms(64), ms(64)));
        let mut windows = 0;
        while pacer.allowed(START, START) != u64::MAX {
            pacer.on_success();
            windows += 1;
        }
        assert!((60..120).contains(&windows), "{windows}");
        pacer.on_loss(40, 64, ms(64), ms(64));
        assert_eq!(pacer.allowed(START, START), u64::MAX, "the score is 0 again");
    }
}
