//! The daemon's clock, as the core counts it.

use std::{sync::LazyLock, time};

use rtftp_core::Instant;

static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);

/// The time now.
pub(crate) fn now() -> Instant {
    Instant::from_micros(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The same moment as the standard library counts it.
pub(crate) fn to_std(instant: Instant) -> time::Instant {
    *START + time::Duration::from_micros(instant.as_micros())
}
