//! Where the content of an inode is: in a tree of extents, or a map of single blocks.
//!
//! Both are trees of blocks, walked without recursion from the first byte of the file to the last. That ends on any disk: an
//! extent must lie behind the one before it, and there is a limit to what is looked at.

use std::ops::Range;

use super::{
    super::{Error, Extent, File},
    blocks::Blocks,
    fields::{le16, le32},
    inode::{Inode, corrupt, unsupported},
};

/// How many pieces a file may have; also how many extents and KiB of its map are looked at.
const MAX: u64 = 65_536;

/// How long the head of a node of a tree of extents is, and each of its entries, in bytes.
const ENTRY: usize = 12;
const MAGIC: u16 = 0xf30a;
/// How deep a tree of extents can be: with five levels it could map more than there can be.
const MAX_DEPTH: u16 = 5;
/// The longest extent, in blocks; a longer one is that much shorter, but was never written.
const MAX_WRITTEN: u16 = 32_768;

/// Finds the pieces of an inode's content.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if there are too many pieces, [`Error::Io`].
pub(super) async fn map(blocks: &Blocks, inode: &Inode) -> Result<Vec<Extent>, Error> {
    let mut pieces =
        Pieces { blocks, inode, end: inode.size.div_ceil(blocks.size.into()), seen: 0, file: File::default() };
    if inode.has_extents() {
        walk_extents(&mut pieces).await?;
    } else {
        walk_pointers(&mut pieces).await?;
    }
    Ok(pieces.file.extents)
}

/// The pieces that were found.
#[derive(Debug)]
struct Pieces<'a> {
    blocks: &'a Blocks,
    inode: &'a Inode,
    /// How many blocks of the file there are.
    end: u64,
    /// How many extents and KiB of the map were looked at.
    seen: u64,
    file: File,
}

impl Pieces<'_> {
    /// Adds a run of blocks, of which the first is block `at` of the file.
    fn push(&mut self, at: u64, run: Range<u64>) -> Result<(), Error> {
        if !self.blocks.are_usable(&run) {
            return Err(corrupt(self.inode.number, "is said to have blocks that no file can have"));
        }
        let len = (run.end - run.start).min(self.end.saturating_sub(at));
        let start = at.checked_mul(self.blocks.size.into());
        let start = start.ok_or_else(|| corrupt(self.inode.number, "is said to have a block behind its end"))?;
        for extent in self.blocks.extents(start, run.start..run.start + len) {
            self.file.push(extent?);
            self.limit(self.file.extents.len() as u64)?;
        }
        Ok(())
    }

    /// Reads a block of the map.
    async fn read(&mut self, block: u64) -> Result<Vec<u8>, Error> {
        self.seen += u64::from(self.blocks.size) / 1024;
        self.limit(self.seen)?;
        if !self.blocks.are_usable(&(block..block.saturating_add(1))) {
            return Err(corrupt(self.inode.number, "is said to have its map in blocks that no file can have"));
        }
        self.blocks.read(block, 0, self.blocks.size as usize).await
    }

    fn limit(&self, count: u64) -> Result<(), Error> {
        if count <= MAX { Ok(()) } else { Err(unsupported(self.inode.number, "is too fragmented")) }
    }

    fn corrupt(&self) -> Error {
        corrupt(self.inode.number, "has a tree of extents that contradicts itself")
    }
}

/// A part of a tree of extents.
struct Subtree {
    /// The block of its top node.
    block: u64,
    depth: u16,
    /// The blocks of the file that it may be about.
    range: Range<u64>,
}

/// Walks a tree of extents. See Linux, `Documentation/filesystems/ext4/ifork.rst`.
async fn walk_extents(pieces: &mut Pieces<'_>) -> Result<(), Error> {
    let inode = pieces.inode;
    let depth = le16(&inode.block, 6);
    if depth > MAX_DEPTH {
        return Err(pieces.corrupt());
    }
    // The next one is the last.
    let mut waiting = Vec::new();
    walk_node(pieces, &inode.block, depth, 0..1 << 32, &mut waiting)?;
    while let Some(Subtree { block, depth, range }) = waiting.pop() {
        let node = pieces.read(block).await?;
        let sum_at = ENTRY * (1 + usize::from(le16(&node, 4)));
        let summed = node.get(..sum_at).ok_or_else(|| pieces.corrupt())?;
        inode.seed.and(summed).verify(le32(&node, sum_at), format!("the tree of extents of inode {}", inode.number))?;
        if le16(&node, 2) == 0 {
            return Err(pieces.corrupt());
        }
        walk_node(pieces, &node, depth, range, &mut waiting)?;
    }
    Ok(())
}

/// Takes the pieces, or else the subtrees, from one node of a tree of extents.
fn walk_node(
    pieces: &mut Pieces<'_>,
    node: &[u8],
    depth: u16,
    range: Range<u64>,
    waiting: &mut Vec<Subtree>,
) -> Result<(), Error> {
    let count = usize::from(le16(node, 2));
    let entries = node.get(ENTRY..).and_then(|entries| entries.get(..count.checked_mul(ENTRY)?));
    let entries = entries.filter(|_| le16(node, 0) == MAGIC && le16(node, 6) == depth);
    let entries = entries.ok_or_else(|| pieces.corrupt())?.chunks_exact(ENTRY);
    let mut at = range.start;
    let first_waiting = waiting.len();
    for (index, entry) in entries.clone().enumerate() {
        let start = u64::from(le32(entry, 0));
        let next = entries.clone().nth(index + 1).map_or(range.end, |next| le32(next, 0).into());
        if start < at || next <= start || next > range.end {
            return Err(pieces.corrupt());
        }
        if start >= pieces.end {
            break;
        }
        if depth > 0 {
            let block = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
            waiting.push(Subtree { block, depth: depth - 1, range: start..next });
            at = next;
        } else {
            at = walk_extent(pieces, entry, start..next)?;
        }
    }
    waiting.get_mut(first_waiting..).unwrap_or_default().reverse();
    Ok(())
}

/// Takes the piece from one extent, which must be in a range of blocks of the file; gives the block behind it.
fn walk_extent(pieces: &mut Pieces<'_>, extent: &[u8], range: Range<u64>) -> Result<u64, Error> {
    pieces.seen += 1;
    pieces.limit(pieces.seen)?;
    let len = le16(extent, 4);
    let is_written = len <= MAX_WRITTEN;
    let len = u64::from(if is_written { len } else { len - MAX_WRITTEN });
    let end = range.start + len;
    if len == 0 || end > range.end {
        return Err(pieces.corrupt());
    }
    let first = u64::from(le16(extent, 6)) << 32 | u64::from(le32(extent, 8));
    if is_written {
        pieces.push(range.start, first..first + len)?;
    }
    Ok(end)
}

/// A part of a map of blocks.
struct Pointers {
    /// The block of the pointers, or the first block of the content.
    block: u64,
    /// How many blocks of content follow each other.
    len: u64,
    /// How many levels of pointers there are above the content.
    level: u32,
    /// The first block of the file that it is about.
    at: u64,
}

impl Pointers {
    /// Whether a block continues the content.
    fn is_followed_by(&self, block: u64, at: u64) -> bool {
        self.level == 0 && self.block + self.len == block && self.at + self.len == at
    }
}

/// Walks a map of single blocks. See Linux, `Documentation/filesystems/ext4/blockmap.rst`.
async fn walk_pointers(pieces: &mut Pieces<'_>) -> Result<(), Error> {
    let in_block = u64::from(pieces.blocks.size) / 4;
    // The next one is the last.
    let mut waiting = Vec::new();
    let levels = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3].into_iter();
    walk_block(&pieces.inode.block, levels, 0..pieces.end, in_block, &mut waiting);
    while let Some(Pointers { block, len, level, at }) = waiting.pop() {
        if level == 0 {
            pieces.push(at, block..block + len)?;
        } else {
            let node = pieces.read(block).await?;
            walk_block(&node, std::iter::repeat(level - 1), at..pieces.end, in_block, &mut waiting);
        }
    }
    Ok(())
}

/// Takes the pointers, each of its level, from one block of them, of which each level has `in_block`; `range` are the blocks of
/// the file that they can be about.
fn walk_block(
    block: &[u8],
    levels: impl Iterator<Item = u32>,
    range: Range<u64>,
    in_block: u64,
    waiting: &mut Vec<Pointers>,
) {
    let first_waiting = waiting.len();
    let mut at = range.start;
    for (pointer, level) in block.chunks_exact(4).zip(levels) {
        let block = u64::from(le32(pointer, 0));
        let last = waiting.get_mut(first_waiting..).unwrap_or_default().last_mut();
        match last {
            _ if at >= range.end => break,
            // A hole, however long.
            _ if block == 0 => {}
            Some(last) if level == 0 && last.is_followed_by(block, at) => last.len += 1,
            _ => waiting.push(Pointers { block, len: 1, level, at }),
        }
        at = at.saturating_add(in_block.pow(level));
    }
    waiting.get_mut(first_waiting..).unwrap_or_default().reverse();
}
