//! Where the content of an inode is: in a tree of extents, or a map of single blocks.
//!
//! Both are trees of blocks, walked without recursion from the first byte of the file to the last. That ends on any disk: an
//! extent must lie behind the one before it, and there is a limit to what is looked at.

use std::ops::Range;

use super::{
    super::{
        Error, FileMap,
        bytes::le,
        limits::{Budget, MAX_EXTENTS},
    },
    blocks::Blocks,
    inode::{Inode, corrupt, unsupported},
};

/// The maximum number of extents in a map plus its size in KiB.
const MAX_MAP: u64 = 65_536;

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
pub(super) async fn map(blocks: &Blocks, inode: &Inode) -> Result<FileMap, Error> {
    let file = FileMap { size: inode.size, ..FileMap::default() };
    let mut pieces =
        Pieces { blocks, inode, end: inode.size.div_ceil(blocks.size.into()), budget: Budget::new(MAX_MAP), file };
    if inode.has_extents() {
        walk_extents(&mut pieces).await?;
    } else {
        walk_pointers(&mut pieces).await?;
    }
    Ok(pieces.file)
}

/// The pieces that were found.
#[derive(Debug)]
struct Pieces<'a> {
    blocks: &'a Blocks,
    inode: &'a Inode,
    /// How many blocks of the file there are.
    end: u64,
    /// The number of extents and KiB of the map that may still be read.
    budget: Budget,
    file: FileMap,
}

impl Pieces<'_> {
    /// Adds a run of blocks, of which the first is block `at` of the file.
    fn push(&mut self, at: u64, run: Range<u64>) -> Result<(), Error> {
        if !self.blocks.are_usable(&run) {
            return Err(corrupt(self.inode.number, "extent outside the data blocks"));
        }
        let len = (run.end - run.start).min(self.end.saturating_sub(at));
        let start = at.checked_mul(self.blocks.size.into());
        let start = start.ok_or_else(|| corrupt(self.inode.number, "block beyond the maximum file size"))?;
        for located in self.blocks.extents(start, run.start..run.start + len) {
            let (extent, patch) = located?;
            self.file.push(extent);
            self.file.patches.extend(patch);
            if self.file.extents.len() > MAX_EXTENTS {
                return Err(self.too_fragmented());
            }
        }
        Ok(())
    }

    /// Reads a block of the map.
    async fn read(&mut self, block: u64) -> Result<Vec<u8>, Error> {
        if !self.budget.spend(u64::from(self.blocks.size) / 1024) {
            return Err(self.too_fragmented());
        }
        if !self.blocks.are_usable(&(block..block.saturating_add(1))) {
            return Err(corrupt(self.inode.number, "block of its map outside the data blocks"));
        }
        self.blocks.read(block, 0, self.blocks.size as usize).await
    }

    fn too_fragmented(&self) -> Error {
        unsupported(self.inode.number, "too fragmented")
    }

    fn corrupt(&self) -> Error {
        corrupt(self.inode.number, "inconsistent extent tree")
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
    let depth = le::u16_at(&inode.block, 6);
    if depth > MAX_DEPTH {
        return Err(pieces.corrupt());
    }
    // The next one is the last.
    let mut waiting = Vec::new();
    walk_node(pieces, &inode.block, depth, 0..1 << 32, &mut waiting)?;
    while let Some(Subtree { block, depth, range }) = waiting.pop() {
        let node = pieces.read(block).await?;
        let sum_at = ENTRY * (1 + usize::from(le::u16_at(&node, 4)));
        let summed = node.get(..sum_at).ok_or_else(|| pieces.corrupt())?;
        inode.seed.and(summed).verify(le::u32_at(&node, sum_at), ("extent tree of inode", inode.number))?;
        if le::u16_at(&node, 2) == 0 {
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
    let count = usize::from(le::u16_at(node, 2));
    let entries = node.get(ENTRY..).and_then(|entries| entries.get(..count.checked_mul(ENTRY)?));
    let entries = entries.filter(|_| le::u16_at(node, 0) == MAGIC && le::u16_at(node, 6) == depth);
    let entries = entries.ok_or_else(|| pieces.corrupt())?.chunks_exact(ENTRY);
    let mut at = range.start;
    let first_waiting = waiting.len();
    for (index, entry) in entries.clone().enumerate() {
        let start = u64::from(le::u32_at(entry, 0));
        let next = entries.clone().nth(index + 1).map_or(range.end, |next| le::u32_at(next, 0).into());
        if start < at || next <= start || next > range.end {
            return Err(pieces.corrupt());
        }
        if start >= pieces.end {
            break;
        }
        if depth > 0 {
            let block = u64::from(le::u16_at(entry, 8)) << 32 | u64::from(le::u32_at(entry, 4));
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
    if !pieces.budget.spend(1) {
        return Err(pieces.too_fragmented());
    }
    let len = le::u16_at(extent, 4);
    let is_written = len <= MAX_WRITTEN;
    let len = u64::from(if is_written { len } else { len - MAX_WRITTEN });
    let end = range.start + len;
    if len == 0 || end > range.end {
        return Err(pieces.corrupt());
    }
    let first = u64::from(le::u16_at(extent, 6)) << 32 | u64::from(le::u32_at(extent, 8));
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
        let block = u64::from(le::u32_at(pointer, 0));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::block_on;

    use super::{
        super::{
            super::{FileIdentity, FileType, Volume},
            checksum::Seed,
            inode,
            superblock::Superblock,
        },
        *,
    };

    const SIZE: usize = 1024;

    /// The pieces of an inode of `size` bytes: from and to which block of the file, and where the first is.
    fn pieces(nodes: &[(usize, Vec<u8>)], flags: u32, block: &[u8], size: u64) -> Result<Vec<(u64, u64, u64)>, Error> {
        let mut disk = vec![0; 2000 * SIZE];
        for (at, value) in [(0x04, 2000u32), (0x14, 1), (0x20, 8192), (0x28, 128), (0x38, 0x0001_ef53)] {
            disk[1024 + at..][..4].copy_from_slice(&value.to_le_bytes());
        }
        for (block, node) in nodes {
            disk[block * SIZE..][..node.len()].copy_from_slice(node);
        }
        let superblock = Superblock::parse(&disk[1024..2048])?.expect("it has the magic");
        let blocks = Blocks::new(Volume::new(Arc::new(disk)), &superblock)?;
        let mut bytes = [0; 60];
        bytes[..block.len()].copy_from_slice(block);
        let (attributes, identity) = (Vec::new(), FileIdentity::default());
        let inode = Inode {
            number: 12,
            file_type: FileType::File,
            size,
            flags,
            block: bytes,
            attributes,
            identity,
            seed: Seed::NONE,
        };
        let extents = block_on(map(&blocks, &inode))?.extents;
        let size = SIZE as u64;
        Ok(extents
            .iter()
            .map(|one| (one.file_offset / size, (one.file_offset + one.len) / size, one.disk_offset / size))
            .collect())
    }

    /// A node of a tree of extents: each entry is the first block of the file, and the last three words of it.
    fn node(depth: u16, entries: &[(u32, u16, u16, u32)]) -> Vec<u8> {
        let head = [MAGIC, entries.len() as u16, entries.len() as u16, depth, 0, 0];
        let mut node: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        for (start, one, two, last) in entries {
            node.extend(start.to_le_bytes());
            node.extend(one.to_le_bytes());
            node.extend(two.to_le_bytes());
            node.extend(last.to_le_bytes());
        }
        node
    }

    /// An inner node: each entry is the first block of the file, and the block of the node below.
    fn inner(depth: u16, entries: &[(u32, u16)]) -> Vec<u8> {
        let entries: Vec<_> = entries.iter().map(|(start, block)| (*start, *block, 0, 0)).collect();
        node(depth, &entries)
    }

    fn tree(nodes: &[(usize, Vec<u8>)], top: &[u8], size: u64) -> Result<Vec<(u64, u64, u64)>, Error> {
        pieces(nodes, inode::EXTENTS, top, size)
    }

    #[test]
    fn what_was_never_written_and_what_is_behind_the_end_is_left_out() {
        let top = node(0, &[(0, 2, 0, 100), (2, MAX_WRITTEN + 3, 0, 102), (7, 5, 0, 200), (20, 1, 0, 300)]);
        assert_eq!(tree(&[], &top, 10 * 1024 - 1), Ok(vec![(0, 2, 100), (7, 10, 200)]));
        assert_eq!(tree(&[], &top, 0), Ok(vec![]));
        assert_eq!(tree(&[], &top, u64::MAX).map(|pieces| pieces.len()), Ok(3));
    }

    #[test]
    fn neighbours_in_different_nodes_are_one_piece() {
        let nodes = [(50, node(0, &[(0, 4, 0, 100)])), (51, node(0, &[(4, 4, 0, 104), (9, 1, 0, 500)]))];
        assert_eq!(tree(&nodes, &inner(1, &[(0, 50), (4, 51)]), 100 * 1024), Ok(vec![(0, 8, 100), (9, 10, 500)]));
    }

    #[test]
    fn trees_that_contradict_themselves_are_corrupt() {
        let leaf = |at, len| (50, node(0, &[(at, len, 0, 100)]));
        let cases = [
            (vec![], node(0, &[(0, 2, 0, 100), (1, 1, 0, 200)]), "overlap"),
            (vec![], node(0, &[(5, 1, 0, 100), (3, 1, 0, 200)]), "order"),
            (vec![], node(0, &[(0, 0, 0, 100)]), "no length"),
            (vec![], node(0, &[(u32::MAX, 2, 0, 100)]), "behind the last block"),
            (vec![], node(0, &[(0, 2, 0, 1999)]), "behind the end of the disk"),
            (vec![], node(0, &[(0, 2, 1, 100)]), "far behind the end of the disk"),
            (vec![], node(0, &[(0, 2, 0, 1)]), "the superblock"),
            (vec![], node(6, &[(0, 2, 0, 1)]), "too deep"),
            (vec![], vec![0; 60], "no magic"),
            (vec![], inner(1, &[(0, 2000)]), "a node behind the end of the disk"),
            (vec![], inner(1, &[(0, 50)]), "a node of zeros"),
            (vec![(50, node(0, &[]))], inner(1, &[(0, 50)]), "an empty node"),
            (vec![leaf(0, 5)], inner(1, &[(0, 50), (4, 50)]), "a leaf that is longer than its index says"),
            (vec![leaf(0, 2)], inner(1, &[(1, 50)]), "a leaf that begins before its index says"),
            (vec![leaf(0, 2)], inner(2, &[(0, 50)]), "a node of another depth"),
            (vec![(50, inner(1, &[(0, 50)]))], inner(1, &[(0, 50)]), "a loop"),
        ];
        for (nodes, top, what) in cases {
            let found = tree(&nodes, &top, u64::MAX);
            assert!(matches!(found, Err(Error::Corrupt(_))), "{what}: {found:?}");
        }
        let mut long = node(0, &[(0, 2, 0, 100)]);
        long[2] = 6;
        assert!(matches!(tree(&[], &long, 4096), Err(Error::Corrupt(_))), "more entries than there is room for");
    }

    fn map_of(nodes: &[(usize, Vec<u8>)], top: &[u32], size: u64) -> Result<Vec<(u64, u64, u64)>, Error> {
        pieces(nodes, 0, &pointers(top), size)
    }

    fn pointers(pointers: &[u32]) -> Vec<u8> {
        pointers.iter().flat_map(|pointer| pointer.to_le_bytes()).collect()
    }

    #[test]
    fn holes_of_all_sizes_are_left_out() {
        let mut top = [0; 15];
        top[1..4].copy_from_slice(&[100, 101, 103]);
        top[11] = 200;
        top[12] = 50;
        top[14] = 51;
        let mut first = [0; 256];
        first[0] = 201;
        first[255] = 300;
        // The last block of the first 256 that three levels lead to.
        let nodes =
            [(50, pointers(&first)), (51, pointers(&[0, 52])), (52, pointers(&[0, 0, 53])), (53, pointers(&[0, 301]))];
        let third = 12 + 256 + 256 * 256;
        let last = third + 256 * 256 + 2 * 256 + 1;
        let all = vec![(1, 3, 100), (3, 4, 103), (11, 13, 200), (267, 268, 300), (last, last + 1, 301)];
        assert_eq!(map_of(&nodes, &top, u64::MAX), Ok(all.clone()));
        assert_eq!(map_of(&nodes, &top, (last + 1) * 1024), Ok(all.clone()));
        assert_eq!(map_of(&nodes, &top, last * 1024), Ok(all[..4].to_vec()));
        assert_eq!(map_of(&nodes, &top, 2 * 1024), Ok(vec![(1, 2, 100)]));
    }

    #[test]
    fn maps_without_end_are_given_up() {
        let mut top = [0; 15];
        top[14] = 50;
        let outside = map_of(&[(50, pointers(&[60])), (60, pointers(&[2000]))], &top, u64::MAX);
        assert!(matches!(outside, Err(Error::Corrupt(_))), "{outside:?}");
        let itself = map_of(&[(50, pointers(&[50; 256]))], &top, u64::MAX);
        assert!(matches!(itself, Err(Error::Unsupported(_))), "{:?}", itself.map(|pieces| pieces.len()));
        // All blocks follow each other, and so the pieces are few.
        let follow: Vec<u32> = (100..356).collect();
        let nodes = [(50, pointers(&[51; 256])), (51, pointers(&[52; 256])), (52, pointers(&follow))];
        let few = map_of(&nodes, &top, u64::MAX);
        assert!(matches!(few, Err(Error::Unsupported(_))), "{:?}", few.map(|pieces| pieces.len()));
    }
}
