//! Records: what Linux writes to the log at once (`struct xlog_rec_header`).

use super::{
    position::{Position, corrupt},
    ring::{BLOCK, RECORD_MAGIC, Ring, cycle_of},
};
use crate::fs::{
    Error,
    bytes::{array_at, be, le},
    xfs::{checksum::crc_without, superblock::Superblock},
};

/// The maximum size of the data of a record in bytes (`XLOG_MAX_RECORD_BSIZE`).
pub(super) const MAX_LEN: usize = 256 << 10;
/// The data whose first words one header block has room for, in bytes (`XLOG_HEADER_CYCLE_SIZE`).
const DATA_PER_HEADER: usize = 32 << 10;
/// The number of blocks of this data.
const BLOCKS_PER_HEADER: usize = DATA_PER_HEADER / BLOCK;
/// The offsets of these words in the first header block and in the others.
const WORDS_IN_FIRST: usize = 44;
const WORDS_IN_OTHERS: usize = 4;
/// The offset of the checksum.
const CRC: usize = 32;
/// The lengths of the header that the checksum may cover: those of 64-bit and 32-bit systems.
pub(super) const CRC_HEADER_LENS: [usize; 2] = [328, 324];
/// The length of further header blocks that the checksum covers.
const CRC_OTHER_LEN: usize = 260;
/// The flag of `h_version` of records that may have several header blocks.
const VERSION_2: u32 = 2;
/// The byte order of the system that has written the record (`h_fmt`).
const LITTLE_ENDIAN: u32 = 1;
const BIG_ENDIAN: [u32; 2] = [2, 3];

/// A complete record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) start: Position,
    /// The position of the block after the record.
    pub(super) end: Position,
    /// The position of the oldest record that was needed when this one was written.
    pub(super) tail: Position,
    /// The number of operations.
    pub(super) operations: u32,
    /// The operations.
    pub(super) data: Vec<u8>,
}

impl Record {
    /// Reads the record at a position; `None` if there is no complete one, which was written in this cycle.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the record belongs to another file system, [`Error::Unsupported`] if a big-endian system has written
    /// it, [`Error::TooMuchWork`], [`Error::Io`].
    pub(super) async fn read(ring: &Ring<'_>, start: Position, superblock: &Superblock) -> Result<Option<Self>, Error> {
        let first = ring.read(start.block, 1).await?;
        let Some((header_blocks, len)) = Self::layout(&first, start) else { return Ok(None) };
        let data_blocks = len.div_ceil(BLOCK) as u32;
        if header_blocks + data_blocks > ring.blocks {
            return Ok(None);
        }
        let bytes = ring.read(start.block, header_blocks + data_blocks).await?;
        // The first block may have been overwritten between the two reads.
        if !bytes.starts_with(&first) {
            return Ok(None);
        }
        let uuid: [u8; 16] = array_at(&bytes, 304);
        if uuid != superblock.uuid && uuid != [0; 16] {
            return Err(corrupt("contains records of another file system"));
        }
        match be::u32_at(&bytes, 300) {
            LITTLE_ENDIAN => {}
            format if BIG_ENDIAN.contains(&format) => {
                return Err(Error::unsupported("log", "written by a big-endian system"));
            }
            format => return Err(Error::unsupported("log", format!("unknown format {format}"))),
        }
        let is_written = bytes.chunks(BLOCK).zip(0..).all(|(block, at)| cycle_of(block) == ring.after(start, at).cycle);
        let (headers, data) = bytes.split_at_checked(header_blocks as usize * BLOCK).unwrap_or_default();
        if !is_written || !Self::has_valid_checksum(headers, data.get(..len).unwrap_or_default(), superblock) {
            return Ok(None);
        }
        Ok(Some(Self {
            start,
            end: ring.after(start, header_blocks + data_blocks),
            tail: Position::from_lsn(be::u64_at(headers, 24)),
            operations: be::u32_at(headers, 40),
            data: Self::restore(headers, data, len),
        }))
    }

    /// Returns the number of header blocks, and the length of the data in bytes.
    fn layout(header: &[u8], start: Position) -> Option<(u32, usize)> {
        let (version, len, size) =
            (be::u32_at(header, 8), be::u32_at(header, 12) as usize, be::u32_at(header, 320) as usize);
        let is_record = be::u32_at(header, 0) == RECORD_MAGIC
            && be::u32_at(header, 4) == start.cycle
            && be::u64_at(header, 16) == start.lsn();
        let header_blocks = if version & VERSION_2 != 0 { size.div_ceil(DATA_PER_HEADER).max(1) } else { 1 };
        (is_record && size <= MAX_LEN && (1..=MAX_LEN).contains(&len)).then_some((header_blocks as u32, len))
    }

    /// Verifies the checksum, which covers the blocks as they are in the log. Records of mkfs have none.
    fn has_valid_checksum(headers: &[u8], data: &[u8], superblock: &Superblock) -> bool {
        let stored = le::u32_at(headers, CRC);
        if stored == 0 && (be::u32_at(headers, 40) == 1 || !superblock.features.is_v5) {
            return true;
        }
        let covered = headers.chunks(BLOCK).take(data.len().div_ceil(DATA_PER_HEADER));
        CRC_HEADER_LENS.into_iter().any(|len| checksum(covered.clone(), data, len) == stored)
    }

    /// Returns the data with the words that the cycles have replaced, which the headers contain.
    fn restore(headers: &[u8], data: &[u8], len: usize) -> Vec<u8> {
        let mut data = data.to_vec();
        for (number, block) in data.chunks_mut(BLOCK).enumerate() {
            let (header, word) = (number / BLOCKS_PER_HEADER, number % BLOCKS_PER_HEADER);
            let words = if header == 0 { WORDS_IN_FIRST } else { WORDS_IN_OTHERS };
            let word: [u8; 4] = array_at(headers, header * BLOCK + words + 4 * word);
            block.iter_mut().zip(word).for_each(|(byte, restored)| *byte = restored);
        }
        data.truncate(len);
        data
    }
}

/// Returns the checksum of a record, of whose first header block it covers `header_len` bytes.
pub(super) fn checksum<'a>(mut headers: impl Iterator<Item = &'a [u8]>, data: &[u8], header_len: usize) -> u32 {
    let first = crc_without(headers.next().and_then(|first| first.get(..header_len)).unwrap_or_default(), CRC);
    let headers =
        headers.fold(first, |crc, header| crc32c::crc32c_append(crc, header.get(..CRC_OTHER_LEN).unwrap_or_default()));
    crc32c::crc32c_append(headers, data)
}
