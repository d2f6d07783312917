//! The GUID partition table (UEFI specification, chapter 5; block/partitions/efi.c).

use crc::{CRC_32_ISO_HDLC, Crc};

use super::entry::{Contents, MAX_NUMBER, Partition, SECTOR, UNITS, sectors};
use crate::fs::{
    Error, Volume,
    bytes::{array_at, le},
};

/// The checksum of a GPT (UEFI specification, 5.3.2).
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const SIGNATURE: [u8; 8] = *b"EFI PART";
/// The sector of the header.
const HEADER: u64 = 1;
/// The length of the fields of a header in bytes.
const HEADER_LEN: usize = 92;
/// The length of an entry in bytes, the only one that Linux accepts.
const ENTRY: usize = 128;
/// The maximum length of all entries in bytes. Linux cannot allocate more (`KMALLOC_MAX_SIZE`).
const MAX_ENTRIES_LEN: u64 = 4 << 20;
/// The number of bytes of the entries that are read at once. The first chunk holds all entries that get a number.
const CHUNK: u64 = (MAX_NUMBER as u64 + 1) * ENTRY as u64;

/// Returns the partitions of a disk with a protective MBR. The number of a partition is the index of its entry, from 1.
pub(super) async fn partitions(disk: &Volume) -> Result<Vec<Partition>, Error> {
    for unit in UNITS {
        let at = HEADER * unit;
        if disk.size() >= at + SECTOR && array_at(&disk.read(at, SIGNATURE.len()).await?, 0) == SIGNATURE {
            return partitions_of(disk, unit).await;
        }
    }
    Ok(Vec::new())
}

/// Returns the partitions of the table whose sectors have `unit` bytes.
async fn partitions_of(disk: &Volume, unit: u64) -> Result<Vec<Partition>, Error> {
    let Some(entries) = entries(disk, unit).await? else { return Ok(Vec::new()) };
    let (entries, _) = entries.as_chunks::<ENTRY>();
    let partition = |(number, entry): (u32, &[u8; ENTRY])| {
        let (first, last) = (le::u64_at(entry, 32), le::u64_at(entry, 40));
        // Unlike MBR partitions, those that exceed the disk are dropped, not truncated (`is_pte_valid`).
        let is_valid = array_at(entry, 0) != [0; 16] && first <= last && last < sectors(disk, unit);
        let contents = Contents::of_gpt_type(&array_at(entry, 0));
        if is_valid { Partition::new(disk, number, (first, last - first + 1), unit, contents) } else { None }
    };
    Ok((1..=MAX_NUMBER).zip(entries).filter_map(partition).collect())
}

/// Returns at least the entries that get a number; `None` if the table is not valid (`is_gpt_valid`).
async fn entries(disk: &Volume, unit: u64) -> Result<Option<Vec<u8>>, Error> {
    let header = disk.read(HEADER * unit, SECTOR as usize).await?;
    if !is_valid(&header, sectors(disk, unit)) {
        return Ok(None);
    }
    let len = u64::from(le::u32_at(&header, 80)) * ENTRY as u64;
    let start = le::u64_at(&header, 72);
    let fits = start.checked_add(len.div_ceil(unit)).is_some_and(|end| end <= sectors(disk, unit));
    if len == 0 || len > MAX_ENTRIES_LEN || !fits {
        return Ok(None);
    }
    let mut first = None;
    let mut crc = CRC.digest();
    for at in (0..len).step_by(CHUNK as usize) {
        let chunk = disk.read(start * unit + at, CHUNK.min(len - at) as usize).await?;
        crc.update(&chunk);
        first.get_or_insert(chunk);
    }
    Ok(first.filter(|_| crc.finalize() == le::u32_at(&header, 88)))
}

/// Returns whether a header is valid on a disk with this number of sectors.
fn is_valid(header: &[u8], sectors: u64) -> bool {
    let len = le::u32_at(header, 12) as usize;
    let Some(rest) = header.get(20..len).filter(|_| len >= HEADER_LEN) else { return false };
    // The checksum counts as zero in itself.
    let mut crc = CRC.digest();
    crc.update(header.get(..16).unwrap_or_default());
    crc.update(&[0; 4]);
    crc.update(rest);
    let (first_usable, last_usable) = (le::u64_at(header, 40), le::u64_at(header, 48));
    crc.finalize() == le::u32_at(header, 16)
        && le::u64_at(header, 24) == HEADER
        && first_usable <= last_usable
        && last_usable < sectors
        && le::u32_at(header, 84) as usize == ENTRY
}
