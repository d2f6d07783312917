//! Lookups on a disk that may be written at the same time.

use std::{sync::Arc, time::Instant};

use super::{DiskError, RETRY_INTERVAL, RETRY_LIMIT, handle::Disk, snapshot::Snapshot};
use crate::clock::{self, Timer};

/// The attempts to look something up on a disk. They are repeated for [`RETRY_LIMIT`] while the disk is inconsistent because it is being
/// written.
pub(super) struct Lookup<'d> {
    disk: &'d Disk,
    requested: Instant,
    /// Whether the next attempt needs a new snapshot.
    refresh: bool,
    /// Whether the disk may have changed since the snapshot of this attempt.
    may_be_outdated: bool,
}

impl<'d> Lookup<'d> {
    pub(super) fn new(disk: &'d Disk) -> Self {
        Self { disk, requested: clock::instant(), refresh: false, may_be_outdated: false }
    }

    /// Returns the snapshot for the next attempt; connects the disk if necessary.
    pub(super) async fn snapshot(&mut self) -> Result<Arc<Snapshot>, DiskError> {
        let snapshot = self.disk.snapshot(self.refresh).await?;
        self.may_be_outdated = snapshot.is_older_than(self.requested) && snapshot.is_in_use();
        Ok(snapshot)
    }

    /// Returns the result of the attempt if there is no further one, and logs an error that is no fault of the client. Otherwise waits
    /// until the next attempt, and returns `None`.
    pub(super) async fn finish<T>(&mut self, found: Result<T, DiskError>) -> Option<Result<T, DiskError>> {
        match found {
            // The journal that the snapshot has read may have been overwritten since, and names with it.
            Err(DiskError::NotFound) if !self.refresh && self.may_be_outdated => self.refresh = true,
            // Another snapshot would only take more memory.
            Err(error)
                if (error.is_transient() || matches!(error, DiskError::Changed))
                    && clock::elapsed(self.requested) < RETRY_LIMIT =>
            {
                self.refresh = !error.is_out_of_memory();
                Timer::after(RETRY_INTERVAL).await;
            }
            found => return Some(found.inspect_err(|error| self.log(error))),
        }
        None
    }

    fn log(&self, error: &DiskError) {
        if error.is_too_much_work() {
            self.disk.log().lookup_failed(error);
        }
        if error.is_transient() && (!error.is_out_of_memory() || self.disk.memory().should_log()) {
            log::error!("{}: {error}", self.disk.name());
        }
    }
}
