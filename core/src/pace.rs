//! How fast the blocks of a window leave (RFC 7440 section 6).
//!
//! A window is sent at once, as long as that goes well. A network card or a switch with a short queue loses the same end of every
//! such burst, for ever. So when windows keep losing, the next ones are spread over the time that an answer takes, which leaves
//! the queue time to drain; when they are clean again they leave faster and faster.
//!
//! Losses that have nothing to do with speed must not cost much: spread over the time of an answer, a window takes no more than
//! about twice as long.

use core::time::Duration;

use crate::time::{Instant, micros};

/// So much trouble is enough to slow down: two windows with a loss.
const ENOUGH: u8 = 4;
/// More trouble is not remembered: so many clean windows end it.
const MOST: u8 = 8;
/// No window is spread over more time, in microseconds.
const LONGEST: u64 = 200_000;
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

    /// Notes that a window of so many blocks lost something, as was known after `time`.
    pub(crate) fn lost(&mut self, time: Duration, blocks: u16) {
        self.trouble = self.trouble.saturating_add(2).min(MOST);
        if self.trouble >= ENOUGH {
            self.pause = self.pause.max(micros(time).min(LONGEST).checked_div(u64::from(blocks)).unwrap_or(0));
        }
    }

    /// Notes that a window of so many blocks was lost without a word but for its first few, where an answer takes so long; or,
    /// twice in a row, that nothing was heard at all.
    ///
    /// What is lost without a word leaves little to measure, so the speed is halved every time.
    pub(crate) fn stalled(&mut self, round_trip: Duration, few: u64, blocks: u16) {
        let spread = micros(round_trip).checked_div(few).unwrap_or(0);
        let longest = LONGEST.checked_div(u64::from(blocks)).unwrap_or(LONGEST);
        self.pause = self.pause.saturating_mul(2).max(spread).max(NO_PAUSE).min(longest);
    }

    /// Notes that a whole window arrived.
    pub(crate) fn clean(&mut self) {
        self.trouble = self.trouble.saturating_sub(1);
        self.pause = self.pause.saturating_sub(self.pause.div_ceil(16));
        if self.pause < NO_PAUSE {
            self.pause = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(1000);

    fn after(micros: u64) -> Instant {
        START.after(Duration::from_micros(micros))
    }

    #[test]
    fn a_window_leaves_at_once_until_windows_keep_losing() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowed(START, START), u64::MAX);
        pace.lost(Duration::from_millis(8), 8);
        assert_eq!(pace.allowed(START, START), u64::MAX, "one loss is no pattern");
        pace.lost(Duration::from_millis(8), 8);
        assert_eq!(pace.allowed(START, START), 1);
        assert_eq!(pace.allowed(after(999), START), 1);
        assert_eq!(pace.allowed(after(1000), START), 2);
        assert_eq!(pace.allowed(after(7500), START), 8);
        assert_eq!(pace.next(START, 3), after(3000));
    }

    #[test]
    fn the_next_block_leaves_when_it_is_allowed() {
        let mut pace = Pace::default();
        (0..2).for_each(|_| pace.lost(Duration::from_micros(12_347), 64));
        for sent in 1..200 {
            let next = pace.next(START, sent);
            assert_eq!(pace.allowed(next, START), sent + 1);
        }
    }

    #[test]
    fn silence_halves_the_speed() {
        let mut pace = Pace::default();
        for pause in [10, 20, 40, 80] {
            pace.stalled(Duration::from_micros(640), 64, 64);
            assert_eq!(pace.next(START, 1), after(pause));
        }
        (0..99).for_each(|_| pace.stalled(Duration::from_micros(640), 64, 64));
        assert_eq!(pace.next(START, 64), after(200_000));
    }

    #[test]
    fn clean_windows_speed_up() {
        let mut pace = Pace::default();
        (0..9).for_each(|_| pace.lost(Duration::from_millis(64), 64));
        let mut windows = 0;
        while pace.allowed(START, START) != u64::MAX {
            pace.clean();
            windows += 1;
        }
        assert!((60..120).contains(&windows), "{windows}");
        pace.lost(Duration::from_millis(64), 64);
        assert_eq!(pace.allowed(START, START), u64::MAX, "the old trouble is forgotten");
    }
}
