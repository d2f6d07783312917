//! Checksums of the log.

use crc::{CRC_32_MPEG_2, Crc, Digest, Table};

use crate::fs::{
    bytes::be,
    ext4::checksum::{CRC32C_INIT, crc32c},
};

/// The checksum of version 1 (Linux's `crc32_be`), computed over all of the log, hence the fast variant with 16 KiB of tables.
static CRC32_BE: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_MPEG_2);

/// The offset of a commit block's checksum (`h_chksum`).
const COMMIT_CHECKSUM: usize = 16;

/// The checksums of a log. Versions 2 and 3 start with the UUID of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChecksumMode {
    /// No checksums: a commit block alone marks a transaction as complete.
    None,
    /// A CRC-32 in the commit block, over the descriptor blocks and the copies.
    V1,
    /// A CRC-32C in each block, and the low 16 bits of one in the tag of each copy.
    V2([u8; 16]),
    /// A CRC-32C in each block, and one in the tag of each copy.
    V3([u8; 16]),
}

impl ChecksumMode {
    /// Returns the size of the checksum at the end of a descriptor or revoke block, in bytes.
    pub(super) fn tail_size(self) -> usize {
        match self {
            Self::None | Self::V1 => 0,
            Self::V2(_) | Self::V3(_) => 4,
        }
    }

    /// Returns whether copies have checksums, so that they must be read.
    pub(super) fn covers_copies(self) -> bool {
        self != Self::None
    }

    /// Returns whether a descriptor or revoke block matches its checksum.
    pub(super) fn matches_tail(self, block: &[u8]) -> bool {
        self.matches_block(block, block.len().saturating_sub(4))
    }

    /// Returns whether a commit block matches its checksum; in version 1, whether the transaction does.
    pub(super) fn matches_commit(self, block: &[u8], transaction: TransactionChecksum) -> bool {
        let Some(crc) = transaction.0 else { return self.matches_block(block, COMMIT_CHECKSUM) };
        // `h_chksum_type`, `h_chksum_size` and `h_chksum`: all are zero if the mount option `journal_checksum` was off.
        match (block.get(12..14), be::u32_at(block, COMMIT_CHECKSUM)) {
            (Some([1, 4]), stored) => stored == crc.finalize(),
            (Some([0, 0]), 0) => true,
            _ => false,
        }
    }

    /// Returns whether a copy matches the checksum in its tag. The checksum covers the copy as stored, with the magic number escaped.
    pub(super) fn matches_copy(self, copy: &[u8], sequence: u32, stored: u32) -> bool {
        let checksum = |uuid: [u8; 16]| {
            [&uuid[..], &sequence.to_be_bytes(), copy].iter().fold(CRC32C_INIT, |crc, part| crc32c(crc, part))
        };
        match self {
            Self::None | Self::V1 => true,
            Self::V2(uuid) => stored == checksum(uuid) & 0xffff,
            Self::V3(uuid) => stored == checksum(uuid),
        }
    }

    fn matches_block(self, block: &[u8], checksum_offset: usize) -> bool {
        match self {
            Self::None | Self::V1 => true,
            Self::V2(uuid) | Self::V3(uuid) => matches_checksum(&uuid, block, checksum_offset),
        }
    }
}

/// The running CRC-32 of a transaction in version 1.
pub(super) struct TransactionChecksum(Option<Digest<'static, u32, Table<16>>>);

impl TransactionChecksum {
    /// Creates the checksum of no blocks.
    pub(super) fn new(mode: ChecksumMode) -> Self {
        Self((mode == ChecksumMode::V1).then(|| CRC32_BE.digest()))
    }

    /// Adds a descriptor block or a copy.
    pub(super) fn update(&mut self, block: &[u8]) {
        if let Some(crc) = &mut self.0 {
            crc.update(block);
        }
    }
}

/// Returns whether `prefix` and `block` match the CRC-32C at `checksum_offset` in the block, which counts as zero.
pub(super) fn matches_checksum(prefix: &[u8], block: &[u8], checksum_offset: usize) -> bool {
    let stored = be::u32_at(block, checksum_offset);
    let (Some(before), Some(after)) = (block.get(..checksum_offset), block.get(checksum_offset + 4..)) else {
        return false;
    };
    [prefix, before, &[0; 4], after].iter().fold(CRC32C_INIT, |crc, part| crc32c(crc, part)) == stored
}
