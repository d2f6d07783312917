//! The wall clock's time of instants of the monotonic clock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use rtftp_core::Instant;

use crate::clock;

/// A moment of the monotonic clock, with the offset of the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    instant: Instant,
    /// The wall clock's time at the monotonic clock's zero, in microseconds since 1970.
    epoch: u64,
}

/// The last measured [`WallClock::epoch`]; 0 before the first measurement.
static EPOCH: AtomicU64 = AtomicU64::new(0);

impl WallClock {
    /// A larger change of the offset means that the wall clock was set, in microseconds. Smaller ones are ignored, so that the
    /// time of a request is the same in all snapshots.
    const MIN_ADJUSTMENT: u64 = 1_000_000;

    /// Returns the present moment.
    pub(super) fn now() -> Self {
        Self::at(clock::now())
    }

    /// Returns this moment of the monotonic clock, with the present offset of the wall clock.
    pub(super) fn at(instant: Instant) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let measured = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX).saturating_sub(clock::now().as_micros());
        let known = EPOCH.load(Relaxed);
        if known.abs_diff(measured) < Self::MIN_ADJUSTMENT {
            return Self { instant, epoch: known };
        }
        EPOCH.store(measured, Relaxed);
        Self { instant, epoch: measured }
    }

    /// Returns the moment on the monotonic clock.
    pub(super) fn instant(self) -> Instant {
        self.instant
    }

    /// Converts seconds since 1970 to a moment. Returns `None` if it is in the future, or before the monotonic clock's zero.
    pub(super) fn past(self, unix: f64) -> Option<Instant> {
        let micros = ((unix * 1e6).round() as u64).checked_sub(self.epoch)?;
        Some(Instant::from_micros(micros)).filter(|instant| *instant <= self.instant)
    }

    /// Converts any moment to seconds since 1970. A double is exact to the microsecond.
    pub(super) fn to_unix(self, instant: Instant) -> f64 {
        self.epoch.saturating_add(instant.as_micros()) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_the_same_wall_clock_time_in_all_snapshots() {
        let instant = clock::now();
        let (first, unix) =
            (WallClock::now().to_unix(instant), SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
        assert!((first - unix.as_secs_f64()).abs() < 5.0, "{first}");
        for _ in 0..1000 {
            assert_eq!(WallClock::now().to_unix(instant), first);
        }
    }
}
