//! Maps the content of inodes to the disk.
//!
//! An inode has either an extent tree or a tree of indirect blocks. Both are traversed iteratively, in the order of the file. The
//! traversal ends on any disk: extents must be in ascending order, and the number of extents and tree nodes is limited.

mod extent_tree;
mod indirect_blocks;
mod mapper;
#[cfg(test)]
mod tests;

pub(super) use self::extent_tree::MAGIC as EXTENT_MAGIC;
use self::mapper::Mapper;
use super::{block_reader::BlockReader, inode::Inode};
use crate::{
    fs::{Error, FileMap},
    memory::Reservation,
};

/// Returns the size and the extents of an inode's content, and their memory.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if there are too many extents, [`Error::OutOfMemory`], [`Error::Io`].
pub(super) async fn map(blocks: &BlockReader, inode: &Inode) -> Result<(FileMap, Reservation), Error> {
    let mut mapper = Mapper::new(blocks, inode, blocks.volume().memory().reserve(0)?);
    if inode.has_extents() {
        extent_tree::traverse(&mut mapper).await?;
    } else {
        indirect_blocks::traverse(&mut mapper).await?;
    }
    Ok(mapper.finish())
}
