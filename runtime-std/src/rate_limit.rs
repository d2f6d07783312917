//! Limits on what a single datagram with a forged address can cause: replies and log lines.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use log::Level;
use parking_lot::Mutex;
use rtftp_core::Instant;
use smol::Timer;

use crate::clock;

/// A rate limit: a number of events at once, then a number per second. A token bucket that stores time instead of tokens.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: u32,
    /// The time that each event takes from the budget.
    cost: Duration,
    /// The instant at which the whole burst is available again.
    full_at: Instant,
}

impl RateLimit {
    /// Creates a limit of `burst` events at once and `per_second` after that.
    pub(crate) fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, cost: Duration::from_secs(1) / per_second, full_at: Instant::from_micros(0) }
    }

    /// Returns whether an event may happen now, and counts it if so.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now).after(self.cost);
        let allowed = full_at <= now.after(self.cost * self.burst);
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }

    /// Returns whether less than half of the budget is left.
    pub(crate) fn is_short(&self, now: Instant) -> bool {
        self.full_at > now.after(self.cost * self.burst / 2)
    }
}

/// Allows an event at most once a minute.
#[derive(Debug, Default)]
pub(crate) struct OncePerMinute {
    last: Mutex<Option<Instant>>,
}

impl OncePerMinute {
    const INTERVAL: Duration = Duration::from_secs(60);

    /// Returns whether the event may happen now, and counts it if so.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let is_due = last.is_none_or(|last| now.since(last) >= Self::INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// The log of unverified clients. Anyone can cause its lines with forged addresses, so their rate is limited.
#[derive(Debug)]
pub(crate) struct UnverifiedLog {
    rate_limit: Mutex<RateLimit>,
    suppressed: AtomicU64,
}

impl UnverifiedLog {
    /// Enough for the files that a room full of boards requests in vain, too few to make the journal drop other lines.
    const BURST: u32 = 1000;
    const PER_SECOND: u32 = 10;
    /// The interval at which the number of suppressed lines is logged.
    const REPORT_INTERVAL: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Self {
        let rate_limit = Mutex::new(RateLimit::new(Self::BURST, Self::PER_SECOND));
        Self { rate_limit, suppressed: AtomicU64::new(0) }
    }

    /// Logs a line, unless that exceeds the rate limit.
    pub(crate) fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        if !log::log_enabled!(level) {
            return;
        }
        if self.rate_limit.lock().allows(clock::now()) {
            log::log!(level, "{line}");
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs the number of suppressed lines periodically. Never returns.
    pub(crate) async fn run(&self) {
        loop {
            Timer::after(Self::REPORT_INTERVAL).await;
            self.report_suppressed();
        }
    }

    /// Logs the number of lines suppressed since the last report, if there are any.
    pub(crate) fn report_suppressed(&self) {
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            log::warn!("{suppressed} more lines like these left out: requests of clients that did not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(1000 * millis)
    }

    /// Returns how many of 100 events are allowed.
    fn allowed(limit: &mut RateLimit, now: Instant) -> usize {
        (0..100).filter(|_| limit.allows(now)).count()
    }

    #[test]
    fn allows_burst_then_events_per_second() {
        let mut limit = RateLimit::new(30, 10);
        assert_eq!(allowed(&mut limit, at(0)), 30);
        assert_eq!(allowed(&mut limit, at(99)), 0);
        assert_eq!(allowed(&mut limit, at(100)), 1);
        assert_eq!(allowed(&mut limit, at(1_000)), 9);
        assert_eq!(allowed(&mut limit, at(3_500)), 25);
        assert_eq!(allowed(&mut limit, at(1_000_000)), 30, "the budget exceeds the burst");
    }

    #[test]
    fn allows_an_event_once_a_minute() {
        let limit = OncePerMinute::default();
        assert_eq!((0..180).filter(|second| limit.allows(at(second * 1000))).count(), 3);
    }

    #[test]
    fn rejected_events_cost_nothing() {
        let mut limit = RateLimit::new(1, 10);
        let passed = (0..10_000).filter(|&millis| limit.allows(at(millis))).count();
        assert_eq!(passed, 100, "in ten seconds");
    }
}
