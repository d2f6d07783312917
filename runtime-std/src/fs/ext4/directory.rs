//! The names in a directory. See Linux, `Documentation/filesystems/ext4/directory.rst`.
//!
//! They are all looked at: an index only makes the blocks of a directory look as if they were empty where it is.

use std::ops::ControlFlow;

use super::{
    super::{Error, bytes::le},
    blocks::Blocks,
    checksum::Seed,
    inline,
    inode::{Inode, corrupt, unsupported},
    map::map,
};

/// How long a directory may be, in bytes.
const LONGEST: u64 = 64 << 20;
/// How much of a directory is read at once, in bytes: a number of whole blocks, whatever their size is.
const CHUNK: u64 = 64 << 10;

/// How long an entry is before its name, in bytes.
const HEAD: usize = 8;
/// How long the entry with the checksum at the end of a block is, in bytes.
const TAIL: usize = 12;
/// What stands in that entry for the kind of a file.
const TAIL_KIND: u8 = 0xde;

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
}

/// Calls back for every name in a directory but `.` and `..`, until it has enough; `may_be_indexed` if the file system has
/// indexes.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if there is too much of it, [`Error::Io`].
pub(super) async fn walk(
    blocks: &Blocks,
    directory: &Inode,
    may_be_indexed: bool,
    mut each: impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let number = directory.number;
    if directory.is_inline() {
        // It begins with the number of the directory above.
        let first = directory.block.get(4..).unwrap_or_default();
        for part in [first, inline::rest(directory)?] {
            if walk_block(number, part, &mut each)?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    if directory.size > LONGEST {
        return Err(unsupported(number, "directory too large"));
    }
    let mut at = 0;
    let map = map(blocks, directory).await?;
    for extent in &map.extents {
        let end = extent.file_offset + extent.len;
        while extent.file_offset <= at && at < end {
            let mut chunk = blocks.read_extent(extent, at - extent.file_offset, CHUNK.min(end - at) as usize).await?;
            map.apply_patches(at, &mut chunk);
            for block in chunk.chunks(blocks.size as usize) {
                let is_root = at == 0 && may_be_indexed && directory.is_indexed();
                verify(number, block, is_root, directory.seed)?;
                if walk_block(number, block, &mut each)?.is_break() {
                    return Ok(());
                }
                at += block.len() as u64;
            }
        }
    }
    if at < directory.size { Err(corrupt(number, "directory with a hole")) } else { Ok(()) }
}

/// Calls back for every name in a block of a directory, until it has enough.
fn walk_block(
    number: u32,
    block: &[u8],
    each: &mut impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    for entry in entries(number, block) {
        if each(entry?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The names in a block of the directory `number`, or in what stands for one; without `.` and `..`.
fn entries(number: u32, block: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Error>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let len = entry_len(rest, block.len());
            let name_len = usize::from(rest.get(6).copied().unwrap_or(0));
            let name = rest.get(HEAD..HEAD + name_len).filter(|_| HEAD + name_len <= len && len.is_multiple_of(4));
            let (Some(name), Some((entry, next))) = (name, rest.split_at_checked(len)) else {
                rest = &[];
                return Some(Err(corrupt(number, "directory entry exceeds its block")));
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

/// Compares a block of the directory `number` with its checksum; `is_root` if an index begins there.
fn verify(number: u32, block: &[u8], is_root: bool, seed: Seed) -> Result<(), Error> {
    if seed == Seed::NONE {
        return Ok(());
    }
    let what = ("directory block of inode", number);
    let none = || corrupt(number, "directory block without a checksum");
    let inner = block.len() - TAIL.min(block.len());
    // The one entry of an inner block of an index is as long as the block.
    let index = if is_root { Some(32) } else { (entry_len(block, block.len()) == block.len()).then_some(8) };
    let Some(index) = index else {
        let (summed, tail) = block.split_at_checked(inner).unwrap_or_default();
        let is_tail = le::u32_at(tail, 0) == 0
            && usize::from(le::u16_at(tail, 4)) == TAIL
            && tail.get(6..8) == Some(&[0, TAIL_KIND]);
        return if is_tail { seed.and(summed).verify(le::u32_at(tail, 8), what) } else { Err(none()) };
    };
    let [limit, count] = [0, 2].map(|at| usize::from(le::u16_at(block, index + at)));
    let tail = block.get(index + limit * 8..).and_then(|tail| tail.get(..8)).ok_or_else(none)?;
    let summed = block.get(..index + count * 8).ok_or_else(none)?;
    let (reserved, sum) = tail.split_at_checked(4).unwrap_or_default();
    seed.and(summed).and(reserved).and(&[0; 4]).verify(le::u32_at(sum, 0), what)
}

/// How long an entry says that it is, in bytes; 64 KiB do not fit into its 16 bits as they are.
fn entry_len(entry: &[u8], block_len: usize) -> usize {
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
    fn only_names_that_lead_somewhere_are_given() {
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
    fn an_entry_that_does_not_fit_ends_the_block() {
        for wrong in [
            entry(13, 0, b""),
            entry(13, 4, b""),
            entry(13, 8, b"a"),
            entry(13, 14, b"a"),
            entry(13, 16, b"a")[..12].to_vec(),
        ] {
            assert_eq!(
                names(&[entry(12, 12, b"b"), wrong.clone()].concat()),
                [Ok((12, b"b".to_vec())), Err(())],
                "{wrong:?}"
            );
        }
        for len in 1..HEAD {
            assert_eq!(names(&entry(12, 8, b"")[..len]), [Err(())]);
        }
    }

    #[test]
    fn entries_of_the_largest_blocks_are_longer_than_they_can_say() {
        let mut block = entry(12, 65_535, b"all");
        block.resize(65_536, 0);
        assert_eq!(names(&block), [Ok((12, b"all".to_vec()))]);
        assert_eq!(entry_len(&entry(12, 13, b""), 65_536), 0x1_000c);
    }
}
