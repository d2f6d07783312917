//! The line on a terminal that shows how far it is.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

/// How often the line is drawn, at most.
const PAUSE: Duration = Duration::from_millis(100);

/// How many characters the bar has.
const BAR: usize = 24;

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
        // The rest of a longer line that was there is erased. A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "\r{}\x1b[K", line(bytes, size, now - self.started));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Percent, a bar, bytes, rate and time left, as far as they are known.
fn line(bytes: u64, size: Option<u64>, elapsed: Duration) -> String {
    let rate = bytes as f64 / elapsed.as_secs_f64().max(0.001);
    let came = format!("{:.1} MB  {:.1} MB/s", megabytes(bytes as f64), megabytes(rate));
    // Some servers answer `tsize` with 0 because they do not know it.
    let Some(size) = size.filter(|&size| size > 0 && bytes <= size) else { return came };
    let part = bytes as f64 / size as f64;
    let bar = "=".repeat((part * BAR as f64) as usize);
    let left = if rate > 0.0 { clock(((size - bytes) as f64 / rate) as u64) } else { "-:--".into() };
    format!("{:3.0}% [{bar:BAR$}] {came}  {left} left", (part * 100.0).floor())
}

/// Bytes in millions.
pub(crate) fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}

/// Seconds as minutes and seconds, or hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_is_known() {
        let second = Duration::from_secs(1);
        for (bytes, size, line_) in [
            (0, Some(1_000_000), "  0% [                        ] 0.0 MB  0.0 MB/s  -:-- left"),
            (500_000, Some(1_000_000), " 50% [============            ] 0.5 MB  0.5 MB/s  0:01 left"),
            (999_999, Some(1_000_000), " 99% [======================= ] 1.0 MB  1.0 MB/s  0:00 left"),
            (1_000_000, Some(1_000_000), "100% [========================] 1.0 MB  1.0 MB/s  0:00 left"),
            (1_000_000, Some(9_999_000_000), "  0% [                        ] 1.0 MB  1.0 MB/s  2:46:38 left"),
            (2_000_000, None, "2.0 MB  2.0 MB/s"),
            (2_000_000, Some(0), "2.0 MB  2.0 MB/s"),
            (2_000_000, Some(1), "2.0 MB  2.0 MB/s"),
        ] {
            assert_eq!(line(bytes, size, second), line_);
        }
        assert!(line(u64::MAX, Some(u64::MAX), Duration::ZERO).starts_with("100%"));
    }
}
