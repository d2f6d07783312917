//! The clock of the daemon, in the core's terms, and time limits.

mod timer;
#[cfg(test)]
pub(crate) mod virtual_time;

use std::{
    future::Future,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time,
};

use pin_project_lite::pin_project;
use rtftp_core::Instant;

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
pub fn within<T>(limit: time::Duration, operation: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    until(instant() + limit, operation)
}

/// Returns the result of an operation, or `None` at `deadline`.
pub(crate) fn until<T>(deadline: time::Instant, operation: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    Until { operation, timer: Timer::at(deadline) }
}

pin_project! {
    /// An operation with a deadline. An `async fn` would need twice the memory of its parameter, and operations have several
    /// deadlines, one within the other.
    struct Until<F> {
        #[pin]
        operation: F,
        timer: Timer,
    }
}

impl<F: Future> Future for Until<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.operation.poll(context) {
            return Poll::Ready(Some(result));
        }
        Pin::new(this.timer).poll(context).map(|_| None)
    }
}
