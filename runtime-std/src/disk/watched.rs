//! The number of disks that are watched after a boot: the more there are, the less often each is read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

/// The time between two readings of a disk for each disk that is watched, so that all together are read 50 times a second.
const INTERVAL_PER_DISK: Duration = Duration::from_millis(20);

/// Counts the disks that are watched. A clone is the same counter.
#[derive(Debug, Clone, Default)]
pub(super) struct Watched(Arc<AtomicU32>);

/// A disk that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted(Watched);

impl Watched {
    /// Counts a disk.
    pub(super) fn enter(&self) -> Counted {
        self.0.fetch_add(1, Relaxed);
        Counted(self.clone())
    }

    /// Returns the number of disks.
    #[cfg(test)]
    pub(super) fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Counted {
    /// Returns the shortest time between two readings of the disk.
    pub(super) fn interval(&self) -> Duration {
        INTERVAL_PER_DISK.saturating_mul(self.0.0.load(Relaxed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
