//! The daemon's clock, as the core counts it.

use std::{io, sync::LazyLock, time};

use rtftp_core::Instant;
use smol::{Timer, future::or};

static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);

/// The time now.
pub(crate) fn now() -> Instant {
    Instant::from_micros(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The same moment as the standard library counts it.
pub(crate) fn to_std(instant: Instant) -> time::Instant {
    *START + time::Duration::from_micros(instant.as_micros())
}

/// The result of work, or that it did not come in time.
pub(crate) async fn within<T>(limit: time::Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(limit).await;
        let limit = limit.as_secs_f64();
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit} s")))
    };
    or(work, late).await
}
