//! Warnings about limits that are reached, at most one a minute for each.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
use rtftp_core::Instant;

use crate::clock;

/// The minimum time between two warnings about the same limit.
const INTERVAL: Duration = Duration::from_secs(60);

/// The warnings about one limit.
#[derive(Debug, Default)]
pub(super) struct LimitWarning {
    last: Mutex<Option<Instant>>,
}

impl LimitWarning {
    /// Logs a warning, unless the last one is recent.
    pub(super) fn log(&self, line: fmt::Arguments<'_>) {
        if self.is_due(clock::now()) {
            log::warn!("{line}");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let is_due = last.is_none_or(|last| now.since(last) >= INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_a_minute() {
        let warning = LimitWarning::default();
        let due = (0..180).filter(|second| warning.is_due(Instant::from_micros(second * 1_000_000))).count();
        assert_eq!(due, 3);
    }
}
