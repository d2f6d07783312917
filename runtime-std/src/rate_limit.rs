//! Bounds for what a stranger can cause with one datagram and a forged address: answers, and lines in the log.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use log::Level;
use rtftp_core::Instant;
use smol::Timer;

use crate::clock;

/// Lets so many things happen at once, and so many a second from then on.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: u32,
    /// What each thing has to be paid for with, in time.
    price: Duration,
    /// When all that has happened is paid for.
    paid: Instant,
}

impl RateLimit {
    pub(crate) fn new(burst: u32, a_second: u32) -> Self {
        Self { burst, price: Duration::from_secs(1) / a_second, paid: Instant::from_micros(0) }
    }

    /// Whether one more may happen now.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let paid = self.paid.max(now).after(self.price);
        let allowed = paid <= now.after(self.price * self.burst);
        if allowed {
            self.paid = paid;
        }
        allowed
    }
}

/// The log, for lines about clients that have not answered: anybody can cause these, and must not fill a disk with them.
#[derive(Debug)]
pub(crate) struct UnverifiedLog {
    throttle: Mutex<RateLimit>,
    left_out: AtomicU64,
}

impl UnverifiedLog {
    /// Enough for what a room full of boards asks for and does not find, and too little to make the journal drop other lines.
    const AT_ONCE: u32 = 1000;
    const A_SECOND: u32 = 10;
    /// How often the lines that were left out are told of.
    const PERIOD: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Self {
        Self { throttle: Mutex::new(RateLimit::new(Self::AT_ONCE, Self::A_SECOND)), left_out: AtomicU64::new(0) }
    }

    /// Writes a line, unless there were too many lately.
    pub(crate) fn line(&self, level: Level, line: fmt::Arguments<'_>) {
        if !log::log_enabled!(level) {
            return;
        }
        if self.throttle.lock().unwrap_or_else(PoisonError::into_inner).allows(clock::now()) {
            log::log!(level, "{line}");
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says from time to time, for ever, how many lines were left out.
    pub(crate) async fn tell_of_the_rest(&self) {
        loop {
            Timer::after(Self::PERIOD).await;
            self.tell();
        }
    }

    /// Says how many lines were left out since the last time, if any were.
    pub(crate) fn tell(&self) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            log::warn!("{left_out} more lines like these left out: requests of clients that did not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(1000 * millis)
    }

    /// How many of a hundred are allowed.
    fn allowed(throttle: &mut RateLimit, now: Instant) -> usize {
        (0..100).filter(|_| throttle.allows(now)).count()
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let mut throttle = RateLimit::new(30, 10);
        assert_eq!(allowed(&mut throttle, at(0)), 30);
        assert_eq!(allowed(&mut throttle, at(99)), 0);
        assert_eq!(allowed(&mut throttle, at(100)), 1);
        assert_eq!(allowed(&mut throttle, at(1_000)), 9);
        assert_eq!(allowed(&mut throttle, at(3_500)), 25);
        assert_eq!(allowed(&mut throttle, at(1_000_000)), 30, "quiet saves up a burst and no more");
    }

    #[test]
    fn a_flood_earns_nothing() {
        let mut throttle = RateLimit::new(1, 10);
        let passed = (0..10_000).filter(|&millis| throttle.allows(at(millis))).count();
        assert_eq!(passed, 100, "in ten seconds");
    }
}
