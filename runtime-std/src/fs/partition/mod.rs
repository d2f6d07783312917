//! Partition tables: MBR and GPT, parsed and numbered like Linux (block/partitions in its sources).
//!
//! Of the table formats that Linux supports, these are the two found on boot disks. Slices inside a BSD, Minix, Solaris or Unixware
//! partition, which Linux numbers after all other partitions, are not supported.

mod gpt;
mod mbr;

use super::{Error, Volume};

/// The size of a sector in bytes. NBD exports have sectors of this size unless a client requests another.
const SECTOR: u64 = 512;
/// The highest partition number in Linux: `DISK_MAX_PARTS` - 1.
const MAX_NUMBER: u32 = 255;

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

/// Returns the partitions of a disk, sorted by number; none if it has no valid table.
///
/// The following are not valid, as in Linux: a boot flag that is neither 0 nor 0x80, a protective MBR without a valid primary GPT
/// (the backup at the end of the disk is ignored), and a GPT without a protective MBR.
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Unsupported`] for a GPT for sectors of 4096 bytes.
pub async fn partitions(disk: &Volume) -> Result<Vec<Partition>, Error> {
    if disk.size() < SECTOR {
        return Ok(Vec::new());
    }
    let Some(entries) = mbr::entries(&disk.read(0, SECTOR as usize).await?) else { return Ok(Vec::new()) };
    // The order in block/partitions/core.c: first `efi_partition`, then `msdos_partition`, which ignores a disk with a protective
    // entry, whatever its start.
    if entries.iter().any(mbr::Entry::is_valid_protective) {
        return gpt::partitions(disk).await;
    }
    if entries.iter().any(mbr::Entry::is_protective) || !entries.iter().all(mbr::Entry::has_valid_flag) {
        return Ok(Vec::new());
    }
    mbr::partitions(disk, &entries).await
}

impl Partition {
    /// Creates a partition of `len` sectors at sector `start`, like `blk_add_partition` in block/partitions/core.c: `None` if it
    /// starts beyond the end of the disk, truncated if it ends there.
    fn new(disk: &Volume, number: u32, start: u64, len: u64) -> Option<Self> {
        let len = len.min(sectors(disk).checked_sub(start)?);
        (len != 0).then(|| Self { number, start: start * SECTOR, len: len * SECTOR })
    }
}

/// Returns the number of whole sectors of a disk.
fn sectors(disk: &Volume) -> u64 {
    disk.size() / SECTOR
}

#[cfg(test)]
mod tests;
