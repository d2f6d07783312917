//! The MBR and the chain of logical partitions in an extended partition (block/partitions/msdos.c).

use super::entry::{Contents, MAX_NUMBER, Partition, SECTOR, UNITS, sectors};
use crate::fs::{Error, Volume, bytes::le, probe};

/// The offset of the four entries in their sector.
const ENTRIES: usize = 446;
/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// The maximum number of consecutive tables without a partition in a chain.
const MAX_EMPTY_TABLES: u32 = 100;
/// The length in bytes, at least one sector, with which Linux shows an extended partition: enough for a boot loader, too short to be
/// formatted by mistake.
const EXTENDED_LEN: u64 = 1024;

/// An entry of a table. It is unused if its length is 0, whatever its type.
pub(super) struct Entry {
    boot_flag: u8,
    partition_type: u8,
    /// The first sector, relative to a sector that depends on the table.
    start: u64,
    /// The number of sectors.
    len: u64,
}

impl Entry {
    fn parse(bytes: &[u8; 16]) -> Self {
        let [boot_flag, _, _, _, partition_type, ..] = *bytes;
        Self { boot_flag, partition_type, start: le::u32_at(bytes, 8).into(), len: le::u32_at(bytes, 12).into() }
    }

    /// Returns whether this is the entry of a protective MBR, which announces a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.partition_type == 0xEE
    }

    /// Returns whether this is a protective entry that starts at the GPT (`pmbr_part_valid` in block/partitions/efi.c).
    pub(super) fn is_valid_protective(&self) -> bool {
        self.is_protective() && self.start == 1
    }

    /// Returns whether the boot flag is valid. In a boot sector without a table, there is code in its place.
    pub(super) fn has_valid_flag(&self) -> bool {
        matches!(self.boot_flag, 0 | 0x80)
    }

    fn contents(&self) -> Contents {
        Contents::of_mbr_type(self.partition_type)
    }

    fn is_extended(&self) -> bool {
        self.len != 0 && matches!(self.partition_type, 0x05 | 0x0F | 0x85)
    }

    fn is_data(&self) -> bool {
        self.len != 0 && !self.is_extended()
    }
}

/// Parses the four entries in a sector; `None` without the signature of a table.
pub(super) fn entries(sector: &[u8]) -> Option<[Entry; 4]> {
    let (entries, signature) = sector.get(ENTRIES..512)?.as_chunks();
    if signature != [0x55, 0xAA] {
        return None;
    }
    let [a, b, c, d] = entries else { return None };
    Some([a, b, c, d].map(Entry::parse))
}

/// Returns the primary partitions in the first sector and the logical partitions in the chains that start there.
///
/// An MBR does not contain the size of its sectors.
pub(super) async fn partitions(disk: &Volume, entries: &[Entry; 4]) -> Result<Vec<Partition>, Error> {
    let unit = unit(disk, entries).await?;
    let mut found = Vec::new();
    let mut next = FIRST_LOGICAL;
    for (number, entry) in (1..).zip(entries) {
        if entry.is_extended() {
            let shown = (entry.start, entry.len.min(EXTENDED_LEN.div_ceil(unit)));
            found.extend(Partition::new(disk, number, shown, unit, Contents::Unknown));
            next = logical(disk, unit, entry, next, &mut found).await?;
        } else {
            found.extend(Partition::new(disk, number, (entry.start, entry.len), unit, entry.contents()));
        }
    }
    found.sort_by_key(|partition| partition.number);
    Ok(found)
}

/// Returns the size of the sectors that a table was made for: the one with which the entries lead to known contents, if all of them
/// fit the disk. A usual disk costs no read: its partitions fit with 512 bytes only.
async fn unit(disk: &Volume, entries: &[Entry; 4]) -> Result<u64, Error> {
    let fits = |unit: &u64| entries.iter().all(|entry| entry.start + entry.len <= sectors(disk, *unit));
    let units: Vec<u64> = UNITS.into_iter().filter(|unit| *unit == SECTOR || fits(unit)).collect();
    if units.len() > 1 {
        for unit in units {
            for entry in entries {
                if is_known(disk, entry, unit).await? {
                    return Ok(unit);
                }
            }
        }
    }
    Ok(SECTOR)
}

/// Returns whether there are known contents where an entry leads to with sectors of `unit` bytes.
async fn is_known(disk: &Volume, entry: &Entry, unit: u64) -> Result<bool, Error> {
    let Some(found) = Partition::new(disk, 1, (entry.start, entry.len), unit, entry.contents()) else {
        return Ok(false);
    };
    let volume = disk.slice(found.start, found.len);
    if entry.is_extended() {
        return Ok(entries(&volume.read(0, SECTOR as usize).await?).is_some());
    }
    match probe(&volume).await {
        Ok(found) => Ok(found.is_some()),
        Err(Error::Corrupt(_) | Error::Unsupported(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Follows a chain of tables, numbers its logical partitions from `next`, and returns the next free number.
///
/// The start of a partition is relative to its table, the start of the next table to the extended partition. A chain may point
/// outside the disk, loop, or be endless; it ends where `parse_extended` ends it.
async fn logical(
    disk: &Volume,
    unit: u64,
    extended: &Entry,
    mut next: u32,
    found: &mut Vec<Partition>,
) -> Result<u32, Error> {
    let (mut start, mut len) = (extended.start, extended.len);
    let mut empty_tables = 0;
    while empty_tables < MAX_EMPTY_TABLES && next <= MAX_NUMBER && start < sectors(disk, unit) {
        let Some(entries) = entries(&disk.read(start * unit, SECTOR as usize).await?) else { break };
        empty_tables += 1;
        for (slot, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.is_data()) {
            let first = start + entry.start;
            // Only the first two slots are in regular use; the others may contain garbage.
            let is_inside = entry.start + entry.len <= len && first + entry.len <= extended.start + extended.len;
            if next <= MAX_NUMBER && (slot < 2 || is_inside) {
                found.extend(Partition::new(disk, next, (first, entry.len), unit, entry.contents()));
                next += 1;
                empty_tables = 0;
            }
        }
        let Some(link) = entries.iter().find(|entry| entry.is_extended()) else { break };
        (start, len) = (extended.start + link.start, link.len);
    }
    Ok(next)
}
