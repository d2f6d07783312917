//! Time as the state machines see it: a number the caller hands in.

use core::time::Duration;

/// A moment on the caller's own monotonic clock, in microseconds since any fixed start.
///
/// The core never reads a clock; every call that needs the time is given it. 2^64 microseconds are 584,000 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// Makes an instant from microseconds since the caller's fixed start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The microseconds since the caller's fixed start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is in fact later, so that a clock that steps back does no harm.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The instant `duration` later, stopping at the end of time instead of overflowing.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

/// The microseconds of a duration; the longest ones count as the end of time.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_gives_no_time() {
        assert_eq!(Instant::from_micros(5).since(Instant::from_micros(9)), Duration::ZERO);
        assert_eq!(Instant::from_micros(9).since(Instant::from_micros(5)), Duration::from_micros(4));
    }

    #[test]
    fn addition_stops_at_the_end_of_time() {
        assert_eq!(Instant::from_micros(1).after(Duration::from_millis(2)), Instant::from_micros(2_001));
        assert_eq!(Instant::from_micros(u64::MAX).after(Duration::MAX), Instant::from_micros(u64::MAX));
    }
}
