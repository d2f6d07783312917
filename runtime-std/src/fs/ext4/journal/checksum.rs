//! What protects the blocks of a log.

use crc::{CRC_32_ISCSI, CRC_32_MPEG_2, Crc, Digest, Table};

use crate::fs::bytes::be;

/// CRC-32c. All of a log's active part goes through it at each look at a disk, so it is the fast kind, with 16 KiB of tables.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The sum of the first version: unreflected, begun with ones, not inverted at the end.
static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_MPEG_2);

/// Where a commit block has its sum, in bytes.
const COMMIT_SUM: usize = 16;

/// What protects the blocks of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    /// Nothing; a commit block vouches for what is before it.
    None,
    /// One sum in the commit block, over the descriptors and the copies.
    V1,
    /// A sum in each block, and the low half of one for each copy in its tag. All begin with the journal's UUID.
    V2([u8; 16]),
    /// A sum in each block, and one for each copy in its tag. All begin with the journal's UUID.
    V3([u8; 16]),
}

impl Checksums {
    /// How many bytes at the end of a descriptor or of a table of revoked blocks belong to its sum.
    pub(super) fn tail(self) -> usize {
        match self {
            Self::None | Self::V1 => 0,
            Self::V2(_) | Self::V3(_) => 4,
        }
    }

    /// Whether the copies have to be read to know that they are whole.
    pub(super) fn cover_copies(self) -> bool {
        self != Self::None
    }

    /// Whether a descriptor or a table of revoked blocks is whole.
    pub(super) fn table_is_whole(self, block: &[u8]) -> bool {
        self.is_whole(block, block.len().saturating_sub(4))
    }

    /// Whether a commit block is whole, and with the first version all that it commits, the sum of which is `sum`.
    pub(super) fn commit_is_whole(self, block: &[u8], sum: Transaction) -> bool {
        let Some(sum) = sum.0 else { return self.is_whole(block, COMMIT_SUM) };
        // Type and size of the sum. A kernel that was told not to write sums leaves all three zero.
        match (block.get(12..14), be::u32_at(block, COMMIT_SUM)) {
            (Some([1, 4]), stored) => stored == sum.finalize(),
            (Some([0, 0]), 0) => true,
            _ => false,
        }
    }

    /// Whether a copy is what its tag says. The sum is over the copy as it is in the log, without its first bytes if it is escaped.
    pub(super) fn copy_is_whole(self, copy: &[u8], sequence: u32, stored: u32) -> bool {
        let sum = |uuid: [u8; 16]| {
            let mut sum = CRC32C.digest();
            sum.update(&uuid);
            sum.update(&sequence.to_be_bytes());
            sum.update(copy);
            !sum.finalize()
        };
        match self {
            Self::None | Self::V1 => true,
            Self::V2(uuid) => stored == sum(uuid) & 0xffff,
            Self::V3(uuid) => stored == sum(uuid),
        }
    }

    /// Whether a block agrees with its own sum, which is at `at` and counts as zero.
    fn is_whole(self, block: &[u8], at: usize) -> bool {
        match self {
            Self::None | Self::V1 => true,
            Self::V2(uuid) | Self::V3(uuid) => agrees(&uuid, block, at),
        }
    }
}

/// The sum of a transaction's descriptors and copies, which only the first version has.
pub(super) struct Transaction(Option<Digest<'static, u32, Table<16>>>);

impl Transaction {
    /// The sum of nothing.
    pub(super) fn new(checksums: Checksums) -> Self {
        Self((checksums == Checksums::V1).then(|| CRC32.digest()))
    }

    /// Adds a block.
    pub(super) fn update(&mut self, block: &[u8]) {
        if let Some(sum) = &mut self.0 {
            sum.update(block);
        }
    }
}

/// Whether a block agrees with the big-endian CRC-32c that it has at `at`, which counts as zero. The sum begins with `before`, and
/// is not inverted at the end as is usual elsewhere.
pub(super) fn agrees(before: &[u8], block: &[u8], at: usize) -> bool {
    let stored = be::u32_at(block, at);
    let (Some(head), Some(rest)) = (block.get(..at), block.get(at + 4..)) else {
        return false;
    };
    let mut sum = CRC32C.digest();
    for part in [before, head, &[0; 4], rest] {
        sum.update(part);
    }
    !sum.finalize() == stored
}
