//! Collects the committed transactions of the log.

use super::{
    block::{self, BlockType, Tag},
    checksum::{ChecksumMode, TransactionChecksum},
    log_reader::{LogReader, MAX_BLOCKS},
    superblock::JournalSuperblock,
};
use crate::fs::Error;

/// The contents of the committed transactions, oldest first.
#[derive(Debug, Default)]
pub(super) struct CommittedLog {
    /// The copies of blocks.
    pub(super) copies: Vec<BlockCopy>,
    /// The revoke records.
    pub(super) revokes: Vec<RevokeRecord>,
    /// The sequence number of the transaction after the last one.
    pub(super) next_sequence: u32,
}

/// The location of a copy of a block in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct JournalBlock {
    /// The offset on the disk in bytes.
    pub(in super::super) disk_offset: u64,
    /// Whether the block starts with [`MAGIC`](super::MAGIC). The copy has zeros instead, to distinguish it from the blocks of the log itself.
    pub(in super::super) is_escaped: bool,
}

/// A copy of a block in the log.
#[derive(Debug)]
pub(super) struct BlockCopy {
    /// The block of the file system.
    pub(super) block: u64,
    /// The location of the copy.
    pub(super) location: JournalBlock,
    /// The transaction, counted from the oldest in the log. Unlike sequence numbers, these do not wrap.
    pub(super) transaction: u32,
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
/// [`Error::Corrupt`] if committed data is damaged, [`Error::Unsupported`] if the log exceeds a limit, [`Error::Io`].
pub(super) async fn scan(log: &mut LogReader<'_>, superblock: &JournalSuperblock) -> Result<CommittedLog, Error> {
    let mut scanner = Scanner::new(superblock);
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
    scanner.committed.next_sequence = scanner.first_damaged.unwrap_or(scanner.sequence);
    Ok(scanner.committed)
}

struct Scanner<'a> {
    superblock: &'a JournalSuperblock,
    /// The sequence number of the current transaction.
    sequence: u32,
    /// The current transaction, counted from the oldest in the log.
    transaction: u32,
    current: Transaction,
    committed: CommittedLog,
    /// The time of the last committed transaction, in seconds since 1970.
    last_commit_time: u64,
    /// The sequence number of the first damaged transaction.
    first_damaged: Option<u32>,
}

/// The contents of a transaction before its commit block.
struct Transaction {
    copies: Vec<BlockCopy>,
    revokes: Vec<RevokeRecord>,
    /// Whether all blocks match their checksums.
    is_intact: bool,
    checksum: TransactionChecksum,
}

impl Transaction {
    fn new(mode: ChecksumMode) -> Self {
        Self { copies: Vec::new(), revokes: Vec::new(), is_intact: true, checksum: TransactionChecksum::new(mode) }
    }
}

impl<'a> Scanner<'a> {
    fn new(superblock: &'a JournalSuperblock) -> Self {
        Self {
            superblock,
            sequence: superblock.sequence,
            transaction: 0,
            current: Transaction::new(superblock.checksum_mode),
            committed: CommittedLog::default(),
            last_commit_time: 0,
            first_damaged: None,
        }
    }

    fn descriptor(&mut self, block: &[u8]) -> Vec<Tag> {
        self.current.is_intact &= self.superblock.checksum_mode.matches_tail(block);
        self.current.checksum.update(block);
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
                self.current.is_intact &= mode.matches_copy(copy, self.sequence, tag.checksum);
                self.current.checksum.update(copy);
                disk_offset
            } else {
                let Some(disk_offset) = log.skip()? else { return Ok(false) };
                disk_offset
            };
            let location = JournalBlock { disk_offset, is_escaped: tag.is_escaped };
            self.current.copies.push(BlockCopy { block: tag.block, location, transaction: self.transaction });
        }
        Ok(true)
    }

    fn revoke(&mut self, block: &[u8]) -> Result<(), Error> {
        self.current.is_intact &= self.superblock.checksum_mode.matches_tail(block);
        let Some(revoked) = block::revoked_blocks(block, self.superblock) else {
            self.current.is_intact = false;
            return Ok(());
        };
        let transaction = self.transaction;
        self.current.revokes.extend(revoked.map(|block| RevokeRecord { block, transaction }));
        if self.current.revokes.len() + self.committed.revokes.len() > MAX_BLOCKS as usize {
            return Err(Error::unsupported("journal", format!("more than {MAX_BLOCKS} revoked blocks")));
        }
        Ok(())
    }

    /// Ends the current transaction. Returns `false` if it is the last one of the log.
    fn commit(&mut self, block: &[u8]) -> Result<bool, Error> {
        let mode = self.superblock.checksum_mode;
        let Transaction { mut copies, mut revokes, is_intact, checksum } =
            std::mem::replace(&mut self.current, Transaction::new(mode));
        let is_intact = is_intact && mode.matches_commit(block, checksum);
        let time = block::commit_time(block);
        match (is_intact, self.first_damaged) {
            (true, None) => {
                self.committed.copies.append(&mut copies);
                self.committed.revokes.append(&mut revokes);
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
        self.sequence = self.sequence.wrapping_add(1);
        self.transaction += 1;
        Ok(true)
    }
}
