//! Finds what a log has that was committed.

use super::{
    Copied,
    blocks::{self, Kind, Tag},
    checksum::{Checksums, Transaction},
    log::{Log, MOST},
    superblock::Superblock,
};
use crate::fs::Error;

/// What a log has that was committed, oldest first.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// The copies of blocks.
    pub(super) copies: Vec<Logged>,
    /// The blocks that were revoked, and in which transaction, counted as in [`Logged`].
    pub(super) revokes: Vec<(u64, u32)>,
    /// The number that the owner gives to the transaction behind the last.
    pub(super) next: u32,
}

/// A copy of a block in the log.
#[derive(Debug)]
pub(super) struct Logged {
    /// The block of the file system.
    pub(super) block: u64,
    /// Where the copy is.
    pub(super) copied: Copied,
    /// The transaction it belongs to, counted from the oldest in the log: these numbers do not wrap.
    pub(super) transaction: u32,
}

/// Goes through the log from its beginning, transaction by transaction.
///
/// A transaction counts if its commit block is there and all that belongs to it agrees with its checksums. The first that does not
/// is the end of the log: it was being written when the power failed, or is at this moment. Its kernel would not mount the disk if
/// only a descriptor or a copy disagreed; but a reader without a mount may well see a commit block, and not yet what its owner wrote
/// before it. If however a good transaction follows, then something was damaged that had been committed, and no state that can be
/// told is one that the disk was ever in.
///
/// # Errors
///
/// [`Error::Corrupt`] then, [`Error::Unsupported`] if there is too much, [`Error::Io`].
pub(super) async fn scan(log: &mut Log<'_>, superblock: &Superblock) -> Result<Committed, Error> {
    let mut scan = Scan::new(superblock);
    while let Some((_, block)) = log.next().await? {
        let go_on = match blocks::kind(block, scan.sequence) {
            Some(Kind::Descriptor) => {
                let tags = scan.descriptor(block);
                scan.copies(log, &tags).await?
            }
            Some(Kind::Revoke) => {
                scan.revoke(block)?;
                true
            }
            Some(Kind::Commit) => scan.commit(block)?,
            // Never used, or left behind by an older lap: every transaction has a number of its own.
            None => false,
        };
        if !go_on {
            break;
        }
    }
    scan.committed.next = scan.broken.unwrap_or(scan.sequence);
    Ok(scan.committed)
}

struct Scan<'a> {
    superblock: &'a Superblock,
    /// The number of the transaction that is being read.
    sequence: u32,
    /// The same, counted from the oldest in the log.
    transaction: u32,
    open: Open,
    committed: Committed,
    /// When the last transaction was committed, by its owner's clock.
    time: u64,
    /// The number of the first transaction that is damaged.
    broken: Option<u32>,
}

/// What was read of a transaction before its commit block.
struct Open {
    copies: Vec<Logged>,
    revokes: Vec<(u64, u32)>,
    whole: bool,
    sum: Transaction,
}

impl Open {
    fn new(checksums: Checksums) -> Self {
        Self { copies: Vec::new(), revokes: Vec::new(), whole: true, sum: Transaction::new(checksums) }
    }
}

impl<'a> Scan<'a> {
    fn new(superblock: &'a Superblock) -> Self {
        Self {
            superblock,
            sequence: superblock.sequence,
            transaction: 0,
            open: Open::new(superblock.checksums),
            committed: Committed::default(),
            time: 0,
            broken: None,
        }
    }

    fn descriptor(&mut self, block: &[u8]) -> Vec<Tag> {
        self.open.whole &= self.superblock.checksums.table_is_whole(block);
        self.open.sum.update(block);
        blocks::tags(block, self.superblock)
    }

    /// Takes the copies behind a descriptor, reading them only if they have checksums. False if the log is too short for them.
    ///
    /// A damaged copy counts even if it is revoked later. The kernel lets it pass then; but a log with damage in it is better
    /// refused, and this way one pass is enough.
    async fn copies(&mut self, log: &mut Log<'_>, tags: &[Tag]) -> Result<bool, Error> {
        let checksums = self.superblock.checksums;
        for tag in tags {
            let place = if checksums.cover_copies() {
                let Some((place, copy)) = log.next().await? else { return Ok(false) };
                self.open.whole &= checksums.copy_is_whole(copy, self.sequence, tag.sum);
                self.open.sum.update(copy);
                place
            } else {
                let Some(place) = log.skip()? else { return Ok(false) };
                place
            };
            let copied = Copied { place, escaped: tag.escaped };
            self.open.copies.push(Logged { block: tag.block, copied, transaction: self.transaction });
        }
        Ok(true)
    }

    fn revoke(&mut self, block: &[u8]) -> Result<(), Error> {
        self.open.whole &= self.superblock.checksums.table_is_whole(block);
        let Some(revoked) = blocks::revoked(block, self.superblock) else {
            self.open.whole = false;
            return Ok(());
        };
        self.open.revokes.extend(revoked.map(|block| (block, self.transaction)));
        if self.open.revokes.len() + self.committed.revokes.len() > MOST as usize {
            return Err(Error::unsupported("journal", format!("more than {MOST} revoked blocks")));
        }
        Ok(())
    }

    /// Ends a transaction. False if it is the last of the log.
    fn commit(&mut self, block: &[u8]) -> Result<bool, Error> {
        let checksums = self.superblock.checksums;
        let Open { mut copies, mut revokes, whole, sum } = std::mem::replace(&mut self.open, Open::new(checksums));
        let whole = whole && checksums.commit_is_whole(block, sum);
        let time = blocks::commit_time(block);
        match (whole, self.broken) {
            (true, None) => {
                self.committed.copies.append(&mut copies);
                self.committed.revokes.append(&mut revokes);
                self.time = time;
            }
            (true, Some(broken)) => {
                let good = self.sequence;
                return Err(Error::corrupt(
                    ("journal transaction", broken),
                    format!("damaged, but transaction {good} after it is intact"),
                ));
            }
            // Left behind by another file system whose numbers happen to go on here, as the kernel tells them.
            (false, _) if time < self.time => return Ok(false),
            (false, _) => {
                self.broken.get_or_insert(self.sequence);
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.transaction += 1;
        Ok(true)
    }
}
