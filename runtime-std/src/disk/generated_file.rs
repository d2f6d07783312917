//! A file that is generated from the files on a disk.

use std::time::Instant;

use super::{DiskError, handle::Disk};
use crate::{clock, memory::Reservation};

/// A file in memory, generated from the files in a snapshot of a disk.
#[derive(Debug)]
pub(crate) struct GeneratedFile {
    bytes: Vec<u8>,
    generated: Instant,
    _memory: Reservation,
}

impl GeneratedFile {
    /// Creates a file with this text. It occupies memory of the disk.
    pub(super) fn new(disk: &Disk, text: String) -> Result<Self, DiskError> {
        let memory = disk.memory().reserve(text.capacity())?;
        Ok(Self { bytes: text.into_bytes(), generated: clock::instant(), _memory: memory })
    }

    /// Returns the contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the time at which it was generated.
    pub(crate) fn generated(&self) -> Instant {
        self.generated
    }
}
