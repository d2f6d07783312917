//! How fast the blocks of a window leave (RFC 7440 section 6).
//!
//! A window is sent at once, as long as that goes well. A network card or a switch with a short queue loses the same end of every
//! such burst, for ever. So when windows keep losing, the next ones are spread over the time that an answer takes, which leaves
//! the queue time to drain; when they are clean again they leave faster and faster.
//!
//! Losses that have nothing to do with speed must not cost much: spread over the time of an answer, a window takes no more than
//! about twice as long, and no pause is longer than the slowest link needs for a block.

use core::{mem, time::Duration};

use crate::time::{Instant, micros};

/// So much trouble is enough to slow down: two windows with a loss.
const ENOUGH: u8 = 4;
/// More trouble is not remembered: so many clean windows end it.
const MOST: u8 = 8;
/// One block in so many of a window, or less, is few.
const FEW: u64 = 8;
/// No pause between two blocks is longer, in microseconds: a full Ethernet frame takes 1.23 ms at 10 Mbit/s, and boards boot over
/// nothing slower. A longer one would only make losses dearer that have other reasons.
const LONGEST: u64 = 1_250;
/// A shorter pause between two blocks is none, in microseconds.
const NO_PAUSE: u64 = 5;

/// The speed of a window's blocks.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Pace {
    /// The time from one block to the next, in microseconds.
    pause: u64,
    /// Two for every window that lost something, less one for every clean one.
    trouble: u8,
    /// Whether the last window brought no more than a few blocks.
    stalled: bool,
}

impl Pace {
    /// How many blocks of a flight that began at `began` may have left by now.
    pub(crate) fn allowed(&self, now: Instant, began: Instant) -> u64 {
        let since = now.as_micros().saturating_sub(began.as_micros());
        since.checked_div(self.pause).map_or(u64::MAX, |pauses| pauses.saturating_add(1))
    }

    /// When the next block may leave after `sent` blocks of a flight.
    pub(crate) fn next(&self, began: Instant, sent: u64) -> Instant {
        Instant::from_micros(began.as_micros().saturating_add(self.pause.saturating_mul(sent)))
    }

    /// Notes that of a window of so many blocks only the first `arrived` came in order, as was known `time` after the last one
    /// had left, where an answer usually takes `round_trip`.
    pub(crate) fn lost(&mut self, arrived: u64, blocks: u16, time: Duration, round_trip: Duration) {
        if arrived.saturating_mul(FEW) > u64::from(blocks) {
            self.stalled = false;
        } else if mem::replace(&mut self.stalled, true) {
            return self.halve(arrived, round_trip);
        }
        self.trouble = self.trouble.saturating_add(2).min(MOST);
        if self.trouble >= ENOUGH {
            let spread = micros(time).checked_div(u64::from(blocks)).unwrap_or(0);
            self.pause = self.pause.max(spread.min(LONGEST));
        }
    }

    /// Notes that nothing was heard of a window of so many blocks, where an answer usually takes `round_trip`.
    pub(crate) fn silent(&mut self, blocks: u16, round_trip: Duration) {
        if mem::replace(&mut self.stalled, true) {
            self.halve(blocks.into(), round_trip);
        }
    }

    /// Notes that a whole window arrived.
    pub(crate) fn clean(&mut self) {
        self.stalled = false;
        self.trouble = self.trouble.saturating_sub(1);
        self.pause = self.pause.saturating_sub(self.pause.div_ceil(16));
        if self.pause < NO_PAUSE {
            self.pause = 0;
        }
    }

    /// Halves the speed, at least to so many blocks in the time of an answer.
    ///
    /// Next to nothing of two windows in a row is more than bad luck: whatever loses them is full after the first few blocks.
    /// That leaves little to measure.
    fn halve(&mut self, blocks: u64, round_trip: Duration) {
        let spread = micros(round_trip).checked_div(blocks).unwrap_or(0);
        let doubled = self.pause.saturating_mul(2).max(NO_PAUSE);
        self.pause = doubled.max(spread).min(LONGEST);
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
    fn a_window_leaves_at_once_until_windows_keep_losing() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowed(START, START), u64::MAX);
        pace.lost(5, 8, ms(8), ms(8));
        assert_eq!(pace.allowed(START, START), u64::MAX, "one loss is no pattern");
        pace.lost(5, 8, ms(8), ms(8));
        assert_eq!(pace.allowed(START, START), 1);
        assert_eq!(pace.allowed(after(999), START), 1);
        assert_eq!(pace.allowed(after(1000), START), 2);
        assert_eq!(pace.allowed(after(7500), START), 8);
        assert_eq!(pace.next(START, 3), after(3000));
    }

    #[test]
    fn the_next_block_leaves_when_it_is_allowed() {
        let mut pace = Pace::default();
        (0..2).for_each(|_| pace.lost(40, 64, Duration::from_micros(12_347), ms(12)));
        for sent in 1..200 {
            let next = pace.next(START, sent);
            assert_eq!(pace.allowed(next, START), sent + 1);
        }
    }

    #[test]
    fn silence_halves_the_speed_when_it_repeats() {
        let mut pace = Pace::default();
        pace.silent(64, Duration::from_micros(640));
        assert_eq!(pace.allowed(START, START), u64::MAX);
        for pause in [10, 20, 40, 80] {
            pace.silent(64, Duration::from_micros(640));
            assert_eq!(pace.next(START, 1), after(pause));
        }
    }

    #[test]
    fn next_to_nothing_twice_in_a_row_halves_the_speed() {
        let mut pace = Pace::default();
        for arrived in [2, 3, 2, 3] {
            pace.lost(arrived, 16, ms(0), ms(1));
            assert_eq!(pace.allowed(START, START), u64::MAX, "not in a row");
        }
        pace.lost(2, 16, ms(0), ms(1));
        pace.lost(2, 16, ms(0), ms(1));
        assert_eq!(pace.next(START, 1), after(500), "two blocks in the time of an answer");
        pace.silent(16, ms(1));
        assert_eq!(pace.next(START, 1), after(1000), "nothing is even less");
        pace.clean();
        let faster = pace.next(START, 1);
        pace.silent(16, ms(1));
        assert_eq!(pace.next(START, 1), faster, "after a clean window it may be bad luck again");
    }

    /// While a window could be spread over 0.2 s, losses that had nothing to do with speed made fetches take ten times as long.
    #[test]
    fn no_link_is_slower_than_10_mbit_a_second() {
        let mut pace = Pace::default();
        (0..99).for_each(|_| pace.lost(8, 16, ms(500), ms(500)));
        assert_eq!(pace.next(START, 1), after(LONGEST));
        (0..99).for_each(|_| pace.silent(16, ms(500)));
        assert_eq!(pace.next(START, 1), after(LONGEST));
    }

    #[test]
    fn clean_windows_speed_up() {
        let mut pace = Pace::default();
        (0..9).for_each(|_| pace.lost(40, 64, ms(64), ms(64)));
        let mut windows = 0;
        while pace.allowed(START, START) != u64::MAX {
            pace.clean();
            windows += 1;
        }
        assert!((60..120).contains(&windows), "{windows}");
        pace.lost(40, 64, ms(64), ms(64));
        assert_eq!(pace.allowed(START, START), u64::MAX, "the old trouble is forgotten");
    }
}
