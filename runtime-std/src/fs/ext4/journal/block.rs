//! The format of the log's own blocks: descriptor, commit and revoke blocks (Linux, `include/linux/jbd2.h`). Integers are big-endian.

use super::{
    checksum::ChecksumMode,
    superblock::{JournalSuperblock, MAGIC},
};
use crate::fs::bytes::be;

/// The size of a block's header (`journal_header_t`) in bytes.
const HEADER: usize = 12;

/// The type of a block (`h_blocktype`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockType {
    /// Lists the copies of blocks that follow.
    Descriptor,
    /// Ends a transaction.
    Commit,
    /// Lists blocks whose earlier copies are invalid.
    Revoke,
}

/// Returns the type of a block of the transaction `sequence`; `None` for a copy, a block of an earlier pass of the log, or anything
/// else.
pub(super) fn block_type(block: &[u8], sequence: u32) -> Option<BlockType> {
    if be::u32_at(block, 0) != MAGIC || be::u32_at(block, 8) != sequence {
        return None;
    }
    match be::u32_at(block, 4) {
        1 => Some(BlockType::Descriptor),
        2 => Some(BlockType::Commit),
        5 => Some(BlockType::Revoke),
        _ => None,
    }
}

/// A tag of a descriptor block, which describes one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// The block of the file system.
    pub(super) block: u64,
    /// Whether the first four bytes of the block are [`MAGIC`], and zeros in the copy.
    pub(super) is_escaped: bool,
    /// The checksum of the copy, or its low 16 bits.
    pub(super) checksum: u32,
}

/// Parses the tags of a descriptor block, one for each copy that follows.
pub(super) fn tags(block: &[u8], superblock: &JournalSuperblock) -> Vec<Tag> {
    const FLAG_ESCAPE: u16 = 1;
    const FLAG_SAME_UUID: u16 = 2;
    const FLAG_LAST_TAG: u16 = 8;
    let is_64bit = superblock.is_64bit;
    // A tag of version 2 has two unused bytes at its end.
    let tag_size = match (superblock.checksum_mode, is_64bit) {
        (ChecksumMode::V3(_), _) => 16,
        (ChecksumMode::V2(_), true) => 14,
        (ChecksumMode::V2(_), false) => 10,
        (ChecksumMode::None | ChecksumMode::V1, true) => 12,
        (ChecksumMode::None | ChecksumMode::V1, false) => 8,
    };
    let mut rest = without_tail(block, superblock.checksum_mode).get(HEADER..).unwrap_or_default();
    let mut tags = Vec::new();
    while let Some((tag, after)) = rest.split_at_checked(tag_size) {
        let (low, flags) = (be::u32_at(tag, 0), be::u16_at(tag, 6));
        let high = if is_64bit { be::u32_at(tag, 8) } else { 0 };
        let checksum = match superblock.checksum_mode {
            ChecksumMode::V3(_) => be::u32_at(tag, 12),
            _ => be::u16_at(tag, 4).into(),
        };
        let block = u64::from(high) << 32 | u64::from(low);
        tags.push(Tag { block, is_escaped: flags & FLAG_ESCAPE != 0, checksum });
        if flags & FLAG_LAST_TAG != 0 {
            break;
        }
        // The UUID of a file system: the format allows several file systems to share a journal.
        let uuid_size = if flags & FLAG_SAME_UUID == 0 { 16 } else { 0 };
        rest = after.get(uuid_size..).unwrap_or_default();
    }
    tags
}

/// Parses the block numbers in a revoke block; `None` if its length (`r_count`) exceeds the block.
pub(super) fn revoked_blocks<'a>(
    block: &'a [u8],
    superblock: &JournalSuperblock,
) -> Option<impl Iterator<Item = u64> + use<'a>> {
    let used = usize::try_from(be::u32_at(block, HEADER)).ok()?;
    let records = without_tail(block, superblock.checksum_mode).get(HEADER + 4..used.max(HEADER + 4))?;
    let record_size = if superblock.is_64bit { 8 } else { 4 };
    let block_number = |record: &[u8]| record.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some(records.chunks_exact(record_size).map(block_number))
}

/// Returns the time of a commit block (`h_commit_sec`) in seconds since 1970, by the clock of the system that wrote it.
pub(super) fn commit_time(block: &[u8]) -> u64 {
    be::u64_at(block, 48)
}

/// Returns whether the first block of the fast commit area contains fast commits on top of the transaction before `sequence`. Their
/// records are ext4's and little-endian (`fs/ext4/fast_commit.h`).
pub(super) fn is_fast_commit(block: &[u8], sequence: u32) -> bool {
    // `EXT4_FC_TAG_HEAD` (9) of 8 bytes: features and sequence.
    block.starts_with(&[9, 0, 8, 0]) && block.get(8..12) == Some(&sequence.to_le_bytes())
}

/// Returns a descriptor or revoke block without its checksum.
fn without_tail(block: &[u8], checksum_mode: ChecksumMode) -> &[u8] {
    block.get(..block.len().saturating_sub(checksum_mode.tail_size())).unwrap_or_default()
}
