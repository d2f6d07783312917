//! The partition table: MBR or GPT, read and numbered as Linux does (block/partitions of its sources).
//!
//! Of the kinds of table that Linux knows these are the two that boot disks have. The slices inside of a BSD, Minix, Solaris or
//! Unixware partition, which Linux numbers after all others, are not looked for.

mod gpt;
mod mbr;

use super::{Error, Volume};

/// The length of a sector: NBD exports have such ones unless somebody asks for others.
const SECTOR: u64 = 512;
/// The highest number that Linux gives to a partition: one less than `DISK_MAX_PARTS`.
const HIGHEST: u32 = 255;

/// A partition as Linux would show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number, the `1` of `sda1`.
    pub number: u32,
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

/// Gives the partitions of a disk, by number; none if it has no table.
///
/// A table that Linux does not believe is as good as none: one with a boot flag that is neither 0 nor 0x80, a protective MBR
/// without a valid GPT behind it (the copy at the end of the disk is not looked at), a GPT without a protective MBR before it.
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Unsupported`] for a GPT that was made for sectors of 4096 bytes.
pub async fn partitions(disk: &Volume) -> Result<Vec<Partition>, Error> {
    if disk.size() < SECTOR {
        return Ok(Vec::new());
    }
    let Some(entries) = mbr::entries(&disk.read(0, SECTOR as usize).await?) else { return Ok(Vec::new()) };
    // The order of block/partitions/core.c: `efi_partition` is asked before `msdos_partition`, which leaves a disk with a
    // protective entry alone, wherever that entry points.
    if entries.iter().any(mbr::Entry::is_protecting) {
        return gpt::partitions(disk).await;
    }
    if entries.iter().any(mbr::Entry::is_protective) || !entries.iter().all(mbr::Entry::is_plausible) {
        return Ok(Vec::new());
    }
    mbr::partitions(disk, &entries).await
}

impl Partition {
    /// A partition of `len` sectors from sector `start` on, as `blk_add_partition` of block/partitions/core.c makes it: one that
    /// starts behind the end of the disk is none, and one that ends behind it is cut.
    fn new(disk: &Volume, number: u32, start: u64, len: u64) -> Option<Self> {
        let len = len.min(sectors(disk).checked_sub(start)?);
        (len != 0).then(|| Self { number, start: start * SECTOR, len: len * SECTOR })
    }
}

/// How many whole sectors a disk has.
fn sectors(disk: &Volume) -> u64 {
    disk.size() / SECTOR
}

#[cfg(test)]
mod tests;
