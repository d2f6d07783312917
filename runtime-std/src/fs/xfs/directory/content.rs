//! The content of directories that consist of blocks.

use std::ops::Range;

use crate::{
    fs::{
        Error, FileMap,
        bytes::be,
        xfs::{
            block_reader::{BlockReader, Structure},
            checksum,
            inode::{Inode, corrupt, unsupported},
            map::map,
        },
    },
    memory::Reservation,
};

/// The offset of the index in a directory, and the offset of what follows it, in bytes (`XFS_DIR2_LEAF_OFFSET`).
pub(super) const INDEX: Range<u64> = 32 << 30..64 << 30;
/// The maximum size of the blocks of entries in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// The content of a directory that consists of blocks.
pub(super) struct Content<'a> {
    pub(super) blocks: &'a BlockReader,
    /// The inode.
    number: u64,
    map: FileMap,
    _memory: Reservation,
}

impl<'a> Content<'a> {
    pub(super) async fn open(blocks: &'a BlockReader, directory: &Inode) -> Result<Self, Error> {
        let number = directory.number;
        if directory.size > MAX_SIZE {
            return Err(unsupported(number, "directory too large"));
        }
        let (map, memory) = map(blocks, directory, 0..INDEX.end).await?;
        Ok(Self { blocks, number, map, _memory: memory })
    }

    pub(super) fn block_size(&self) -> usize {
        self.blocks.superblock.directory_block_size()
    }

    pub(super) fn is_v5(&self) -> bool {
        self.blocks.superblock.features.is_v5
    }

    pub(super) fn has_index(&self) -> bool {
        self.map.extents.last().is_some_and(|extent| extent.end() > INDEX.start)
    }

    /// Reads the first block of entries at or after `position`, and returns it with the position after it; `None` at the end.
    pub(super) async fn next_block(&self, position: u64) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let extents = &self.map.extents;
        let extent = extents.get(extents.partition_point(|extent| extent.end() <= position));
        let start = extent.map_or(u64::MAX, |extent| extent.file_offset.max(position));
        if start >= INDEX.start {
            return Ok(None);
        }
        if start >= MAX_SIZE {
            return Err(corrupt(self.number, "directory entries beyond its size"));
        }
        Ok(Some((self.read(start).await?, start + self.block_size() as u64)))
    }

    /// Reads and verifies the block of a directory at `position`, which may consist of several runs of blocks.
    pub(super) async fn read(&self, position: u64) -> Result<Vec<u8>, Error> {
        let len = self.block_size();
        let hole = || corrupt(self.number, "directory with a hole");
        let (offset, _) = self.blocks.locate(&self.map, position)?.ok_or_else(hole)?;
        let mut block = Structure { bytes: Vec::new(), is_changed: false };
        while block.bytes.len() < len {
            let at = position + block.bytes.len() as u64;
            let part = self.blocks.read_mapped(&self.map, at, len - block.bytes.len()).await?;
            if part.bytes.is_empty() {
                return Err(hole());
            }
            block.is_changed |= part.is_changed;
            block.bytes.extend(part.bytes);
        }
        if self.is_v5() {
            let is_index = position >= INDEX.start;
            let (crc, place) = if is_index { (12, 16) } else { (4, 8) };
            if !block.is_changed {
                checksum::verify(&block.bytes, crc, ("directory block of inode", self.number))?;
            }
            if be::u64_at(&block.bytes, place) != offset / 512 {
                return Err(corrupt(self.number, "contains the block of another directory"));
            }
        }
        Ok(block.bytes)
    }

    pub(super) fn inconsistent(&self) -> Error {
        corrupt(self.number, "inconsistent directory")
    }
}
