//! Directories (Linux, `fs/xfs/libxfs/xfs_da_format.h`).
//!
//! The entries of a short directory are in its inode. Those of others are in blocks at the start of their content. If there are
//! several blocks, an index of the hashes of the names follows at an offset of 32 GiB. A name is looked up in the index; all names are
//! read from the blocks.

mod data;
mod index;
mod short;

use std::ops::Range;

use self::data::entries;
use super::{
    block_reader::{BlockReader, Structure},
    checksum,
    inode::{Format, Inode, corrupt, unsupported},
    map::map,
};
use crate::{
    fs::{Error, FileMap, FileType, bytes::be},
    memory::Reservation,
};

/// The offset of the index in a directory, and the offset of what follows it, in bytes (`XFS_DIR2_LEAF_OFFSET`).
const INDEX: Range<u64> = 32 << 30..64 << 30;
/// The maximum size of the blocks of entries in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    /// `None` if the directory does not record types.
    pub(super) file_type: Option<FileType>,
}

/// An entry that was found: its inode and its type, as in [`Entry`].
pub(super) type Found = (u64, Option<FileType>);

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

/// The content of a directory that consists of blocks.
struct Content<'a> {
    blocks: &'a BlockReader,
    /// The inode.
    number: u64,
    map: FileMap,
    _memory: Reservation,
}

impl<'a> Content<'a> {
    async fn open(blocks: &'a BlockReader, directory: &Inode) -> Result<Self, Error> {
        let number = directory.number;
        if directory.size > MAX_SIZE {
            return Err(unsupported(number, "directory too large"));
        }
        let (map, memory) = map(blocks, directory, 0..INDEX.end).await?;
        Ok(Self { blocks, number, map, _memory: memory })
    }

    fn block_size(&self) -> usize {
        self.blocks.superblock.directory_block_size()
    }

    fn is_v5(&self) -> bool {
        self.blocks.superblock.features.is_v5
    }

    fn has_index(&self) -> bool {
        self.map.extents.last().is_some_and(|extent| extent.end() > INDEX.start)
    }

    /// Reads the first block of entries at or after `position`, and returns it with the position after it; `None` at the end.
    async fn next_block(&self, position: u64) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let extents = &self.map.extents;
        let extent = extents.get(extents.partition_point(|extent| extent.end() <= position));
        let start = extent.map_or(u64::MAX, |extent| extent.file_offset.max(position));
        if start >= INDEX.start {
            return Ok(None);
        }
        if start >= MAX_SIZE {
            return Err(corrupt(self.number, "directory entries beyond its size"));
        }
        Ok(Some((self.read(start).await?, start + self.block_size() as u64)))
    }

    /// Reads and verifies the block of a directory at `position`, which may consist of several runs of blocks.
    async fn read(&self, position: u64) -> Result<Vec<u8>, Error> {
        let len = self.block_size();
        let hole = || corrupt(self.number, "directory with a hole");
        let (offset, _) = self.blocks.locate(&self.map, position)?.ok_or_else(hole)?;
        let mut block = Structure { bytes: Vec::new(), is_changed: false };
        while block.bytes.len() < len {
            let at = position + block.bytes.len() as u64;
            let part = self.blocks.read_mapped(&self.map, at, len - block.bytes.len()).await?;
            if part.bytes.is_empty() {
                return Err(hole());
            }
            block.is_changed |= part.is_changed;
            block.bytes.extend(part.bytes);
        }
        if self.is_v5() {
            let is_index = position >= INDEX.start;
            let (crc, place) = if is_index { (12, 16) } else { (4, 8) };
            if !block.is_changed {
                checksum::verify(&block.bytes, crc, ("directory block of inode", self.number))?;
            }
            if be::u64_at(&block.bytes, place) != offset / 512 {
                return Err(corrupt(self.number, "contains the block of another directory"));
            }
        }
        Ok(block.bytes)
    }

    fn inconsistent(&self) -> Error {
        corrupt(self.number, "inconsistent directory")
    }
}

/// Converts a type in a directory entry; `None` if it is unknown.
fn file_type(value: u8) -> Option<FileType> {
    match value {
        1 => Some(FileType::File),
        2 => Some(FileType::Directory),
        3..=6 => Some(FileType::Other),
        7 => Some(FileType::Link),
        _ => None,
    }
}
