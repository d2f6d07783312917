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

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use self::{
    log_reader::LogReader,
    scan::{CommittedLog, scan},
    superblock::JournalSuperblock,
};
pub(super) use self::{scan::JournalBlock, superblock::MAGIC};
use crate::fs::{BlockDevice, Error, FileMap};

/// The number of times that the log is read again if its tail moves meanwhile. It moves a few times a second at most.
const MAX_ATTEMPTS: usize = 4;

/// The newest committed copies of blocks that are in the journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    copies: BTreeMap<u64, JournalBlock>,
}

impl Journal {
    /// Reads a journal; `log` is the content of its inode, `block_size` that of the file system in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if a committed transaction is damaged and intact ones follow, [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn read(log: &FileMap, disk: &Arc<dyn BlockDevice>, block_size: u32) -> Result<Self, Error> {
        let disk = disk.as_ref();
        let mut superblock = JournalSuperblock::read(log, disk, block_size).await?;
        for _ in 0..MAX_ATTEMPTS {
            let journal = Self::read_log(log, disk, &superblock).await;
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
        self.copies.get(&block).copied()
    }

    /// Returns the copies of a range of blocks, sorted by block number.
    pub(super) fn range(&self, blocks: Range<u64>) -> impl Iterator<Item = (u64, JournalBlock)> {
        let end = blocks.end.max(blocks.start);
        self.copies.range(blocks.start..end).map(|(block, copy)| (*block, *copy))
    }

    /// Reads the log from its tail to its head.
    async fn read_log(log: &FileMap, disk: &dyn BlockDevice, superblock: &JournalSuperblock) -> Result<Self, Error> {
        let Some(tail) = superblock.tail else {
            return Ok(Self::default());
        };
        let mut log = LogReader::new(log, disk, superblock.block_size, superblock.log_blocks.clone(), tail);
        let committed = scan(&mut log, superblock).await?;
        if let Some(first) = superblock.first_fast_commit
            && block::is_fast_commit(&log.read_block(first).await?, committed.next_sequence)
        {
            return Err(Error::unsupported("journal", "contains fast commits that are not checkpointed"));
        }
        Ok(Self::from_log(committed))
    }

    /// Selects the newest copy of each block. A revoke record of the same or a later transaction invalidates a copy: the block was
    /// freed, and may have been reused for content that is not journaled.
    fn from_log(log: CommittedLog) -> Self {
        let revoked: HashMap<u64, u32> =
            log.revokes.into_iter().map(|record| (record.block, record.transaction)).collect();
        let valid = log.copies.into_iter().filter(|copy| match revoked.get(&copy.block) {
            Some(transaction) => copy.transaction > *transaction,
            None => true,
        });
        Self { copies: valid.map(|copy| (copy.block, copy.location)).collect() }
    }
}
