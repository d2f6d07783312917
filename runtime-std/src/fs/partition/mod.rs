//! Partition tables: MBR and GPT, parsed and numbered like Linux (block/partitions in its sources).
//!
//! Of the table formats that Linux supports, these are the two found on boot disks. Slices inside a BSD, Minix, Solaris or Unixware
//! partition, which Linux numbers after all other partitions, are not supported.

mod entry;
mod gpt;
mod mbr;

use self::entry::SECTOR;
pub use self::entry::{Contents, Partition};
use super::{Error, Volume};

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

#[cfg(test)]
mod tests;
