//! Maps the data forks of inodes to the disk: lists of extents, and B+trees of them (Linux, `fs/xfs/libxfs/xfs_bmap_btree.c`).

use std::ops::Range;

use super::{
    block_reader::BlockReader,
    checksum,
    inode::{Format, Inode, corrupt, unsupported},
};
use crate::{
    fs::{
        Error, Extent, FileMap,
        bytes::be,
        limits::{Budget, MAX_EXTENTS},
    },
    memory::Reservation,
};

/// The size of an extent in bytes, and of a key with its block number.
const RECORD: usize = 16;
/// The size of the header of a root in an inode, in bytes.
const ROOT_HEADER: usize = 4;
/// The sizes of the headers of other nodes without and with a checksum.
const NODE_HEADER_V4: usize = 24;
const NODE_HEADER_V5: usize = 72;
/// The offset of the checksum.
const CRC: usize = 64;
/// The maximum level of a root (`XFS_BM_MAXLEVELS`).
const MAX_LEVEL: u16 = 12;
/// The maximum number of extents in a tree plus the size of its nodes in KiB.
const MAX_TREE: u64 = 2 * MAX_EXTENTS as u64;

/// Returns the runs of blocks of an inode that contain bytes of `range`, and their memory. Preallocated blocks are left out.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if there are too many extents, [`Error::TooMuchWork`], [`Error::OutOfMemory`],
/// [`Error::Io`].
pub(super) async fn map(
    blocks: &BlockReader,
    inode: &Inode,
    range: Range<u64>,
) -> Result<(FileMap, Reservation), Error> {
    let mut mapper = Mapper {
        blocks,
        inode,
        range,
        position: 0,
        budget: Budget::new(MAX_TREE),
        file: FileMap { size: inode.size, ..FileMap::default() },
        memory: blocks.volume().memory().reserve(0)?,
    };
    match inode.format {
        Format::Extents => mapper.list().await?,
        Format::BTree => mapper.tree().await?,
        Format::Local | Format::Other => return Err(corrupt(inode.number, "without extents")),
    }
    mapper.file.identity = inode.identity;
    mapper.file.modified = inode.modified;
    Ok((mapper.file, mapper.memory))
}

/// Collects the extents of a file.
struct Mapper<'a> {
    blocks: &'a BlockReader,
    inode: &'a Inode,
    range: Range<u64>,
    /// The block of the file behind the last extent.
    position: u64,
    budget: Budget,
    file: FileMap,
    memory: Reservation,
}

impl Mapper<'_> {
    /// Adds the list of extents in the inode.
    async fn list(&mut self) -> Result<(), Error> {
        let count = usize::try_from(self.inode.extent_count).ok().and_then(|count| count.checked_mul(RECORD));
        let records = count.and_then(|len| self.inode.data_fork.get(..len)).ok_or_else(|| self.inconsistent())?;
        for (number, record) in records.chunks_exact(RECORD).enumerate() {
            if number % 64 == 0 {
                crate::fs::work::count_read(64 * RECORD).await?;
            }
            self.push(record)?;
        }
        Ok(())
    }

    /// Adds the extents of the B+tree, in the order of the file.
    async fn tree(&mut self) -> Result<(), Error> {
        let is_v5 = self.blocks.superblock.features.is_v5;
        let root = &self.inode.data_fork;
        let level = be::u16_at(root, 0);
        if !(1..=MAX_LEVEL).contains(&level) {
            return Err(self.inconsistent());
        }
        // A stack: the next node is the last element.
        let mut pending = Vec::new();
        self.push_children(root, ROOT_HEADER, be::u16_at(root, 2), level, &mut pending)?;
        while let Some((block, level)) = pending.pop() {
            let len = self.blocks.superblock.block_size();
            self.spend(1 + len as u64 / 1024)?;
            let offset = self.blocks.superblock.block_offset(block, 1).ok_or_else(|| self.inconsistent())?;
            let node = self.blocks.read(offset, len).await?;
            let (magic, header) = if is_v5 { (b"BMA3", NODE_HEADER_V5) } else { (b"BMAP", NODE_HEADER_V4) };
            let is_at_place = !is_v5 || be::u64_at(&node.bytes, 24) == offset / 512;
            if !node.bytes.starts_with(magic) || be::u16_at(&node.bytes, 4) != level || !is_at_place {
                return Err(self.inconsistent());
            }
            if is_v5 && !node.is_changed {
                checksum::verify(&node.bytes, CRC, ("block map of inode", self.inode.number))?;
            }
            let count = be::u16_at(&node.bytes, 6);
            if level > 0 {
                self.push_children(&node.bytes, header, count, level, &mut pending)?;
                continue;
            }
            let records = node.bytes.get(header..).and_then(|records| records.get(..usize::from(count) * RECORD));
            for record in records.ok_or_else(|| self.inconsistent())?.chunks_exact(RECORD) {
                self.push(record)?;
            }
        }
        Ok(())
    }

    /// Adds the children of a node to `pending`, the last one first.
    fn push_children(
        &self,
        node: &[u8],
        header: usize,
        count: u16,
        level: u16,
        pending: &mut Vec<(u64, u16)>,
    ) -> Result<(), Error> {
        let max = (node.len().saturating_sub(header)) / RECORD;
        let count = usize::from(count);
        if count == 0 || count > max {
            return Err(self.inconsistent());
        }
        let blocks = header + max * 8;
        pending.extend((0..count).rev().map(|child| (be::u64_at(node, blocks + child * 8), level - 1)));
        Ok(())
    }

    /// Adds an extent.
    fn push(&mut self, record: &[u8]) -> Result<(), Error> {
        self.spend(1)?;
        // Packed: a flag, 54 bits of a block of the file, 52 bits of a block, and the number of blocks.
        let (high, low) = (be::u64_at(record, 0), be::u64_at(record, 8));
        let is_unwritten = high >> 63 != 0;
        let first = high << 1 >> 10;
        let block = (high & 0x1ff) << 43 | low >> 21;
        let count = low & 0x1f_ffff;
        if first < self.position || count == 0 {
            return Err(self.inconsistent());
        }
        self.position = first + count;
        let offset = self.blocks.superblock.block_offset(block, count);
        let offset = offset.ok_or_else(|| corrupt(self.inode.number, "extent outside of the file system"))?;
        let block_size = self.blocks.superblock.block_size() as u64;
        let (Some(start), Some(end)) = (first.checked_mul(block_size), self.position.checked_mul(block_size)) else {
            return Err(self.inconsistent());
        };
        let range = self.range.start.max(start)..self.range.end.next_multiple_of(block_size).min(end);
        if is_unwritten || range.is_empty() {
            return Ok(());
        }
        let len = range.end - range.start;
        let disk_offset = self.blocks.volume().disk_offset(offset + (range.start - start), len)?;
        self.memory.make_room(&mut self.file.extents)?;
        self.file.push(Extent { file_offset: range.start, len, disk_offset });
        if self.file.extents.len() > MAX_EXTENTS {
            return Err(self.too_fragmented());
        }
        Ok(())
    }

    fn spend(&mut self, steps: u64) -> Result<(), Error> {
        if self.budget.spend(steps) { Ok(()) } else { Err(self.too_fragmented()) }
    }

    fn too_fragmented(&self) -> Error {
        unsupported(self.inode.number, "too fragmented")
    }

    fn inconsistent(&self) -> Error {
        corrupt(self.inode.number, "inconsistent block map")
    }
}
