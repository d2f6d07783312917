//! Extent trees (Linux, `Documentation/filesystems/ext4/ifork.rst`).

use std::ops::Range;

use super::mapper::Mapper;
use crate::fs::{Error, bytes::le, ext4::inode::corrupt};

/// The magic number of a node's header (`eh_magic`).
pub(in super::super) const MAGIC: u16 = 0xf30a;
/// The size of a node's header, and of each of its entries, in bytes.
const ENTRY: usize = 12;
/// The maximum depth of a tree: five levels suffice for all of the 2^32 blocks of a file.
const MAX_DEPTH: u16 = 5;
/// The maximum length of an initialized extent in blocks (`EXT_INIT_MAX_LEN`). A larger value is the length of an unwritten extent
/// plus this value.
pub(super) const MAX_INITIALIZED_LEN: u16 = 32_768;

/// A node whose entries have not been read yet.
struct PendingNode {
    block: u64,
    depth: u16,
    /// The blocks of the file that it may map.
    logical: Range<u64>,
}

/// Adds the extents of an inode's extent tree to `mapper`.
pub(super) async fn traverse(mapper: &mut Mapper<'_>) -> Result<(), Error> {
    let inode = mapper.inode;
    let depth = le::u16_at(&inode.block, 6);
    if depth > MAX_DEPTH {
        return Err(inconsistent(mapper));
    }
    // A stack: the next node is the last element.
    let mut pending = Vec::new();
    visit_node(mapper, &inode.block, depth, 0..1 << 32, &mut pending)?;
    while let Some(PendingNode { block, depth, logical }) = pending.pop() {
        let node = mapper.read_node(block).await?;
        let max_entries = usize::from(le::u16_at(&node, 4));
        let tail_offset = ENTRY * (1 + max_entries);
        let summed = node.get(..tail_offset).ok_or_else(|| inconsistent(mapper))?;
        let checksum = inode.checksum_seed.update(summed);
        checksum.verify(le::u32_at(&node, tail_offset), ("extent tree of inode", inode.number))?;
        let entries = le::u16_at(&node, 2);
        if entries == 0 {
            return Err(inconsistent(mapper));
        }
        visit_node(mapper, &node, depth, logical, &mut pending)?;
    }
    Ok(())
}

/// Adds the extents of a leaf node to `mapper`, or the children of an inner node to `pending`.
fn visit_node(
    mapper: &mut Mapper<'_>,
    node: &[u8],
    depth: u16,
    logical: Range<u64>,
    pending: &mut Vec<PendingNode>,
) -> Result<(), Error> {
    let count = usize::from(le::u16_at(node, 2));
    let entries = node.get(ENTRY..).and_then(|entries| entries.get(..count.checked_mul(ENTRY)?));
    let entries = entries.filter(|_| le::u16_at(node, 0) == MAGIC && le::u16_at(node, 6) == depth);
    let entries = entries.ok_or_else(|| inconsistent(mapper))?.chunks_exact(ENTRY);
    let mut position = logical.start;
    let first_child = pending.len();
    for (index, entry) in entries.clone().enumerate() {
        let start = u64::from(le::u32_at(entry, 0));
        let next = entries.clone().nth(index + 1).map_or(logical.end, |next| le::u32_at(next, 0).into());
        if start < position || next <= start || next > logical.end {
            return Err(inconsistent(mapper));
        }
        if start >= mapper.end {
            break;
        }
        if depth > 0 {
            let block = u64::from(le::u16_at(entry, 8)) << 32 | u64::from(le::u32_at(entry, 4));
            pending.push(PendingNode { block, depth: depth - 1, logical: start..next });
            position = next;
        } else {
            position = visit_extent(mapper, entry, start..next)?;
        }
    }
    pending.get_mut(first_child..).unwrap_or_default().reverse();
    Ok(())
}

/// Adds an extent to `mapper` unless it is unwritten, and returns the logical block behind it. It must not exceed `logical`.
fn visit_extent(mapper: &mut Mapper<'_>, extent: &[u8], logical: Range<u64>) -> Result<u64, Error> {
    mapper.spend(1)?;
    let len = le::u16_at(extent, 4);
    let is_initialized = len <= MAX_INITIALIZED_LEN;
    let len = u64::from(if is_initialized { len } else { len - MAX_INITIALIZED_LEN });
    let end = logical.start + len;
    if len == 0 || end > logical.end {
        return Err(inconsistent(mapper));
    }
    let first = u64::from(le::u16_at(extent, 6)) << 32 | u64::from(le::u32_at(extent, 8));
    if is_initialized {
        mapper.push(logical.start, first..first + len)?;
    }
    Ok(end)
}

fn inconsistent(mapper: &Mapper<'_>) -> Error {
    corrupt(mapper.inode.number, "inconsistent extent tree")
}
