//! Whether another thread would find a processor for itself.

use std::{fs::File, os::unix::fs::FileExt, time::Duration};

use rtftp_core::Instant;
use rustix::time::{ClockId, clock_gettime};

use crate::clock;

/// What the kernel counts in, for everybody (`USER_HZ`), in milliseconds.
const TICK: u64 = 10;
/// For how long the processors are looked at, at least.
const SPAN: Duration = Duration::from_millis(200);

/// How many threads the processors have been worth up to now.
#[derive(Debug)]
pub(super) struct Processors {
    /// Opened before the process locks itself in; not there without a `/proc`.
    stat: Option<File>,
    at_work: usize,
    last: Reading,
}

/// What processors had done at a moment.
#[derive(Debug)]
struct Reading {
    at: Instant,
    /// The time that this process has used.
    ours: Duration,
    /// The time that all of them were idle.
    idle: Duration,
}

impl Processors {
    pub(super) fn new() -> Self {
        let stat = File::open("/proc/stat").ok();
        Self { at_work: 1, last: Reading::of(stat.as_ref()), stat }
    }

    /// How many threads are worth having, of so many at most. To be asked whenever one more could help.
    pub(super) fn worth(&mut self, most: usize) -> usize {
        if clock::now().since(self.last.at) >= SPAN {
            let now = Reading::of(self.stat.as_ref());
            self.at_work = worth(self.at_work, &self.last, &now).clamp(1, most);
            self.last = now;
        }
        self.at_work
    }
}

impl Reading {
    fn of(stat: Option<&File>) -> Self {
        let mut buf = [0; 256];
        let len = stat.and_then(|stat| stat.read_at(&mut buf, 0).ok()).unwrap_or_default();
        Self {
            at: clock::now(),
            ours: clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default(),
            idle: idle(&buf[..len]).unwrap_or_default(),
        }
    }
}

/// How many threads are worth having after so many had their time from one reading to the next.
fn worth(at_work: usize, before: &Reading, now: &Reading) -> usize {
    let span = now.at.since(before.at).as_secs_f64();
    let part = |now: Duration, before| now.saturating_sub(before).as_secs_f64() / span;
    let (ours, idle) = (part(now.ours, before.ours), part(now.idle, before.idle));
    if ours >= 0.85 * at_work as f64 && idle >= 0.33 {
        at_work + 1
    } else if ours < 0.7 * (at_work - 1) as f64 {
        at_work - 1
    } else {
        at_work
    }
}

/// The time that processors were idle, from the first line of `/proc/stat` (see proc(5)): idle, and waiting for a disk.
fn idle(stat: &[u8]) -> Option<Duration> {
    let line = stat.split(|&byte| byte == b'\n').next()?;
    let fields = str::from_utf8(line).ok()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks = fields.skip(3).take(2).map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(ticks.saturating_mul(TICK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a second in which so many processors were used by us, and so many by nobody.
    fn after(at_work: usize, ours: f64, idle: f64) -> usize {
        let reading = |second: u32| Reading {
            at: Instant::from_micros(7 + 1_000_000 * u64::from(second)),
            ours: Duration::from_secs(3) + Duration::from_secs_f64(ours) * second,
            idle: Duration::from_secs(5) + Duration::from_secs_f64(idle) * second,
        };
        worth(at_work, &reading(0), &reading(1))
    }

    #[test]
    fn another_thread_is_for_an_idle_processor_when_there_is_too_much_to_do() {
        assert_eq!(after(1, 0.97, 0.5), 2);
        assert_eq!(after(2, 1.9, 1.9), 3);
        assert_eq!(after(1, 0.97, 0.2), 1, "others need the processors");
        assert_eq!(after(1, 0.5, 3.5), 1, "there is time left");
        assert_eq!(after(2, 1.2, 0.8), 2);
    }

    #[test]
    fn a_thread_that_is_not_needed_any_more_gets_nothing_new() {
        assert_eq!(after(2, 0.6, 1.0), 1);
        assert_eq!(after(4, 0.0, 4.0), 3);
        assert_eq!(after(1, 0.0, 2.0), 1);
    }

    #[test]
    fn idle_time_is_read_as_the_kernel_tells_it() {
        let stat = b"cpu  10 20 30 400 50 60 70 80 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(idle(stat), Some(Duration::from_millis(4_500)));
        assert_eq!(idle(b"cpu0 1 2 3 4 5\n"), None);
        assert_eq!(idle(b""), None);
    }

    #[test]
    fn this_machine_tells_what_it_does() {
        let processors = Processors::new();
        assert!(processors.last.ours > Duration::ZERO && processors.last.idle > Duration::ZERO, "{processors:?}");
    }
}
