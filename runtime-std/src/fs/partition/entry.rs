//! A partition, as both kinds of tables describe it.

use crate::fs::Volume;

/// The size of a sector in bytes. NBD exports have sectors of this size unless a client requests another.
pub(super) const SECTOR: u64 = 512;
/// The highest partition number in Linux: `DISK_MAX_PARTS` - 1.
pub(super) const MAX_NUMBER: u32 = 255;

/// A partition as Linux would show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// The number, such as the `1` of `sda1`.
    pub number: u32,
    /// The offset on the disk in bytes.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
}

impl Partition {
    /// Creates a partition of `len` sectors at sector `start`, like `blk_add_partition` in block/partitions/core.c: `None` if it
    /// starts beyond the end of the disk, truncated if it ends there.
    pub(super) fn new(disk: &Volume, number: u32, start: u64, len: u64) -> Option<Self> {
        let len = len.min(sectors(disk).checked_sub(start)?);
        (len != 0).then(|| Self { number, start: start * SECTOR, len: len * SECTOR })
    }
}

/// Returns the number of whole sectors of a disk.
pub(super) fn sectors(disk: &Volume) -> u64 {
    disk.size() / SECTOR
}
