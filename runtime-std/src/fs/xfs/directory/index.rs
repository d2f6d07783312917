//! The index of a directory: the hashes of all names, in one block, or in the leaves of a tree (`struct xfs_dir2_leaf`,
//! `struct xfs_da_intnode`).

use super::{
    content::{Content, INDEX},
    data::{ALIGNMENT, entry_at},
    entry::Found,
};
use crate::fs::{Error, bytes::be, limits::Budget};

/// The maximum number of inner nodes on the way to a leaf (`XFS_DA_NODE_MAXDEPTH`).
const MAX_DEPTH: usize = 5;
/// The maximum number of blocks that a lookup reads.
const MAX_BLOCKS: u64 = 4096;
/// The size of an entry of leaves and nodes in bytes: a hash, and a place.
const ENTRY: usize = 8;

/// A block of the index.
struct Block {
    bytes: Vec<u8>,
    is_node: bool,
    /// The offset of the entries.
    header: usize,
    count: usize,
}

impl Block {
    /// Reads the block with this number, which counts blocks of the file system.
    async fn read(content: &Content<'_>, number: u32) -> Result<Self, Error> {
        let position = u64::from(number) * content.blocks.superblock.block_size() as u64;
        if !INDEX.contains(&position) {
            return Err(content.inconsistent());
        }
        let bytes = content.read(position).await?;
        let (is_node, header) = match (be::u16_at(&bytes, 8), content.is_v5()) {
            (0xfebe, false) => (true, 16),
            (0xd2f1 | 0xd2ff, false) => (false, 16),
            (0x3ebe, true) => (true, 64),
            (0x3df1 | 0x3dff, true) => (false, 64),
            _ => return Err(content.inconsistent()),
        };
        let count = usize::from(be::u16_at(&bytes, if content.is_v5() { 56 } else { 12 }));
        if count > (bytes.len() - header) / ENTRY {
            return Err(content.inconsistent());
        }
        Ok(Self { bytes, is_node, header, count })
    }

    /// Returns the hash and the place of an entry.
    fn entry(&self, index: usize) -> (u32, u32) {
        let at = self.header + index * ENTRY;
        (be::u32_at(&self.bytes, at), be::u32_at(&self.bytes, at + 4))
    }

    /// Returns the index of the first entry whose hash is not smaller.
    fn first_not_below(&self, hash: u32) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle).0 < hash {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Looks up a name.
pub(super) async fn lookup(content: &Content<'_>, name: &[u8]) -> Result<Option<Found>, Error> {
    let hash = hash(name);
    let mut budget = Budget::new(MAX_BLOCKS);
    let first = INDEX.start / content.blocks.superblock.block_size() as u64;
    let mut leaf = Block::read(content, u32::try_from(first).unwrap_or(u32::MAX)).await?;
    for _ in 0..MAX_DEPTH {
        if !leaf.is_node {
            break;
        }
        let child = leaf.first_not_below(hash);
        if child == leaf.count {
            return Ok(None);
        }
        leaf = Block::read(content, leaf.entry(child).1).await?;
    }
    while !leaf.is_node {
        for (found, place) in (leaf.first_not_below(hash)..leaf.count).map(|index| leaf.entry(index)) {
            if found != hash {
                return Ok(None);
            }
            // The entry was removed.
            if place == 0 {
                continue;
            }
            if !budget.spend(1) {
                return Err(Error::TooMuchWork);
            }
            let (place, block_len) = (u64::from(place) * ALIGNMENT as u64, content.block_size() as u64);
            let block = content.read(place - place % block_len).await?;
            let entry = entry_at(content, &block, (place % block_len) as usize)?;
            if entry.name == name {
                return Ok(Some((entry.inode, entry.file_type)));
            }
        }
        // Names with the same hash may continue in the next leaf.
        let next = be::u32_at(&leaf.bytes, 0);
        if next == 0 {
            return Ok(None);
        }
        if !budget.spend(1) {
            return Err(Error::TooMuchWork);
        }
        leaf = Block::read(content, next).await?;
    }
    Err(content.inconsistent())
}

/// Returns the hash of a name (`xfs_da_hashname`).
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, byte| hash.rotate_left(7) ^ u32::from(*byte))
}
