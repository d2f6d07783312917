//! Processor load: whether another worker would find an idle processor.

use std::{fs::File, os::unix::fs::FileExt, time::Duration};

use rtftp_core::Instant;
use rustix::time::{ClockId, clock_gettime};

use crate::clock;

/// The unit of `/proc/stat` (`USER_HZ`), in milliseconds.
const TICK_MILLIS: u64 = 10;
/// The shortest time over which load is measured.
const INTERVAL: Duration = Duration::from_millis(200);

/// A measurement of how many workers the processors' load justifies.
#[derive(Debug)]
pub(super) struct Processors {
    /// `/proc/stat`, opened before the sandbox is entered; `None` without a `/proc`.
    stat: Option<File>,
    useful: usize,
    last: Sample,
}

/// The processor times at one instant.
#[derive(Debug)]
struct Sample {
    at: Instant,
    /// The processor time used by this process.
    used: Duration,
    /// The idle time of all processors.
    idle: Duration,
}

impl Processors {
    pub(super) fn new() -> Self {
        let stat = File::open("/proc/stat").ok();
        Self { useful: 1, last: Sample::take(stat.as_ref()), stat }
    }

    /// Returns the number of useful workers, at most `max`. Call it whenever another worker could help.
    pub(super) fn useful_workers(&mut self, max: usize) -> usize {
        if clock::now().since(self.last.at) >= INTERVAL {
            let now = Sample::take(self.stat.as_ref());
            self.useful = useful_workers(self.useful, &self.last, &now).clamp(1, max);
            self.last = now;
        }
        self.useful
    }
}

impl Sample {
    fn take(stat: Option<&File>) -> Self {
        let mut buf = [0; 256];
        let len = stat.and_then(|stat| stat.read_at(&mut buf, 0).ok()).unwrap_or_default();
        Self {
            at: clock::now(),
            used: clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default(),
            idle: idle(&buf[..len]).unwrap_or_default(),
        }
    }
}

/// Returns the number of useful workers after `current` workers ran from one sample to the next.
fn useful_workers(current: usize, before: &Sample, now: &Sample) -> usize {
    let seconds = now.at.since(before.at).as_secs_f64();
    let processors = |now: Duration, before| now.saturating_sub(before).as_secs_f64() / seconds;
    let (used, idle) = (processors(now.used, before.used), processors(now.idle, before.idle));
    if used >= 0.85 * current as f64 && idle >= 0.33 {
        current + 1
    } else if used < 0.7 * (current - 1) as f64 {
        current - 1
    } else {
        current
    }
}

/// Returns the processors' idle time, including waits for disks, from the first line of `/proc/stat` (proc(5)).
fn idle(stat: &[u8]) -> Option<Duration> {
    let line = stat.split(|&byte| byte == b'\n').next()?;
    let fields = str::from_utf8(line).ok()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks = fields.skip(3).take(2).map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(ticks.saturating_mul(TICK_MILLIS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of useful workers after a second in which this process used `used` processors and `idle` were idle.
    fn after(current: usize, used: f64, idle: f64) -> usize {
        let sample = |second: u32| Sample {
            at: Instant::from_micros(7 + 1_000_000 * u64::from(second)),
            used: Duration::from_secs(3) + Duration::from_secs_f64(used) * second,
            idle: Duration::from_secs(5) + Duration::from_secs_f64(idle) * second,
        };
        useful_workers(current, &sample(0), &sample(1))
    }

    #[test]
    fn adds_worker_under_overload_if_a_processor_is_idle() {
        assert_eq!(after(1, 0.97, 0.5), 2);
        assert_eq!(after(2, 1.9, 1.9), 3);
        assert_eq!(after(1, 0.97, 0.2), 1, "no idle processor");
        assert_eq!(after(1, 0.5, 3.5), 1, "no overload");
        assert_eq!(after(2, 1.2, 0.8), 2);
    }

    #[test]
    fn removes_unneeded_worker() {
        assert_eq!(after(2, 0.6, 1.0), 1);
        assert_eq!(after(4, 0.0, 4.0), 3);
        assert_eq!(after(1, 0.0, 2.0), 1);
    }

    #[test]
    fn parses_idle_time() {
        let stat = b"cpu  10 20 30 400 50 60 70 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(idle(stat), Some(Duration::from_millis(4_500)));
        assert_eq!(idle(b"cpu0 1 2 3 4 5\n"), None);
        assert_eq!(idle(b""), None);
    }

    #[test]
    fn samples_this_machine() {
        let processors = Processors::new();
        assert!(processors.last.used > Duration::ZERO && processors.last.idle > Duration::ZERO, "{processors:?}");
    }
}
