//! Trees of direct and indirect blocks (Linux, `Documentation/filesystems/ext4/blockmap.rst`).

use std::ops::Range;

use super::mapper::Mapper;
use crate::fs::{Error, bytes::le};

/// The levels of the 15 pointers in `i_block`: 12 direct, then one single, one double and one triple indirect block.
const ROOT_LEVELS: [u32; 15] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];

/// A block of pointers that has not been read yet, or a run of content.
struct Pending {
    /// The block of pointers, or the first block of the content.
    block: u64,
    /// The number of consecutive blocks of content.
    len: u64,
    /// The number of levels of pointers; 0 for content.
    level: u32,
    /// The first block of the file that is mapped.
    logical: u64,
}

impl Pending {
    /// Returns whether `block`, mapped at block `logical` of the file, continues the content.
    fn is_continued_by(&self, block: u64, logical: u64) -> bool {
        self.level == 0 && self.block + self.len == block && self.logical + self.len == logical
    }
}

/// Adds the extents of an inode's block map to `mapper`.
pub(super) async fn traverse(mapper: &mut Mapper<'_>) -> Result<(), Error> {
    let pointers_per_block = u64::from(mapper.blocks.block_size) / 4;
    // A stack: the next element is the last.
    let mut pending = Vec::new();
    visit_pointers(&mapper.inode.block, ROOT_LEVELS.into_iter(), 0..mapper.end, pointers_per_block, &mut pending);
    while let Some(Pending { block, len, level, logical }) = pending.pop() {
        if level == 0 {
            mapper.push(logical, block..block + len)?;
        } else {
            let node = mapper.read_node(block).await?;
            let levels = std::iter::repeat(level - 1);
            visit_pointers(&node, levels, logical..mapper.end, pointers_per_block, &mut pending);
        }
    }
    Ok(())
}

/// Adds the targets of pointers to `pending`. `levels` has the level of each pointer, `logical` the blocks of the file that they may
/// map.
fn visit_pointers(
    pointers: &[u8],
    levels: impl Iterator<Item = u32>,
    logical: Range<u64>,
    pointers_per_block: u64,
    pending: &mut Vec<Pending>,
) {
    let first_child = pending.len();
    let mut position = logical.start;
    for (pointer, level) in pointers.chunks_exact(4).zip(levels) {
        let block = u64::from(le::u32_at(pointer, 0));
        let last = pending.get_mut(first_child..).unwrap_or_default().last_mut();
        match last {
            _ if position >= logical.end => break,
            // A hole, of any level.
            _ if block == 0 => {}
            Some(last) if level == 0 && last.is_continued_by(block, position) => last.len += 1,
            _ => pending.push(Pending { block, len: 1, level, logical: position }),
        }
        position = position.saturating_add(pointers_per_block.pow(level));
    }
    pending.get_mut(first_child..).unwrap_or_default().reverse();
}
