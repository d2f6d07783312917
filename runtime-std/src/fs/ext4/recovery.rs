//! Finding the journal of a file system that was not unmounted.

use super::{
    super::{
        Error, FileIdentity, FileType,
        bytes::{array_at, le},
    },
    blocks::Blocks,
    checksum::Seed,
    group,
    inode::{EXTENTS, Inode},
    journal::Journal,
    map::map,
    superblock::Superblock,
};

/// Reads the journal of a file system.
///
/// # Errors
///
/// [`Error::Unsupported`] also if it is on another disk, or has fast commits in it: those are no blocks.
pub(super) async fn load(blocks: &Blocks, superblock: &Superblock) -> Result<Journal, Error> {
    if superblock.journal_inode == 0 {
        return Err(Error::unsupported("journal", "on another device and needs recovery"));
    }
    let inode = match superblock.journal_copy {
        Some(copy) => copied(superblock.journal_inode, &copy),
        None => {
            let bytes = group::read_inode(blocks, superblock, superblock.journal_inode).await?;
            Inode::parse(superblock.journal_inode, &bytes, superblock.seed)?
        }
    };
    let log = map(blocks, &inode).await?;
    let disk = blocks.volume().device();
    Journal::load(&log, disk, blocks.size).await
}

/// The inode of the journal from its copy in the superblock, which is good even if the inode itself is only so in the journal.
fn copied(number: u32, copy: &[u8; 68]) -> Inode {
    let block = array_at(copy, 0);
    // The flags are not copied. A tree of extents begins with these numbers, which are no two blocks of a journal.
    let is_tree = le::u16_at(&block, 0) == 0xf30a && le::u16_at(&block, 4) == 4;
    Inode {
        number,
        file_type: FileType::File,
        size: u64::from(le::u32_at(copy, 60)) << 32 | u64::from(le::u32_at(copy, 64)),
        flags: if is_tree { EXTENTS } else { 0 },
        block,
        attributes: Vec::new(),
        identity: FileIdentity::default(),
        // Nor is the generation, which the checksums of its blocks begin with.
        seed: Seed::NONE,
    }
}
