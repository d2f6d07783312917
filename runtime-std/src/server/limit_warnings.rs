//! Warnings about limits that are reached, at most one a minute for each.

use std::fmt;

use crate::{clock, rate_limit::OncePerMinute};

/// The warnings about one limit.
#[derive(Debug, Default)]
pub(super) struct LimitWarning(OncePerMinute);

impl LimitWarning {
    /// Logs a warning, unless the last one is recent.
    pub(super) fn log(&self, line: fmt::Arguments<'_>) {
        if self.0.allows(clock::now()) {
            log::warn!("{line}");
        }
    }
}
