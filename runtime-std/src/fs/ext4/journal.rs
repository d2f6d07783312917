//! The journal of ext3 and ext4 (JBD2): what was committed last is in there, and not yet in its place.
//!
//! The owner of a disk that is mounted, or that lost power, has its newest changes in the journal alone. Its kernel would copy them
//! into their places at the next mount; we only look up where they are. What counts as committed is decided as the kernel decides
//! it (`fs/jbd2/recovery.c`; the format is in its `Documentation/filesystems/ext4/journal.rst`).

mod blocks;
mod checksum;
mod log;
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
    log::Log,
    scan::{Committed, scan},
    superblock::Superblock,
};
use crate::fs::{BlockDevice, Error, FileMap};

/// How often the log is read anew if its owner moves its beginning meanwhile, which happens a few times in a second at most.
const TRIES: usize = 4;

/// Newer copies of blocks that are in the journal and not yet in their places.
#[derive(Debug, Default)]
pub(super) struct Journal {
    copies: BTreeMap<u64, Copied>,
}

/// Where the newer copy of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    /// Where it begins on the disk, in bytes from the start of the disk.
    pub(super) place: u64,
    /// Whether its first four bytes are `c0 3b 39 98`. The log keeps zeros in their place: they begin its own blocks.
    pub(super) escaped: bool,
}

impl Journal {
    /// Reads the log; `log` is the journal inode's file, `block_size` is the file system's.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if something committed is damaged and newer commits follow it, [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn load(log: &FileMap, disk: &Arc<dyn BlockDevice>, block_size: u32) -> Result<Self, Error> {
        let disk = disk.as_ref();
        let mut superblock = Superblock::read(log, disk, block_size).await?;
        for _ in 0..TRIES {
            let found = Self::replay(log, disk, &superblock).await;
            // The owner may have brought the oldest transactions to their places meanwhile and written others over them. It says
            // so in the superblock first.
            let now = Superblock::read(log, disk, block_size).await?;
            if now == superblock {
                return found;
            }
            superblock = now;
        }
        Err(Error::corrupt("journal", "changes faster than it can be read"))
    }

    /// The newer copy of a block of the file system.
    pub(super) fn find(&self, block: u64) -> Option<Copied> {
        self.copies.get(&block).copied()
    }

    /// The copies of blocks in a range, in order.
    pub(super) fn range(&self, blocks: Range<u64>) -> impl Iterator<Item = (u64, Copied)> {
        let end = blocks.end.max(blocks.start);
        self.copies.range(blocks.start..end).map(|(block, copied)| (*block, *copied))
    }

    /// Does in memory what the kernel does at a mount.
    async fn replay(log: &FileMap, disk: &dyn BlockDevice, superblock: &Superblock) -> Result<Self, Error> {
        let Some(start) = superblock.start else {
            return Ok(Self::default());
        };
        let mut log = Log::new(log, disk, superblock.block_size, superblock.ring.clone(), start);
        let committed = scan(&mut log, superblock).await?;
        if let Some(first) = superblock.fast_commits
            && blocks::is_fast_commit(&log.read(first).await?, committed.next)
        {
            return Err(Error::unsupported("journal", "contains fast commits that are not checkpointed"));
        }
        Ok(Self::newest(committed))
    }

    /// Keeps the newest copy of each block, unless the block was revoked in the same transaction or a later one: it was freed, and
    /// may have been used again for what is not kept in the journal.
    fn newest(committed: Committed) -> Self {
        let revoked: HashMap<u64, u32> = committed.revokes.into_iter().collect();
        let valid = committed.copies.into_iter().filter(|copy| match revoked.get(&copy.block) {
            Some(transaction) => copy.transaction > *transaction,
            None => true,
        });
        Self { copies: valid.map(|copy| (copy.block, copy.copied)).collect() }
    }
}
