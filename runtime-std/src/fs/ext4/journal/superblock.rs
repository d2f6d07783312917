//! The superblock of the journal (`journal_superblock_t` in Linux, `include/linux/jbd2.h`).

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
};

use super::checksum::{ChecksumMode, matches_checksum};
use crate::fs::{BlockDevice, Error, FileMap, bytes::be};

/// The magic number of the superblock and of descriptor, commit and revoke blocks (`JBD2_MAGIC_NUMBER`).
pub(in super::super) const MAGIC: u32 = 0xc03b_3998;

/// The range of block sizes in bytes.
const BLOCK_SIZES: RangeInclusive<u32> = 1024..=65_536;
/// The size of the superblock in bytes.
const LEN: usize = 1024;
/// The offset of the checksum (`s_checksum`).
const CHECKSUM: usize = 0xfc;

const COMPAT_CHECKSUM: u32 = 1;
const INCOMPAT_REVOKE: u32 = 1;
const INCOMPAT_64BIT: u32 = 2;
const INCOMPAT_ASYNC_COMMIT: u32 = 4;
const INCOMPAT_CSUM_V2: u32 = 8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_SUPPORTED: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

/// The default size of the fast commit area in blocks (`JBD2_DEFAULT_FAST_COMMIT_BLOCKS`).
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
/// The minimum size of a log beside a fast commit area, in blocks (`JBD2_MIN_JOURNAL_BLOCKS`).
const MIN_LOG_BLOCKS: u32 = 1024;

/// The fields of the superblock that the driver uses. `s_errno` is not one of them: it records an error of the mounted file system,
/// and Linux replays the log regardless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalSuperblock {
    /// The size of a block in bytes.
    pub(super) block_size: u32,
    /// The blocks of the circular log.
    pub(super) log_blocks: Range<u32>,
    /// The first block of the oldest transaction (`s_start`); `None` if the log is empty.
    pub(super) tail: Option<u32>,
    /// The sequence number of that transaction.
    pub(super) sequence: u32,
    /// Whether block numbers have 64 bits.
    pub(super) is_64bit: bool,
    /// The checksums of the log.
    pub(super) checksum_mode: ChecksumMode,
    /// The first block of the fast commit area.
    pub(super) first_fast_commit: Option<u32>,
}

impl JournalSuperblock {
    /// Reads the superblock; `block_size` is that of the file system in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn read(log: &FileMap, disk: &dyn BlockDevice, block_size: u32) -> Result<Self, Error> {
        let bytes = log.read(disk, 0, LEN).await?;
        let file_blocks = log.size / u64::from(block_size.max(1));
        Self::parse(&bytes, block_size, file_blocks)
    }

    /// Parses the superblock; `file_blocks` is the size of the journal's file in blocks.
    fn parse(bytes: &[u8], block_size: u32, file_blocks: u64) -> Result<Self, Error> {
        if bytes.len() < LEN {
            return Err(corrupt("too short"));
        }
        let field = |at| be::u32_at(bytes, at);
        let is_version_1 = match (field(0), field(4)) {
            (MAGIC, 3) => true,
            (MAGIC, 4) => false,
            _ => return Err(corrupt("invalid magic number")),
        };
        let stored_block_size = field(0xc);
        let is_valid = stored_block_size.is_power_of_two() && BLOCK_SIZES.contains(&stored_block_size);
        if stored_block_size != block_size || !is_valid {
            return Err(corrupt(format!("block size {stored_block_size}, but {block_size} in its file system")));
        }
        // Version 1 has no feature words; the rest of its block is undefined.
        let [compat, incompat, ro_compat] = if is_version_1 { [0; 3] } else { [0x24, 0x28, 0x2c].map(field) };
        for (kind, unknown) in [("incompatible", incompat & !INCOMPAT_SUPPORTED), ("read-only", ro_compat)] {
            if unknown != 0 {
                return Err(Error::unsupported("journal", format!("unknown {kind} features {unknown:#x}")));
            }
        }
        let checksum_mode = checksum_mode(bytes, compat, incompat)?;

        let block_count = field(0x10);
        if u64::from(block_count) > file_blocks {
            return Err(corrupt(format!("{block_count} blocks, but only {file_blocks} in its file")));
        }
        let (end, first_fast_commit) = match incompat & INCOMPAT_FAST_COMMIT {
            0 => (block_count, None),
            _ => fast_commit_area(block_count, field(0x54)),
        };
        let (first, tail, sequence) = (field(0x14), field(0x1c), field(0x18));
        let log_blocks = first..end;
        if first == 0 || log_blocks.is_empty() || (tail != 0 && !log_blocks.contains(&tail)) {
            return Err(corrupt(format!("log of blocks {first} to {end} starts at block {tail}")));
        }
        Ok(Self {
            block_size,
            log_blocks,
            tail: (tail != 0).then_some(tail),
            sequence,
            is_64bit: incompat & INCOMPAT_64BIT != 0,
            checksum_mode,
            first_fast_commit,
        })
    }
}

/// Returns the checksums of the log, after verifying that of the superblock. They start with the journal's UUID, which is a copy of
/// the file system's but does not follow later changes of that.
fn checksum_mode(bytes: &[u8], compat: u32, incompat: u32) -> Result<ChecksumMode, Error> {
    const CRC32C: u8 = 4;
    let uuid = || bytes.get(0x30..).and_then(<[u8]>::first_chunk).copied().ok_or_else(|| corrupt("too short"));
    let mode = match (compat & COMPAT_CHECKSUM != 0, incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3)) {
        (false, 0) => return Ok(ChecksumMode::None),
        (true, 0) => return Ok(ChecksumMode::V1),
        (false, INCOMPAT_CSUM_V2) => ChecksumMode::V2(uuid()?),
        (false, INCOMPAT_CSUM_V3) => ChecksumMode::V3(uuid()?),
        _ => return Err(corrupt("conflicting types of checksums")),
    };
    match bytes.get(0x50) {
        Some(&CRC32C) if matches_checksum(&[], bytes, CHECKSUM) => Ok(mode),
        Some(&CRC32C) => Err(corrupt("checksum mismatch")),
        Some(other) => Err(Error::unsupported("journal", format!("unknown checksum type {other}"))),
        None => Err(corrupt("too short")),
    }
}

/// Returns the end of the log and the first block of the fast commit area in a journal of `block_count` blocks. One block between
/// them is unused. As in Linux, there is no such area if the log would become too small.
fn fast_commit_area(block_count: u32, fast_commit_blocks: u32) -> (u32, Option<u32>) {
    let fast_commit_blocks = if fast_commit_blocks == 0 { DEFAULT_FAST_COMMIT_BLOCKS } else { fast_commit_blocks };
    match block_count.checked_sub(fast_commit_blocks) {
        Some(end) if end >= MIN_LOG_BLOCKS => (end, end.checked_add(1).filter(|first| *first < block_count)),
        _ => (block_count, None),
    }
}

fn corrupt(what: impl Into<Cow<'static, str>>) -> Error {
    Error::corrupt("journal superblock", what)
}
