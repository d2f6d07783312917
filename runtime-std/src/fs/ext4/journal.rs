//! The JBD2 journal of ext3 and ext4: the newest copies of blocks that have been committed but not yet written to their locations.
//!
//! A mounted file system, or one that was not unmounted, has its newest changes only in the journal. Linux copies them to their
//! locations at the next mount; this driver only records the location of each copy. It applies the rules of Linux's
//! `fs/jbd2/recovery.c` to decide which transactions are committed (format: `Documentation/filesystems/ext4/journal.rst`).

mod block;
mod checksum;
mod log_reader;
mod scan;
mod superblock;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc};

use self::{
    log_reader::LogReader,
    scan::{CommittedLog, PackedLocation, scan},
    superblock::JournalSuperblock,
};
pub(super) use self::{scan::JournalBlock, superblock::MAGIC};
use crate::{
    fs::{BlockDevice, Error, FileMap},
    memory::{DiskMemory, Reservation},
};

/// The number of times that the log is read again if its tail moves meanwhile. It moves a few times a second at most.
const MAX_ATTEMPTS: usize = 4;

/// The newest committed copies of blocks that are in the journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Blocks of the file system and the locations of their copies, sorted by block.
    copies: Vec<(u64, PackedLocation)>,
    _memory: Option<Reservation>,
}

impl Journal {
    /// Reads a journal; `log` is the content of its inode, `block_size` that of the file system in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if a committed transaction is damaged and intact ones follow, [`Error::Unsupported`],
    /// [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn read(
        log: &FileMap,
        disk: &Arc<dyn BlockDevice>,
        block_size: u32,
        memory: &DiskMemory,
    ) -> Result<Self, Error> {
        let disk = disk.as_ref();
        let mut superblock = JournalSuperblock::read(log, disk, block_size).await?;
        for _ in 0..MAX_ATTEMPTS {
            let journal = Self::read_log(log, disk, &superblock, memory).await;
            // The system that mounts the disk may have checkpointed the oldest transactions meanwhile and reused their blocks. It
            // updates the superblock before.
            let current = JournalSuperblock::read(log, disk, block_size).await?;
            if current == superblock {
                return journal;
            }
            superblock = current;
        }
        Err(Error::corrupt("journal", "changes faster than it can be read"))
    }

    /// Returns the copy of a block of the file system.
    pub(super) fn get(&self, block: u64) -> Option<JournalBlock> {
        self.range(block..block.saturating_add(1)).next().map(|(_, copy)| copy)
    }

    /// Returns the copies of a range of blocks, sorted by block number.
    pub(super) fn range(&self, blocks: Range<u64>) -> impl Iterator<Item = (u64, JournalBlock)> {
        let first = self.copies.partition_point(|(block, _)| *block < blocks.start);
        let copies = self.copies.get(first..).unwrap_or_default();
        copies.iter().take_while(move |(block, _)| *block < blocks.end).map(|(block, copy)| (*block, copy.unpack()))
    }

    /// Reads the log from its tail to its head.
    async fn read_log(
        log: &FileMap,
        disk: &dyn BlockDevice,
        superblock: &JournalSuperblock,
        memory: &DiskMemory,
    ) -> Result<Self, Error> {
        let Some(tail) = superblock.tail else {
            return Ok(Self::default());
        };
        let mut log = LogReader::new(log, disk, superblock, tail, memory)?;
        let committed = scan(&mut log, superblock, memory).await?;
        if let Some(first) = superblock.first_fast_commit
            && block::is_fast_commit(&log.read_block(first).await?, committed.next_sequence)
        {
            return Err(Error::unsupported("journal", "contains fast commits that are not checkpointed"));
        }
        Self::from_log(committed, memory)
    }

    /// Selects the newest copy of each block. A revoke record of the same or a later transaction invalidates a copy: the block was
    /// freed, and may have been reused for content that is not journaled.
    fn from_log(log: CommittedLog, memory: &DiskMemory) -> Result<Self, Error> {
        let CommittedLog { mut copies, mut revokes, .. } = log;
        revokes.sort_unstable_by_key(|record| (record.block, record.transaction));
        copies.retain(|copy| {
            let after = revokes.partition_point(|record| record.block <= copy.block);
            let newest = after.checked_sub(1).and_then(|index| revokes.get(index));
            newest.is_none_or(|record| record.block != copy.block || record.transaction < copy.transaction)
        });
        copies.sort_unstable_by_key(|copy| (copy.block, copy.index));
        copies.dedup_by(|newer, older| {
            let is_same = newer.block == older.block;
            if is_same {
                *older = *newer;
            }
            is_same
        });
        let reservation = memory.reserve(copies.len() * size_of::<(u64, PackedLocation)>())?;
        let copies = copies.iter().map(|copy| (copy.block, copy.location)).collect();
        Ok(Self { copies, _memory: Some(reservation) })
    }
}
