//! The clock of the daemon, in the core's terms, and time limits.

use std::{future::Future, sync::LazyLock, time};

use rtftp_core::Instant;
use smol::{Timer, future::or};

/// The time before the start of the program that instants can represent: boots of its earlier runs.
const PAST: time::Duration = time::Duration::from_secs(400 * 86_400);

static START: LazyLock<time::Instant> = LazyLock::new(|| {
    let now = time::Instant::now();
    now.checked_sub(PAST).unwrap_or(now)
});

/// Returns the current time.
pub(crate) fn now() -> Instant {
    Instant::from_micros(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Converts an instant to the standard library's type.
pub(crate) fn to_std(instant: Instant) -> time::Instant {
    *START + time::Duration::from_micros(instant.as_micros())
}

/// Returns the result of an operation, or `None` if it takes longer than `limit`.
pub async fn within<T>(limit: time::Duration, operation: impl Future<Output = T>) -> Option<T> {
    until(time::Instant::now() + limit, operation).await
}

/// Returns the result of an operation, or `None` at `deadline`.
pub(crate) async fn until<T>(deadline: time::Instant, operation: impl Future<Output = T>) -> Option<T> {
    let timeout = async {
        Timer::at(deadline).await;
        None
    };
    or(async { Some(operation.await) }, timeout).await
}
