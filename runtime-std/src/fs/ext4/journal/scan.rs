//! Collects the committed transactions of the log.

use super::{
    block::{self, BlockType, Tag},
    checksum::TransactionChecksum,
    log_reader::LogReader,
    superblock::JournalSuperblock,
};
use crate::{
    fs::Error,
    memory::{DiskMemory, Reservation},
};

/// The maximum number of copies and of revoke records: as many as the largest journal that mke2fs creates by default, of 1 GiB, has
/// blocks of 4 KiB.
const MAX_RECORDS: usize = 1 << 18;

/// The contents of the committed transactions, oldest first.
#[derive(Debug)]
pub(super) struct CommittedLog {
    /// The copies of blocks.
    pub(super) copies: Vec<BlockCopy>,
    /// The revoke records.
    pub(super) revokes: Vec<RevokeRecord>,
    /// The sequence number of the transaction after the last one.
    pub(super) next_sequence: u32,
    /// The memory of `copies` and `revokes`.
    _memory: Reservation,
}

/// The location of a copy of a block in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct JournalBlock {
    /// The offset on the disk in bytes.
    pub(in super::super) disk_offset: u64,
    /// Whether the block starts with [`MAGIC`](super::MAGIC). The copy has zeros instead, to distinguish it from the blocks of the
    /// log itself.
    pub(in super::super) is_escaped: bool,
}

/// A [`JournalBlock`] in eight bytes: no disk is larger than `i64::MAX` bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedLocation(u64);

/// A copy of a block in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockCopy {
    /// The block of the file system.
    pub(super) block: u64,
    /// The location of the copy.
    pub(super) location: PackedLocation,
    /// The transaction, counted from the oldest in the log. Unlike sequence numbers, these do not wrap.
    pub(super) transaction: u32,
    /// The number of copies before it.
    pub(super) index: u32,
}

impl PackedLocation {
    fn new(location: JournalBlock) -> Self {
        Self(location.disk_offset << 1 | u64::from(location.is_escaped))
    }

    pub(super) fn unpack(self) -> JournalBlock {
        JournalBlock { disk_offset: self.0 >> 1, is_escaped: self.0 & 1 != 0 }
    }
}

/// The invalidation of a block's earlier copies.
#[derive(Debug)]
pub(super) struct RevokeRecord {
    /// The block of the file system.
    pub(super) block: u64,
    /// As in [`BlockCopy::transaction`].
    pub(super) transaction: u32,
}

/// Reads the log from its tail, transaction by transaction.
///
/// A transaction is committed if its commit block is present and all of its blocks match their checksums. The first one that is not
/// ends the log: it was being written when the power failed, or is being written now. Linux would refuse to mount the file system if
/// only a descriptor or a copy mismatched. A reader of a mounted disk, however, may see a commit block before the blocks that were
/// written ahead of it. If an intact transaction follows, committed data is damaged, and no consistent state can be restored.
///
/// # Errors
///
/// [`Error::Corrupt`] if committed data is damaged, [`Error::Unsupported`] if the log exceeds a limit, [`Error::OutOfMemory`],
/// [`Error::Io`].
pub(super) async fn scan(
    log: &mut LogReader<'_>,
    superblock: &JournalSuperblock,
    memory: &DiskMemory,
) -> Result<CommittedLog, Error> {
    let mut scanner = Scanner::new(superblock, memory.reserve(0)?);
    while let Some((_, block)) = log.next().await? {
        let continues = match block::block_type(block, scanner.sequence) {
            Some(BlockType::Descriptor) => {
                let tags = scanner.descriptor(block);
                scanner.copies(log, &tags).await?
            }
            Some(BlockType::Revoke) => {
                scanner.revoke(block)?;
                true
            }
            Some(BlockType::Commit) => scanner.commit(block)?,
            // Never written, or a block of an earlier pass, which has another sequence number.
            None => false,
        };
        if !continues {
            break;
        }
    }
    Ok(scanner.finish())
}

struct Scanner<'a> {
    superblock: &'a JournalSuperblock,
    /// The sequence number of the current transaction.
    sequence: u32,
    /// The current transaction, counted from the oldest in the log.
    transaction: u32,
    /// The copies of the committed transactions, then those of the current one.
    copies: Vec<BlockCopy>,
    /// The revoke records of the committed transactions, then those of the current one.
    revokes: Vec<RevokeRecord>,
    /// The number of copies and of revoke records of the committed transactions.
    committed: (usize, usize),
    /// The memory of `copies` and `revokes`.
    memory: Reservation,
    /// Whether all blocks of the current transaction match their checksums.
    is_intact: bool,
    checksum: TransactionChecksum,
    /// The time of the last committed transaction, in seconds since 1970.
    last_commit_time: u64,
    /// The sequence number of the first damaged transaction.
    first_damaged: Option<u32>,
}

impl<'a> Scanner<'a> {
    fn new(superblock: &'a JournalSuperblock, memory: Reservation) -> Self {
        Self {
            superblock,
            sequence: superblock.sequence,
            transaction: 0,
            copies: Vec::new(),
            revokes: Vec::new(),
            committed: (0, 0),
            memory,
            is_intact: true,
            checksum: TransactionChecksum::new(superblock.checksum_mode),
            last_commit_time: 0,
            first_damaged: None,
        }
    }

    fn descriptor(&mut self, block: &[u8]) -> Vec<Tag> {
        self.is_intact &= self.superblock.checksum_mode.matches_tail(block);
        self.checksum.update(block);
        block::tags(block, self.superblock)
    }

    /// Records the copies behind a descriptor block; reads them only if they have checksums. Returns `false` if the log ends before.
    ///
    /// A damaged copy counts even if a later revoke record invalidates it. Linux ignores such a copy, but rejecting a damaged log is
    /// safer, and needs only one pass.
    async fn copies(&mut self, log: &mut LogReader<'_>, tags: &[Tag]) -> Result<bool, Error> {
        let mode = self.superblock.checksum_mode;
        for tag in tags {
            let disk_offset = if mode.covers_copies() {
                let Some((disk_offset, copy)) = log.next().await? else { return Ok(false) };
                self.is_intact &= mode.matches_copy(copy, self.sequence, tag.checksum);
                self.checksum.update(copy);
                disk_offset
            } else {
                let Some(disk_offset) = log.skip()? else { return Ok(false) };
                disk_offset
            };
            if self.copies.len() == MAX_RECORDS {
                return Err(Error::unsupported("journal", format!("more than {MAX_RECORDS} copies of blocks")));
            }
            let location = PackedLocation::new(JournalBlock { disk_offset, is_escaped: tag.is_escaped });
            self.memory.make_room(&mut self.copies)?;
            let (transaction, index) = (self.transaction, self.copies.len() as u32);
            self.copies.push(BlockCopy { block: tag.block, location, transaction, index });
        }
        Ok(true)
    }

    fn revoke(&mut self, block: &[u8]) -> Result<(), Error> {
        self.is_intact &= self.superblock.checksum_mode.matches_tail(block);
        let Some(revoked) = block::revoked_blocks(block, self.superblock) else {
            self.is_intact = false;
            return Ok(());
        };
        for block in revoked {
            if self.revokes.len() == MAX_RECORDS {
                return Err(Error::unsupported("journal", format!("more than {MAX_RECORDS} revoked blocks")));
            }
            self.memory.make_room(&mut self.revokes)?;
            self.revokes.push(RevokeRecord { block, transaction: self.transaction });
        }
        Ok(())
    }

    /// Ends the current transaction. Returns `false` if it is the last one of the log.
    fn commit(&mut self, block: &[u8]) -> Result<bool, Error> {
        let mode = self.superblock.checksum_mode;
        let checksum = std::mem::replace(&mut self.checksum, TransactionChecksum::new(mode));
        let is_intact = std::mem::replace(&mut self.is_intact, true) && mode.matches_commit(block, checksum);
        let time = block::commit_time(block);
        match (is_intact, self.first_damaged) {
            (true, None) => {
                self.committed = (self.copies.len(), self.revokes.len());
                self.last_commit_time = time;
            }
            (true, Some(damaged)) => {
                let intact = self.sequence;
                return Err(Error::corrupt(
                    ("journal transaction", damaged),
                    format!("damaged, but transaction {intact} after it is intact"),
                ));
            }
            // A remnant of an earlier file system whose sequence numbers happen to continue here. Linux compares times as well.
            (false, _) if time < self.last_commit_time => return Ok(false),
            (false, _) => {
                self.first_damaged.get_or_insert(self.sequence);
            }
        }
        self.discard_uncommitted();
        self.sequence = self.sequence.wrapping_add(1);
        self.transaction += 1;
        Ok(true)
    }

    fn discard_uncommitted(&mut self) {
        let (copies, revokes) = self.committed;
        self.copies.truncate(copies);
        self.revokes.truncate(revokes);
    }

    fn finish(mut self) -> CommittedLog {
        self.discard_uncommitted();
        let next_sequence = self.first_damaged.unwrap_or(self.sequence);
        CommittedLog { copies: self.copies, revokes: self.revokes, next_sequence, _memory: self.memory }
    }
}
