//! The table of an MBR, and the chain of logical partitions inside of an extended one (block/partitions/msdos.c).

use super::{HIGHEST, Partition, SECTOR, sectors};
use crate::fs::{Error, Volume, bytes::le};

/// Where the four entries begin in their sector.
const ENTRIES: usize = 446;
/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// How many tables of a chain in a row may have no partition.
const MOST_EMPTY: u32 = 100;
/// How much of an extended partition Linux shows, in sectors: room for a boot loader, and too little to be formatted by mistake.
const EXTENDED_LEN: u64 = 2;

/// An entry of a table.
pub(super) struct Entry {
    flag: u8,
    kind: u8,
    /// The first sector, counted from where the table says.
    start: u64,
    /// How many sectors it has; an entry without any is not in use, whatever its type.
    len: u64,
}

impl Entry {
    fn new(bytes: &[u8; 16]) -> Self {
        let [flag, _, _, _, kind, ..] = *bytes;
        Self { flag, kind, start: le::u32_at(bytes, 8).into(), len: le::u32_at(bytes, 12).into() }
    }

    /// Whether it says that the disk has a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.kind == 0xEE
    }

    /// Whether it says so as `pmbr_part_valid` of block/partitions/efi.c wants it: beginning where the GPT does.
    pub(super) fn is_protecting(&self) -> bool {
        self.is_protective() && self.start == 1
    }

    /// Whether its boot flag is one: other bytes in that place are a boot sector's code.
    pub(super) fn is_plausible(&self) -> bool {
        matches!(self.flag, 0 | 0x80)
    }

    fn is_extended(&self) -> bool {
        self.len != 0 && matches!(self.kind, 0x05 | 0x0F | 0x85)
    }

    fn is_data(&self) -> bool {
        self.len != 0 && !self.is_extended()
    }
}

/// The entries of a sector, if it has the signature of one with a table.
pub(super) fn entries(sector: &[u8]) -> Option<[Entry; 4]> {
    let (entries, signature) = sector.get(ENTRIES..512)?.as_chunks();
    if signature != [0x55, 0xAA] {
        return None;
    }
    let [a, b, c, d] = entries else { return None };
    Some([a, b, c, d].map(Entry::new))
}

/// The partitions that a disk's first sector and the chains that begin there name.
pub(super) async fn partitions(disk: &Volume, entries: &[Entry; 4]) -> Result<Vec<Partition>, Error> {
    let mut found = Vec::new();
    let mut next = FIRST_LOGICAL;
    for (number, entry) in (1..).zip(entries) {
        if entry.is_extended() {
            found.extend(Partition::new(disk, number, entry.start, entry.len.min(EXTENDED_LEN)));
            next = logical(disk, entry, next, &mut found).await?;
        } else {
            found.extend(Partition::new(disk, number, entry.start, entry.len));
        }
    }
    found.sort_by_key(|partition| partition.number);
    Ok(found)
}

/// Follows a chain of tables, numbers what it finds from `next` on, and gives the number after that.
///
/// A partition is counted from its table, the next table from the start of the extended partition. A chain may lead nowhere, go in
/// circles, or go on for ever: it ends where `parse_extended` ends it.
async fn logical(disk: &Volume, extended: &Entry, mut next: u32, found: &mut Vec<Partition>) -> Result<u32, Error> {
    let (mut start, mut len) = (extended.start, extended.len);
    let mut empty = 0;
    while empty < MOST_EMPTY && next <= HIGHEST && start < sectors(disk) {
        let Some(entries) = entries(&disk.read(start * SECTOR, SECTOR as usize).await?) else { break };
        empty += 1;
        for (slot, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.is_data()) {
            let place = start + entry.start;
            // Only the first two are in regular use, the others may be left-over bytes.
            let inside = entry.start + entry.len <= len && place + entry.len <= extended.start + extended.len;
            if next <= HIGHEST && (slot < 2 || inside) {
                found.extend(Partition::new(disk, next, place, entry.len));
                next += 1;
                empty = 0;
            }
        }
        let Some(link) = entries.iter().find(|entry| entry.is_extended()) else { break };
        (start, len) = (extended.start + link.start, link.len);
    }
    Ok(next)
}
