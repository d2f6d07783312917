//! Processor time and memory used by a process and its descendants.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};

/// The processor time and memory that a process and its descendants have used.
#[derive(Debug, Default, Clone, Copy)]
pub struct ResourceUsage {
    /// User and system time together.
    pub cpu: Duration,
    /// Peak memory in bytes: the private memory of each process, plus the shared memory of the first.
    pub memory: u64,
}

impl ResourceUsage {
    /// Returns the usage up to now.
    pub fn of(pid: u32) -> Self {
        Self::follow(pid, &AtomicBool::new(true))
    }

    /// Samples the usage until `over` is set. The processor time of a child that is never waited for is lost when the child ends, so
    /// the sampling interval is short.
    pub fn follow(pid: u32, over: &AtomicBool) -> Self {
        let mut seen = HashMap::new();
        let mut memory = 0;
        loop {
            let last = over.load(Ordering::Relaxed);
            let mut now = 0;
            let mut queue = vec![pid];
            while let Some(next) = queue.pop() {
                let Some((ticks, private, shared)) = sample(next) else { continue };
                seen.insert(next, ticks);
                now += if next == pid { private + shared } else { private };
                let children = fs::read_to_string(format!("/proc/{next}/task/{next}/children")).unwrap_or_default();
                queue.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
            memory = memory.max(now);
            if last {
                let (own, waited_for) = seen.get(&pid).copied().unwrap_or_default();
                let children: u64 = seen.iter().filter(|(id, _)| **id != pid).map(|(_, ticks)| ticks.0).sum();
                return Self { cpu: time(own + children.max(waited_for)), memory };
            }
            thread::sleep(Duration::from_millis(if seen.len() > 50 { 200 } else { 20 }));
        }
    }
}

/// Returns the name and the processor time of each thread of a process, without its children. The times are exact; clock ticks are
/// too coarse for runs of a tenth of a second.
pub fn thread_cpu_times(pid: u32) -> Vec<(String, Duration)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let thread = |path: PathBuf| {
        let name = fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned();
        let spent = fs::read_to_string(path.join("schedstat")).ok()?;
        Some((name, Duration::from_nanos(spent.split(' ').next()?.parse().ok()?)))
    };
    // A thread that has ended in the meantime is skipped.
    threads.filter_map(|entry| thread(entry.ok()?.path())).collect()
}

/// Returns the ticks of a process and those of its children that it has waited for, then its private and shared memory in bytes.
fn sample(pid: u32) -> Option<((u64, u64), u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<u64> =
        stat.rsplit(") ").next()?.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect();
    let ticks = (fields.get(11)? + fields.get(12)?, fields.get(13)? + fields.get(14)?);
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: Vec<u64> = statm.split(' ').filter_map(|field| field.trim().parse().ok()).collect();
    let (resident, shared) = (pages.get(1)?, pages.get(2)?);
    Some((ticks, resident.saturating_sub(*shared) * 4096, shared * 4096))
}

fn time(ticks: u64) -> Duration {
    let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(ticks as f64 / a_second as f64)
}
