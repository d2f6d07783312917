//! A run of a load against a server, measured.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{Process, ResourceUsage, load_client::Report};

/// Waits until a root directory that has just been made is as it usually is: rtftp lists it at each request while it may still change
/// unnoticed, which takes 3 s.
pub fn settle() {
    thread::sleep(Duration::from_millis(3100));
}

/// One measurement of one server.
#[derive(Debug)]
pub struct MeasuredRun {
    /// What the clients saw.
    pub report: Report,
    /// The server's processor time.
    cpu: Duration,
    /// The server's peak memory, and its growth since the start, in bytes.
    memory: (u64, u64),
}

impl MeasuredRun {
    /// Runs a load, and measures the server meanwhile.
    ///
    /// # Errors
    ///
    /// Returns the error of the load.
    pub fn of(server: &Process, load: impl FnOnce() -> io::Result<Report>) -> io::Result<Self> {
        let before = ResourceUsage::of(server.id());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let usage = scope.spawn(|| ResourceUsage::follow(server.id(), &over));
            let report = load();
            over.store(true, Ordering::Relaxed);
            let usage = usage.join().expect("no panic");
            let report = report?;
            Ok(Self {
                cpu: usage.cpu.saturating_sub(before.cpu),
                memory: (usage.memory, usage.memory.saturating_sub(before.memory)),
                report,
            })
        })
    }

    /// Returns the throughput in 10^6 bytes per second.
    pub fn speed(&self) -> f64 {
        self.report.bytes as f64 / self.report.wall.as_secs_f64() / 1e6
    }

    /// Returns the server's processor time in seconds per GiB.
    pub fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.report.bytes as f64 / f64::from(1 << 30))
    }

    /// Returns the server's peak memory in MiB.
    pub fn peak(&self) -> f64 {
        mib(self.memory.0)
    }

    /// Returns the growth of the server's memory in MiB.
    pub fn growth(&self) -> f64 {
        mib(self.memory.1)
    }
}

/// Returns the median of a figure of some runs; NaN without any.
pub fn median<R>(runs: &[R], of: impl Fn(&R) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Converts bytes to MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
