//! Waiting for a condition instead of for a guessed time.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Polls `condition` until it returns a value. Panics with `what` after `within`.
#[track_caller]
pub fn poll_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out after {within:?} waiting for {what}");
        sleep(Duration::from_millis(5));
    }
}
