//! The log: changes of metadata that have been committed but not yet written to their locations.
//!
//! A mounted file system, or one that was not unmounted, has its newest changes only in the log. Linux writes them to their locations
//! at the next mount (`fs/xfs/xfs_log_recover.c`); this driver keeps them in memory, and applies them to what it reads. It decides by
//! the rules of Linux which transactions are committed, and which changes a structure on the disk already contains.

mod buffer_item;
mod changes;
mod head;
mod icreate_item;
mod inode_item;
mod position;
mod record;
mod replay;
mod ring;
#[cfg(test)]
pub(super) mod testing;
mod transaction;

pub(super) use self::changes::{BUFFER_HEADER, Changes, InodeBase, buffer_lsn, describe};
use self::{head::Head, replay::replay, ring::Ring};
use super::superblock::Superblock;
use crate::fs::{Error, Volume};

/// The number of times that the log is read again if it changes meanwhile.
const MAX_ATTEMPTS: usize = 4;

/// Returns the position at which the log ends, as far as its first words show: it differs after each record that was written.
///
/// # Errors
///
/// As [`Log::read`].
pub(super) async fn end_lsn(volume: &Volume, superblock: &Superblock) -> Result<u64, Error> {
    let end = head::approximate_end(&Ring::new(volume, superblock)?).await?;
    Ok(end.map_or(0, position::Position::lsn))
}

/// The log of a file system.
#[derive(Debug)]
pub(super) struct Log {
    /// The changes that must be applied to the structures on the disk.
    pub(super) changes: Changes,
    /// The LSN of the newest state of a structure that [`changes`](Self::changes) complete. Newer ones were written later.
    pub(super) newest_lsn: u64,
    /// Whether the file system was unmounted.
    pub(super) is_clean: bool,
}

impl Log {
    /// Reads the log of the file system in a volume.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the log is on another device, or contains what only Linux can complete; [`Error::Corrupt`],
    /// [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn read(volume: &Volume, superblock: &Superblock) -> Result<Self, Error> {
        let ring = Ring::new(volume, superblock)?;
        let mut head = Head::find(&ring, superblock).await;
        for _ in 0..MAX_ATTEMPTS {
            let log = match &head {
                Ok(head) => Self::read_from(&ring, superblock, head).await,
                Err(error) => Err(error.clone()),
            };
            let Err(error @ (Error::Corrupt(_) | Error::Unsupported(_))) = log else { return log };
            // The system that mounts the disk may have overwritten the oldest records meanwhile, or be writing the newest.
            let current = Head::find(&ring, superblock).await;
            if current == head {
                return Err(error);
            }
            head = current;
        }
        Err(Error::corrupt("log", "changes faster than it can be read"))
    }

    async fn read_from(ring: &Ring<'_>, superblock: &Superblock, head: &Head) -> Result<Self, Error> {
        if head.is_clean {
            let changes = Changes::new(ring.volume.memory().reserve(0)?);
            return Ok(Self { changes, newest_lsn: head.end.lsn(), is_clean: true });
        }
        let unknown = superblock.features.unknown_log_features();
        if unknown != 0 {
            return Err(Error::unsupported("log", format!("unknown log features {unknown:#x}")));
        }
        let (changes, newest_lsn) = replay(ring, superblock, head).await?;
        Ok(Self { changes, newest_lsn, is_clean: false })
    }
}
