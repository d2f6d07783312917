//! The GPT (UEFI specification, chapter 5; block/partitions/efi.c).

use crc::{CRC_32_ISO_HDLC, Crc};

use super::{HIGHEST, Partition, SECTOR, sectors};
use crate::fs::{
    Error, Volume,
    bytes::{array_at, le},
};

/// The checksum of a GPT (UEFI specification, 5.3.2).
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const SIGNATURE: [u8; 8] = *b"EFI PART";
/// The sector that the header is in.
const HEADER: u64 = 1;
/// How long the fields of a header are.
const HEADER_LEN: usize = 92;
/// How long an entry is; Linux believes no other length.
const ENTRY: usize = 128;
/// How long all entries together may be: more than Linux would have memory for (`KMALLOC_MAX_SIZE`) is not believed.
const LONGEST: u64 = 4 << 20;
/// How much of the entries is read at once; the first piece has all that can get a number.
const PIECE: u64 = (HIGHEST as u64 + 1) * ENTRY as u64;

/// The partitions of a disk with a protective MBR: an entry's number is its place in the table.
pub(super) async fn partitions(disk: &Volume) -> Result<Vec<Partition>, Error> {
    let Some(entries) = entries(disk).await? else { return Ok(Vec::new()) };
    let (entries, _) = entries.as_chunks::<ENTRY>();
    let partition = |(number, entry): (u32, &[u8; ENTRY])| {
        let (first, last) = (le::u64_at(entry, 32), le::u64_at(entry, 40));
        // What MBR partitions are cut for, these are dropped for (`is_pte_valid`).
        let valid = array_at(entry, 0) != [0; 16] && first <= last && last < sectors(disk);
        if valid { Partition::new(disk, number, first, last - first + 1) } else { None }
    };
    Ok((1..=HIGHEST).zip(entries).filter_map(partition).collect())
}

/// The first entries, at least those that can get a number; `None` if `is_gpt_valid` would not believe in them.
async fn entries(disk: &Volume) -> Result<Option<Vec<u8>>, Error> {
    if sectors(disk) <= HEADER {
        return Ok(None);
    }
    let header = disk.read(HEADER * SECTOR, SECTOR as usize).await?;
    if array_at(&header, 0) != SIGNATURE {
        return refuse_long_sectors(disk).await;
    }
    if !is_valid(&header, sectors(disk)) {
        return Ok(None);
    }
    let len = u64::from(le::u32_at(&header, 80)) * ENTRY as u64;
    let start = le::u64_at(&header, 72);
    let fits = start.checked_add(len.div_ceil(SECTOR)).is_some_and(|end| end <= sectors(disk));
    if len == 0 || len > LONGEST || !fits {
        return Ok(None);
    }
    let mut first = None;
    let mut sum = CRC.digest();
    for at in (0..len).step_by(PIECE as usize) {
        let piece = disk.read(start * SECTOR + at, PIECE.min(len - at) as usize).await?;
        sum.update(&piece);
        first.get_or_insert(piece);
    }
    Ok(first.filter(|_| sum.finalize() == le::u32_at(&header, 88)))
}

/// Whether a header is one, of a disk of so many sectors.
fn is_valid(header: &[u8], sectors: u64) -> bool {
    let len = le::u32_at(header, 12) as usize;
    let Some(rest) = header.get(20..len).filter(|_| len >= HEADER_LEN) else { return false };
    // Its checksum is made as if it were zero.
    let mut sum = CRC.digest();
    sum.update(header.get(..16).unwrap_or_default());
    sum.update(&[0; 4]);
    sum.update(rest);
    let (first_usable, last_usable) = (le::u64_at(header, 40), le::u64_at(header, 48));
    sum.finalize() == le::u32_at(header, 16)
        && le::u64_at(header, 24) == HEADER
        && first_usable <= last_usable
        && last_usable < sectors
        && le::u32_at(header, 84) as usize == ENTRY
}

/// Where there is no header: says so in words if there is one for longer sectors, which Linux would find on a disk that has them.
async fn refuse_long_sectors(disk: &Volume) -> Result<Option<Vec<u8>>, Error> {
    let place = HEADER * 4096;
    if disk.size() >= place + SECTOR && array_at(&disk.read(place, SIGNATURE.len()).await?, 0) == SIGNATURE {
        return Err(Error::unsupported(
            "partition table",
            "made for sectors of 4096 bytes, but the disk has sectors of 512",
        ));
    }
    Ok(None)
}
