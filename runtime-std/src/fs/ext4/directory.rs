//! Directory entries (Linux, `Documentation/filesystems/ext4/directory.rst`).
//!
//! Directories are read linearly: the blocks of a hash index look like empty blocks to a linear reader. [`DirectoryIndex`] remembers
//! what has been read.
//!
//! [`DirectoryIndex`]: super::directory_index::DirectoryIndex

use std::ops::ControlFlow;

use super::{
    block_reader::BlockReader,
    checksum::Checksum,
    inline_data,
    inode::{Inode, corrupt, unsupported},
    map::map,
};
use crate::{
    fs::{Error, FileMap, bytes::le},
    memory::Reservation,
};

/// The maximum size of a directory in bytes.
const MAX_DIRECTORY_SIZE: u64 = 64 << 20;
/// The number of bytes of a directory to read at once: a multiple of every block size.
pub(super) const CHUNK: u64 = 64 << 10;

/// The size of a directory entry without its name, in bytes.
const ENTRY_HEADER: usize = 8;
/// The size of the entry at the end of a block that contains the checksum (`ext4_dir_entry_tail`), in bytes.
const TAIL: usize = 12;
/// The file type of that entry (`EXT4_FT_DIR_CSUM`).
const TAIL_FILE_TYPE: u8 = 0xde;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
}

/// Calls `visit` with each entry of a directory except `.` and `..`, until it breaks. `has_dir_index` is the feature of the file
/// system.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if the directory is too large, [`Error::Io`].
pub(super) async fn for_each_entry(
    blocks: &BlockReader,
    directory: &Inode,
    has_dir_index: bool,
    mut visit: impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let number = directory.number;
    if directory.has_inline_data() {
        // The first four bytes are the inode number of the parent directory.
        let entries_in_block = directory.block.get(4..).unwrap_or_default();
        for part in [entries_in_block, inline_data::system_data(directory)?] {
            if for_each_entry_in_block(number, part, &mut visit)?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    let content = DirectoryContent::open(blocks, directory, has_dir_index).await?;
    let mut position = 0;
    loop {
        let chunk = content.read(blocks, position, CHUNK).await?;
        if chunk.is_empty() {
            return Ok(());
        }
        for block in chunk.chunks(blocks.block_size as usize) {
            if for_each_entry_in_block(number, block, &mut visit)?.is_break() {
                return Ok(());
            }
        }
        position += chunk.len() as u64;
    }
}

/// The content of a directory that consists of blocks.
#[derive(Debug)]
pub(super) struct DirectoryContent {
    /// The inode.
    number: u32,
    checksum_seed: Checksum,
    /// Whether the first block is the root of a hash index.
    has_dx_root: bool,
    map: FileMap,
    _memory: Reservation,
}

impl DirectoryContent {
    /// Maps a directory without inline data. `has_dir_index` is the feature of the file system.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`] if the directory is too large, [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn open(blocks: &BlockReader, directory: &Inode, has_dir_index: bool) -> Result<Self, Error> {
        let Inode { number, checksum_seed, .. } = *directory;
        if directory.size > MAX_DIRECTORY_SIZE {
            return Err(unsupported(number, "directory too large"));
        }
        let has_dx_root = has_dir_index && directory.is_indexed();
        let (map, memory) = map(blocks, directory).await?;
        Ok(Self { number, checksum_seed, has_dx_root, map, _memory: memory })
    }

    /// Returns the number of runs of blocks on the disk.
    pub(super) fn extent_count(&self) -> usize {
        self.map.extents.len()
    }

    /// Reads and verifies up to `len` bytes of whole blocks at `position`; none only at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn read(&self, blocks: &BlockReader, position: u64, len: u64) -> Result<Vec<u8>, Error> {
        let extents = &self.map.extents;
        let extent = extents.get(extents.partition_point(|extent| extent.end() <= position));
        let Some(extent) = extent.filter(|extent| extent.file_offset <= position) else {
            let is_end = position >= self.map.size;
            return if is_end { Ok(Vec::new()) } else { Err(corrupt(self.number, "directory with a hole")) };
        };
        let len = len.min(extent.end() - position) as usize;
        let mut chunk = blocks.read_extent(extent, position - extent.file_offset, len).await?;
        self.map.apply_patches(position, &mut chunk);
        for (index, block) in chunk.chunks(blocks.block_size as usize).enumerate() {
            let is_dx_root = self.has_dx_root && position == 0 && index == 0;
            verify(self.number, block, is_dx_root, self.checksum_seed)?;
        }
        Ok(chunk)
    }
}

/// Calls `visit` with each entry of a directory block, until it breaks.
fn for_each_entry_in_block(
    directory: u32,
    block: &[u8],
    visit: &mut impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    for entry in entries(directory, block) {
        if visit(entry?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Parses the entries of a block of the directory with inode number `directory`, except unused entries, `.` and `..`.
pub(super) fn entries(directory: u32, block: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Error>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let len = record_len(rest, block.len());
            let name_end = ENTRY_HEADER + usize::from(rest.get(6).copied().unwrap_or(0));
            let name = rest.get(ENTRY_HEADER..name_end).filter(|_| name_end <= len && len.is_multiple_of(4));
            let (Some(name), Some((entry, next))) = (name, rest.split_at_checked(len)) else {
                rest = &[];
                return Some(Err(corrupt(directory, "directory entry exceeds its block")));
            };
            rest = next;
            let inode = le::u32_at(entry, 0);
            if inode != 0 && name != b"." && name != b".." {
                return Some(Ok(Entry { name, inode }));
            }
        }
        None
    })
}

/// Verifies the checksum of a directory block. `is_dx_root` marks the root of a hash index, which is always the first block.
fn verify(directory: u32, block: &[u8], is_dx_root: bool, checksum_seed: Checksum) -> Result<(), Error> {
    /// The size of the fake entry in front of an inner index node (`dx_node`), in bytes.
    const DX_NODE_HEADER: usize = 8;
    /// The size of the entries `.` and `..` and of `dx_root_info`, in bytes.
    const DX_ROOT_HEADER: usize = 32;
    const DX_ENTRY: usize = 8;

    if checksum_seed == Checksum::NONE {
        return Ok(());
    }
    let object = ("directory block of inode", directory);
    let no_checksum = || corrupt(directory, "directory block without a checksum");
    // The fake entry of an inner index node covers the whole block.
    let is_dx_node = record_len(block, block.len()) == block.len();
    let index_offset = match (is_dx_root, is_dx_node) {
        (true, _) => DX_ROOT_HEADER,
        (false, true) => DX_NODE_HEADER,
        (false, false) => {
            let tail_offset = block.len() - TAIL.min(block.len());
            let (summed, tail) = block.split_at_checked(tail_offset).unwrap_or_default();
            let is_tail = le::u32_at(tail, 0) == 0
                && usize::from(le::u16_at(tail, 4)) == TAIL
                && tail.get(6..8) == Some(&[0, TAIL_FILE_TYPE]);
            if !is_tail {
                return Err(no_checksum());
            }
            return checksum_seed.update(summed).verify(le::u32_at(tail, 8), object);
        }
    };
    let [limit, count] = [0, 2].map(|at| usize::from(le::u16_at(block, index_offset + at)));
    let tail = block.get(index_offset + limit * DX_ENTRY..).and_then(|tail| tail.get(..8)).ok_or_else(no_checksum)?;
    let summed = block.get(..index_offset + count * DX_ENTRY).ok_or_else(no_checksum)?;
    let (reserved, stored) = tail.split_at_checked(4).unwrap_or_default();
    checksum_seed.update(summed).update(reserved).update(&[0; 4]).verify(le::u32_at(stored, 0), object)
}

/// Returns the size of a directory entry in bytes (`rec_len`). In blocks of 64 KiB, whose size exceeds 16 bits, it is encoded
/// (`ext4_rec_len_from_disk`).
fn record_len(entry: &[u8], block_len: usize) -> usize {
    let len = usize::from(le::u16_at(entry, 4));
    match len {
        _ if block_len < 65_536 => len,
        0 | 65_535 => block_len,
        _ => len & 0xfffc | (len & 3) << 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, len: u16, name: &[u8]) -> Vec<u8> {
        let mut entry = inode.to_le_bytes().to_vec();
        entry.extend(len.to_le_bytes());
        entry.extend([name.len() as u8, 1]);
        entry.extend(name);
        entry.resize(len.max(8).into(), 0);
        entry
    }

    fn names(block: &[u8]) -> Vec<Result<(u32, Vec<u8>), ()>> {
        let entries =
            entries(7, block).map(|entry| entry.map(|entry| (entry.inode, entry.name.to_vec())).map_err(|_| ()));
        entries.collect()
    }

    #[test]
    fn skips_unused_entries_and_dot_entries() {
        let parts = [
            entry(2, 12, b"."),
            entry(2, 12, b".."),
            entry(0, 16, b"gone"),
            entry(12, 12, b"a"),
            entry(13, 12, b"..."),
        ];
        assert_eq!(names(&parts.concat()), [Ok((12, b"a".to_vec())), Ok((13, b"...".to_vec()))]);
        assert_eq!(names(&[]), []);
    }

    #[test]
    fn invalid_entry_ends_the_block() {
        for invalid in [
            entry(13, 0, b""),
            entry(13, 4, b""),
            entry(13, 8, b"a"),
            entry(13, 14, b"a"),
            entry(13, 16, b"a")[..12].to_vec(),
        ] {
            assert_eq!(
                names(&[entry(12, 12, b"b"), invalid.clone()].concat()),
                [Ok((12, b"b".to_vec())), Err(())],
                "{invalid:?}"
            );
        }
        for len in 1..ENTRY_HEADER {
            assert_eq!(names(&entry(12, 8, b"")[..len]), [Err(())]);
        }
    }

    #[test]
    fn decodes_record_length_in_64_kib_blocks() {
        let mut block = entry(12, 65_535, b"all");
        block.resize(65_536, 0);
        assert_eq!(names(&block), [Ok((12, b"all".to_vec()))]);
        assert_eq!(record_len(&entry(12, 13, b""), 65_536), 0x1_000c);
    }
}
