//! Time for the state machines: a number that the caller passes in.

use core::time::Duration;

/// An instant of the caller's monotonic clock, in microseconds since any fixed start.
///
/// The core never reads a clock: every call that needs the time takes it as an argument. 2^64 microseconds are 584,000 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// Creates an instant from microseconds since the caller's fixed start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the caller's fixed start.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later: a clock that steps back does no harm.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns the instant `duration` later. Saturates instead of overflowing.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

/// Returns a duration in microseconds. Saturates instead of overflowing.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_zero_after_a_clock_steps_back() {
        assert_eq!(Instant::from_micros(5).since(Instant::from_micros(9)), Duration::ZERO);
        assert_eq!(Instant::from_micros(9).since(Instant::from_micros(5)), Duration::from_micros(4));
    }

    #[test]
    fn after_saturates() {
        assert_eq!(Instant::from_micros(1).after(Duration::from_millis(2)), Instant::from_micros(2_001));
        assert_eq!(Instant::from_micros(u64::MAX).after(Duration::MAX), Instant::from_micros(u64::MAX));
    }
}
