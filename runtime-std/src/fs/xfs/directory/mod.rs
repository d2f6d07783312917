//! Directories (Linux, `fs/xfs/libxfs/xfs_da_format.h`).
//!
//! The entries of a short directory are in its inode. Those of others are in blocks at the start of their content. If there are
//! several blocks, an index of the hashes of the names follows at an offset of 32 GiB. A name is looked up in the index; all names are
//! read from the blocks.

mod content;
mod data;
mod entry;
mod index;
mod short;

pub(super) use self::entry::{Entry, Found};
use self::{content::Content, data::entries};
use super::{
    block_reader::BlockReader,
    inode::{Format, Inode},
};
use crate::fs::Error;

/// Looks up a name.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if the directory is too large, [`Error::TooMuchWork`], [`Error::OutOfMemory`],
/// [`Error::Io`].
pub(super) async fn lookup(blocks: &BlockReader, directory: &Inode, name: &[u8]) -> Result<Option<Found>, Error> {
    let found = |entry: Entry<'_>| (entry.inode, entry.file_type);
    if directory.format == Format::Local {
        let entries = short::entries(directory, blocks.superblock.features.has_ftype);
        return entries.map(|entries| entries.into_iter().find(|entry| entry.name == name).map(found));
    }
    let content = Content::open(blocks, directory).await?;
    if content.has_index() {
        return index::lookup(&content, name).await;
    }
    let mut position = 0;
    while let Some((block, next)) = content.next_block(position).await? {
        for entry in entries(&content, &block) {
            let entry = entry?;
            if entry.name == name {
                return Ok(Some(found(entry)));
            }
        }
        position = next;
    }
    Ok(None)
}

/// Calls `visit` with each entry except `.` and `..`.
///
/// # Errors
///
/// Those of `visit` and of [`lookup`].
pub(super) async fn for_each_entry(
    blocks: &BlockReader,
    directory: &Inode,
    mut visit: impl FnMut(Entry<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if directory.format == Format::Local {
        return short::entries(directory, blocks.superblock.features.has_ftype)?.into_iter().try_for_each(visit);
    }
    let content = Content::open(blocks, directory).await?;
    let mut position = 0;
    while let Some((block, next)) = content.next_block(position).await? {
        for entry in entries(&content, &block) {
            visit(entry?)?;
        }
        position = next;
    }
    Ok(())
}
