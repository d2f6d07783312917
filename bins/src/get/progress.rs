//! The line on a terminal that shows how far it is.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::bar::bar;

/// How often the line is drawn, at most.
const PAUSE: Duration = Duration::from_millis(100);

/// A line on standard error that is drawn over and over; gone when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    /// Starts the clock; nothing is shown yet.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), drawn: None }
    }

    /// Shows that so many bytes have come, if the line was not drawn just now.
    pub(crate) fn show(&mut self, bytes: u64, size: Option<u64>) {
        let now = Instant::now();
        if self.drawn.is_some_and(|drawn| now - drawn < PAUSE) {
            return;
        }
        self.drawn = Some(now);
        let rate = bytes as f64 / (now - self.started).as_secs_f64().max(0.001);
        // The rest of a longer line that was there is erased. A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "\r{}\x1b[K", bar(bytes, size, rate));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
