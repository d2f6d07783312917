//! Locates the journal of a file system that needs recovery, and reads it.

use super::{
    block_reader::BlockReader,
    checksum::Checksum,
    group_descriptor,
    inode::{EXTENTS, Inode},
    journal::Journal,
    map::{EXTENT_MAGIC, map},
    superblock::{JournalBackup, Superblock},
};
use crate::fs::{
    Error, FileIdentity, FileType,
    bytes::{array_at, le},
};

/// Reads the journal of a file system.
///
/// # Errors
///
/// [`Error::Unsupported`] if the journal is on another device or contains fast commits, [`Error::Corrupt`], [`Error::Io`].
pub(super) async fn read_journal(blocks: &BlockReader, superblock: &Superblock) -> Result<Journal, Error> {
    if superblock.journal_inode == 0 {
        return Err(Error::unsupported("journal", "on another device and needs recovery"));
    }
    let inode = match &superblock.journal_backup {
        Some(backup) => inode_from_backup(superblock.journal_inode, backup),
        None => {
            let bytes = group_descriptor::read_inode(blocks, superblock, superblock.journal_inode).await?;
            Inode::parse(superblock.journal_inode, &bytes, superblock.checksum_seed)?
        }
    };
    let log = map(blocks, &inode).await?;
    Journal::read(&log, blocks.volume().device(), blocks.block_size).await
}

/// Creates the inode of the journal from its backup in the superblock. The backup is valid even if the newest inode exists only in
/// the journal.
fn inode_from_backup(number: u32, backup: &JournalBackup) -> Inode {
    let block = array_at(backup, 0);
    // The backup has no flags. An extent tree starts with these numbers; as block pointers they would not be valid.
    let has_extents = le::u16_at(&block, 0) == EXTENT_MAGIC && le::u16_at(&block, 4) == 4;
    Inode {
        number,
        file_type: FileType::File,
        size: le::split_u64_at(backup, 64, 60),
        flags: if has_extents { EXTENTS } else { 0 },
        block,
        xattrs: Vec::new(),
        identity: FileIdentity::default(),
        // The backup has no generation, which is a part of the seed.
        checksum_seed: Checksum::NONE,
    }
}
