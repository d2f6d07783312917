//! The creation of inodes (`struct xfs_icreate_log`), whose fields are big-endian.

use super::{changes::Changes, position::corrupt, transaction::Item};
use crate::fs::{Error, bytes::be, xfs::superblock::Superblock};

/// The type of the item.
pub(super) const TYPE: u16 = 0x123f;
/// The maximum number of blocks of the inodes that are created at once: 64 inodes of 2,048 bytes in blocks of 512 bytes.
const MAX_BLOCKS: u32 = 256;

/// Adds new inodes.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::OutOfMemory`].
pub(super) fn add_to(changes: &mut Changes, item: &Item<'_>, superblock: &Superblock) -> Result<(), Error> {
    let [group, block, _count, _inode_size, len] = [4, 8, 12, 16, 20].map(|at| be::u32_at(item.region(0), at));
    let offset = superblock.group_block_offset(group, block, len).filter(|_| (1..=MAX_BLOCKS).contains(&len));
    let offset = offset.ok_or_else(|| corrupt("invalid creation of inodes"))?;
    let block_size = superblock.block_size() as u64;
    (0..u64::from(len)).try_for_each(|block| changes.add_created(offset + block * block_size, block_size))
}
