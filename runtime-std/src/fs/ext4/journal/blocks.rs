//! What the blocks of a log say. All numbers are big-endian.

use super::{checksum::Checksums, superblock::Superblock};
use crate::fs::bytes::be;

/// What each block of the log that is not a copy begins with.
pub(super) const MAGIC: u32 = 0xc03b_3998;

/// How long the beginning of such a block is, in bytes.
const HEADER: usize = 12;

/// What a block of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Says which blocks the copies behind it belong to.
    Descriptor,
    /// Ends a transaction.
    Commit,
    /// Says which older copies are not valid any longer.
    Revoke,
}

/// What a block of transaction `sequence` is. `None` for a copy, for what an older lap of the log left behind, for anything else.
pub(super) fn kind(block: &[u8], sequence: u32) -> Option<Kind> {
    if be::u32_at(block, 0) != MAGIC || be::u32_at(block, 8) != sequence {
        return None;
    }
    match be::u32_at(block, 4) {
        1 => Some(Kind::Descriptor),
        2 => Some(Kind::Commit),
        5 => Some(Kind::Revoke),
        _ => None,
    }
}

/// What a descriptor says of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// The block of the file system.
    pub(super) block: u64,
    /// Whether its first four bytes are [`MAGIC`], with zeros in their place in the log.
    pub(super) escaped: bool,
    /// The sum of the copy.
    pub(super) sum: u32,
}

/// The tags of a descriptor, one for each copy behind it.
pub(super) fn tags(block: &[u8], superblock: &Superblock) -> Vec<Tag> {
    const ESCAPED: u16 = 1;
    const SAME_UUID: u16 = 2;
    const LAST: u16 = 8;
    let wide = superblock.wide;
    // The second version has two bytes more than it uses.
    let len = match (superblock.checksums, wide) {
        (Checksums::V3(_), _) => 16,
        (Checksums::V2(_), true) => 14,
        (Checksums::V2(_), false) => 10,
        (Checksums::None | Checksums::V1, true) => 12,
        (Checksums::None | Checksums::V1, false) => 8,
    };
    let mut rest = without_tail(block, superblock.checksums).get(HEADER..).unwrap_or_default();
    let mut tags = Vec::new();
    while let Some((tag, behind)) = rest.split_at_checked(len) {
        let (low, flags) = (be::u32_at(tag, 0), be::u16_at(tag, 6));
        let high = if wide { be::u32_at(tag, 8) } else { 0 };
        let sum = match superblock.checksums {
            Checksums::V3(_) => be::u32_at(tag, 12),
            _ => be::u16_at(tag, 4).into(),
        };
        tags.push(Tag { block: u64::from(high) << 32 | u64::from(low), escaped: flags & ESCAPED != 0, sum });
        if flags & LAST != 0 {
            break;
        }
        // The journal's UUID, from the days when several file systems were to share one.
        let uuid = if flags & SAME_UUID == 0 { 16 } else { 0 };
        rest = behind.get(uuid..).unwrap_or_default();
    }
    tags
}

/// The blocks that a table revokes; `None` if it says that it is longer than its block.
pub(super) fn revoked<'a>(block: &'a [u8], superblock: &Superblock) -> Option<impl Iterator<Item = u64> + use<'a>> {
    let used = usize::try_from(be::u32_at(block, HEADER)).ok()?;
    let records = without_tail(block, superblock.checksums).get(HEADER + 4..used.max(HEADER + 4))?;
    let record = if superblock.wide { 8 } else { 4 };
    Some(records.chunks_exact(record).map(|record| record.iter().fold(0, |block, byte| block << 8 | u64::from(*byte))))
}

/// When a transaction was committed, in seconds of its owner's clock.
pub(super) fn commit_time(block: &[u8]) -> u64 {
    be::u64_at(block, 48)
}

/// Whether a block of the area for fast commits (ext4's own records, little-endian) begins with the head of those that follow
/// everything before transaction `sequence`.
pub(super) fn is_fast_commit(block: &[u8], sequence: u32) -> bool {
    // Tag 9, 8 bytes long: features, the number of the transaction.
    block.starts_with(&[9, 0, 8, 0]) && block.get(8..12) == Some(&sequence.to_le_bytes())
}

/// A block up to its sum.
fn without_tail(block: &[u8], checksums: Checksums) -> &[u8] {
    block.get(..block.len().saturating_sub(checksums.tail())).unwrap_or_default()
}
