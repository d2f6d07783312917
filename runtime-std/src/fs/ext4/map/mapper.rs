//! Collects the extents of a file within a budget.

use std::ops::Range;

use crate::{
    fs::{
        Error, FileMap,
        ext4::{
            block_reader::BlockReader,
            inode::{Inode, corrupt, unsupported},
        },
        limits::{Budget, MAX_EXTENTS},
    },
    memory::Reservation,
};

/// The maximum number of extents in a tree plus the size of its nodes in KiB.
const MAX_TREE: u64 = 65_536;

/// Collects the extents of a file while its tree is traversed.
#[derive(Debug)]
pub(super) struct Mapper<'a> {
    pub(super) blocks: &'a BlockReader,
    pub(super) inode: &'a Inode,
    /// The number of blocks of the file, including holes.
    pub(super) end: u64,
    /// The number of extents and KiB of nodes that may still be read.
    budget: Budget,
    file: FileMap,
    memory: Reservation,
}

impl<'a> Mapper<'a> {
    /// Creates a mapper without extents. They grow within `memory`.
    pub(super) fn new(blocks: &'a BlockReader, inode: &'a Inode, memory: Reservation) -> Self {
        let end = inode.size.div_ceil(blocks.block_size.into());
        let file = FileMap { size: inode.size, ..FileMap::default() };
        Self { blocks, inode, end, budget: Budget::new(MAX_TREE), file, memory }
    }

    /// Returns the map with all extents that were added, and its memory.
    pub(super) fn finish(self) -> (FileMap, Reservation) {
        (self.file, self.memory)
    }

    /// Adds a run of blocks that is mapped at block `logical` of the file.
    pub(super) fn push(&mut self, logical: u64, run: Range<u64>) -> Result<(), Error> {
        if !self.blocks.are_data_blocks(&run) {
            return Err(corrupt(self.inode.number, "extent outside the data blocks"));
        }
        let len = (run.end - run.start).min(self.end.saturating_sub(logical));
        let file_offset = logical.checked_mul(self.blocks.block_size.into());
        let file_offset =
            file_offset.ok_or_else(|| corrupt(self.inode.number, "block beyond the maximum file size"))?;
        for located in self.blocks.locate(file_offset, run.start..run.start + len) {
            let (extent, patch) = located?;
            self.memory.make_room(&mut self.file.extents)?;
            self.file.push(extent);
            if let Some(patch) = patch {
                self.memory.resize(self.memory.bytes() + patch.memory())?;
                self.file.patches.push(patch);
            }
            if self.file.extents.len() > MAX_EXTENTS {
                return Err(self.too_fragmented());
            }
        }
        Ok(())
    }

    /// Reads a block of the tree.
    pub(super) async fn read_node(&mut self, block: u64) -> Result<Vec<u8>, Error> {
        self.spend(u64::from(self.blocks.block_size) / 1024)?;
        if !self.blocks.are_data_blocks(&(block..block.saturating_add(1))) {
            return Err(corrupt(self.inode.number, "block of its map outside the data blocks"));
        }
        self.blocks.read(block, 0, self.blocks.block_size as usize).await
    }

    /// Spends a part of the budget.
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Error> {
        if self.budget.spend(steps) { Ok(()) } else { Err(self.too_fragmented()) }
    }

    fn too_fragmented(&self) -> Error {
        unsupported(self.inode.number, "too fragmented")
    }
}
