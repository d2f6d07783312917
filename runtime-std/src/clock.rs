//! The clock of the daemon, in the core's terms.

use std::{future::Future, io, sync::LazyLock, time};

use rtftp_core::Instant;
use smol::{Timer, future::or};

static START: LazyLock<time::Instant> = LazyLock::new(time::Instant::now);

/// Returns the current time.
pub(crate) fn now() -> Instant {
    Instant::from_micros(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Converts an instant to the standard library's type.
pub(crate) fn to_std(instant: Instant) -> time::Instant {
    *START + time::Duration::from_micros(instant.as_micros())
}

/// Returns the result of an operation, or an error of kind `TimedOut` after `limit`.
pub(crate) async fn within<T>(limit: time::Duration, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timeout = async {
        Timer::after(limit).await;
        let limit = limit.as_secs_f64();
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit} s")))
    };
    or(operation, timeout).await
}
