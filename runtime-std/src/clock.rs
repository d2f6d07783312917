//! The clock of the daemon, in the core's terms, and time limits.

mod timer;
#[cfg(test)]
pub(crate) mod virtual_time;

use std::{future::Future, sync::LazyLock, time};

use rtftp_core::Instant;
use smol::future::or;

#[cfg(not(test))]
pub(crate) use self::timer::Timer;
pub(crate) use self::timer::Timers;
#[cfg(test)]
pub(crate) use self::virtual_time::Timer;

/// The time before the start of the program that instants can represent: boots of its earlier runs.
const PAST: time::Duration = time::Duration::from_secs(400 * 86_400);

static START: LazyLock<time::Instant> = LazyLock::new(|| {
    let now = time::Instant::now();
    now.checked_sub(PAST).unwrap_or(now)
});

/// Returns the current time.
pub(crate) fn now() -> Instant {
    Instant::from_micros(u64::try_from(elapsed(*START).as_micros()).unwrap_or(u64::MAX))
}

/// Converts an instant of the standard library, rounded up.
pub(crate) fn from_std(instant: time::Instant) -> Instant {
    let since = instant.saturating_duration_since(*START) + time::Duration::from_nanos(999);
    Instant::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Returns the current time in the standard library's type: that of the simulation in a test that runs in virtual time.
pub(crate) fn instant() -> time::Instant {
    #[cfg(test)]
    if let Some(now) = virtual_time::now() {
        return now;
    }
    time::Instant::now()
}

/// Returns the time since an instant.
pub(crate) fn elapsed(since: time::Instant) -> time::Duration {
    instant().saturating_duration_since(since)
}

/// Converts an instant to the standard library's type.
pub(crate) fn to_std(instant: Instant) -> time::Instant {
    *START + time::Duration::from_micros(instant.as_micros())
}

/// Returns the result of an operation, or `None` if it takes longer than `limit`.
pub async fn within<T>(limit: time::Duration, operation: impl Future<Output = T>) -> Option<T> {
    until(instant() + limit, operation).await
}

/// Returns the result of an operation, or `None` at `deadline`.
pub(crate) async fn until<T>(deadline: time::Instant, operation: impl Future<Output = T>) -> Option<T> {
    let timeout = async {
        Timer::at(deadline).await;
        None
    };
    or(async { Some(operation.await) }, timeout).await
}
