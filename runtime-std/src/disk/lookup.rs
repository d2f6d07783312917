//! Lookups on a disk that may be written at the same time.

use std::{sync::Arc, time::Instant};

use super::{DiskError, RETRY_INTERVAL, RETRY_LIMIT, handle::Disk, snapshot::Snapshot};
use crate::clock::{self, Timer};

/// The number of attempts of which two in a row must agree.
const MAX_CONFIRMATIONS: u32 = 8;

/// The attempts to look something up on a disk. They are repeated for [`RETRY_LIMIT`] while the disk is inconsistent because it is being
/// written.
///
/// While a snapshot is read, the owner may write over its copies of blocks in the journal, and not every file system has checksums that
/// show it. So what no file is compared with counts only if two attempts in a row agree, in two snapshots.
pub(super) struct Lookup<'d> {
    disk: &'d Disk,
    requested: Instant,
    /// Whether the next attempt needs a new snapshot.
    refresh: bool,
    /// Whether the disk was being written at the last attempt.
    is_in_use: bool,
    /// Whether the last attempt found nothing.
    has_missed: bool,
    confirmations: u32,
}

impl<'d> Lookup<'d> {
    pub(super) fn new(disk: &'d Disk) -> Self {
        let requested = clock::instant();
        Self { disk, requested, refresh: false, is_in_use: false, has_missed: false, confirmations: 0 }
    }

    /// Returns the snapshot for the next attempt; connects the disk if necessary.
    pub(super) async fn snapshot(&mut self) -> Result<Arc<Snapshot>, DiskError> {
        let snapshot = self.disk.snapshot(self.refresh).await?;
        self.is_in_use = snapshot.is_in_use();
        Ok(snapshot)
    }

    /// Returns the result of the attempt if there is no further one, and logs an error that is no fault of the client. Otherwise waits
    /// until the next attempt, and returns `None`.
    pub(super) async fn finish<T>(&mut self, found: Result<T, DiskError>) -> Option<Result<T, DiskError>> {
        let has_missed = std::mem::replace(&mut self.has_missed, matches!(found, Err(DiskError::NotFound)));
        match found {
            Err(DiskError::NotFound) if self.is_in_use && !has_missed => self.refresh = true,
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

    /// Returns whether what was found is to be confirmed by another attempt: if the disk is being written, and `is_same` does not say
    /// that the attempt before has found the same.
    ///
    /// # Errors
    ///
    /// [`DiskError::Changed`] if no two attempts agree.
    pub(super) fn must_confirm(&mut self, is_same: bool) -> Result<bool, DiskError> {
        if !self.is_in_use || is_same {
            return Ok(false);
        }
        self.refresh = true;
        self.confirmations += 1;
        if self.confirmations == MAX_CONFIRMATIONS { Err(DiskError::Changed) } else { Ok(true) }
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
