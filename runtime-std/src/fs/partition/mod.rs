//! Partition tables: MBR and GPT, parsed and numbered like Linux (block/partitions in its sources).
//!
//! Of the table formats that Linux supports, these are the two found on boot disks. Slices inside a BSD, Minix, Solaris or Unixware
//! partition, which Linux numbers after all other partitions, are not supported.

mod entry;
mod gpt;
mod mbr;

pub(super) use self::entry::SECTOR;
pub use self::entry::{Contents, Partition};
use super::{Error, Volume};

/// Returns the partitions of a disk, sorted by number; none if it has no valid table.
///
/// The following are not valid, as in Linux: a boot flag that is neither 0 nor 0x80, a protective MBR without a valid primary GPT
/// (the backup at the end of the disk is ignored), and a GPT without a protective MBR.
///
/// # Errors
///
/// [`Error::Io`].
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

/// Describes what a disk without a valid table has in its place, and what to do; `None` if it is unknown.
///
/// # Errors
///
/// [`Error::Io`].
pub async fn describe_missing(disk: &Volume) -> Result<Option<&'static str>, Error> {
    const GPT: &str = "EFI PART";
    /// Labels that are not supported: offset, signature, text.
    const LABELS: [(u64, &[u8], &str); 5] = [
        (0x200, b"PM\0\0", "an Apple partition map, which is not supported: use GPT or MBR"),
        (0x1fc, b"\xda\xbe", "a Sun label, which is not supported: use GPT or MBR"),
        (0x200, b"\x57\x45\x56\x82", "a BSD label, which is not supported: use GPT or MBR"),
        (0, b"RDSK", "an Amiga partition table, which is not supported: use GPT or MBR"),
        (0x200, b"RDSK", "an Amiga partition table, which is not supported: use GPT or MBR"),
    ];
    let read = async |offset: u64, len: usize| match offset.checked_add(len as u64) {
        Some(end) if end <= disk.size() => disk.read(offset, len).await,
        _ => Ok(Vec::new()),
    };
    if read(SECTOR, 8).await? == GPT.as_bytes() {
        return Ok(Some(
            "a GPT that is damaged, or larger than the disk: repair it with `gdisk` or `sgdisk --move-second-header`",
        ));
    }
    if read((disk.size() / SECTOR).saturating_sub(1) * SECTOR, 8).await? == GPT.as_bytes() {
        return Ok(Some("only the backup of a GPT: repair it with `gdisk`"));
    }
    for (offset, signature, text) in LABELS {
        if read(offset, signature.len()).await? == signature {
            return Ok(Some(text));
        }
    }
    match super::probe(disk).await {
        Ok(Some(_)) => Ok(Some("a file system without a partition table: write \"partition\": 0")),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
