//! The progress line on a terminal.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::progress_bar::progress_bar;

/// The minimum interval between two updates.
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// A line on standard error that is updated in place, and erased when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    updated: Option<Instant>,
}

impl Progress {
    /// Starts the clock. Nothing is shown before the first [`show`](Self::show).
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), updated: None }
    }

    /// Shows the number of bytes fetched so far, unless the line was updated a moment ago.
    pub(crate) fn show(&mut self, bytes: u64, size: Option<u64>) {
        let now = Instant::now();
        if self.updated.is_some_and(|updated| now - updated < UPDATE_INTERVAL) {
            return;
        }
        self.updated = Some(now);
        let rate = bytes as f64 / (now - self.started).as_secs_f64().max(0.001);
        // `\x1b[K` erases the rest of a longer line. A closed terminal does not end the transfer.
        let _ = write!(io::stderr(), "\r{}\x1b[K", progress_bar(bytes, size, rate));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.updated.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
