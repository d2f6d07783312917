//! A checksum of what was read from a file, to compare with what is on the disk later.

use std::{ops::Range, time::Instant};

use super::{DiskError, snapshot::DiskFile};
use crate::clock;

/// The number of bytes that are compared at once.
const PART: usize = 64 * 1024;

/// The checksum of a contiguous part of a file, which grows with each read.
#[derive(Debug, Clone, Default)]
pub(super) struct Digest {
    range: Range<u64>,
    crc: u32,
    /// Whether something else than the next bytes was read, which the checksum does not cover.
    has_gaps: bool,
}

impl Digest {
    /// Adds bytes that were read at an offset.
    pub(super) fn add(&mut self, offset: u64, bytes: &[u8]) {
        if self.range.is_empty() {
            self.range = offset..offset;
        }
        self.has_gaps |= self.range.end != offset;
        self.range.end += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    /// Reads the same part of a file from the disk, and returns whether it has the same checksum.
    ///
    /// # Errors
    ///
    /// [`DiskError::Changed`] if there is no time left for it, and the errors of the disk.
    pub(super) async fn matches(&self, file: &DiskFile, until: Instant) -> Result<bool, DiskError> {
        let DiskFile::Native { device, map } = file else { return Ok(false) };
        if self.has_gaps {
            return Ok(false);
        }
        let (mut at, mut crc) = (self.range.start, 0);
        while at < self.range.end {
            if clock::instant() >= until {
                return Err(DiskError::Changed);
            }
            let len = usize::try_from(self.range.end - at).unwrap_or(PART).min(PART);
            let bytes = map.read(&**device, at, len).await?;
            if bytes.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, &bytes);
            at += bytes.len() as u64;
        }
        Ok(crc == self.crc)
    }
}
