//! Locates the journal of a file system that needs recovery, and reads it.

use super::{
    block_reader::BlockReader,
    checksum::Checksum,
    group_descriptor,
    inode::{EXTENTS, Inode, corrupt},
    journal::Journal,
    map::{EXTENT_MAGIC, map},
    superblock::{JournalBackup, Superblock},
};
use crate::{
    fs::{
        Error, FileIdentity, FileMap, FileType,
        bytes::{array_at, le},
    },
    memory::Reservation,
};

/// The minimum size of a journal in blocks (`JBD2_MIN_JOURNAL_BLOCKS`).
const MIN_BLOCKS: u64 = 1024;

/// A journal, and where it was found.
pub(super) struct FoundJournal {
    pub(super) journal: Journal,
    /// Why the inode of the journal is unusable, if the copy in the superblock was used in its place.
    pub(super) unusable_inode: Option<Error>,
}

/// Reads the journal of a file system. Like Linux, locates it with its inode. The superblock has a copy of the inode's map, which
/// some programs do not update when they move the journal: it is used only if the inode is unusable.
///
/// # Errors
///
/// [`Error::Unsupported`] if the journal is on another device or contains fast commits, [`Error::Corrupt`], [`Error::Io`].
pub(super) async fn read_journal(blocks: &BlockReader, superblock: &Superblock) -> Result<FoundJournal, Error> {
    if superblock.journal_inode == 0 {
        return Err(Error::unsupported("journal", "on another device and needs recovery"));
    }
    let ((log, _memory), unusable_inode) = match (map_inode(blocks, superblock).await, &superblock.journal_backup) {
        (Err(error @ Error::Corrupt(_)), Some(backup)) => {
            (map(blocks, &inode_from_backup(superblock.journal_inode, backup)).await?, Some(error))
        }
        (log, _) => (log?, None),
    };
    let volume = blocks.volume();
    let journal = Journal::read(&log, volume.device(), blocks.block_size, volume.memory()).await?;
    Ok(FoundJournal { journal, unusable_inode })
}

/// Maps the inode of the journal, with the checks of `ext4_get_journal_inode`.
async fn map_inode(blocks: &BlockReader, superblock: &Superblock) -> Result<(FileMap, Reservation), Error> {
    let number = superblock.journal_inode;
    let bytes = group_descriptor::read_inode(blocks, superblock, number).await?;
    let inode = Inode::parse(number, &bytes, superblock.checksum_seed)?;
    if inode.file_type != FileType::File || inode.size < MIN_BLOCKS * u64::from(blocks.block_size) {
        return Err(corrupt(number, "not a journal"));
    }
    map(blocks, &inode).await
}

/// Creates the inode of the journal from its backup in the superblock.
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
