//! Maps files to the disk (Linux, `struct btrfs_file_extent_item`).

use std::collections::BTreeMap;

use super::{
    data_checksums,
    inode::{Inode, corrupt, unsupported},
    subvolume::{ExtentChanges, Subvolume},
    tree::Trees,
};
use crate::fs::{
    Error, Extent, FileMap, Patch,
    bytes::le,
    compression::{Codec, Compressed},
    file_map::CompressedExtent,
    limits::MAX_EXTENTS,
};

/// The size of an item without the contents of an inline extent, and of other items, in bytes.
const INLINE: usize = 21;
const REGULAR: usize = 53;
/// The maximum length of a compressed extent, compressed and not, in bytes.
const MAX_COMPRESSED: u64 = 128 << 10;

/// The extents of a file by their offsets, without overlap.
type Runs = BTreeMap<u64, Run>;

/// A run of a file.
#[derive(Debug, Clone)]
struct Run {
    end: u64,
    /// The number of bytes of the extent before this run.
    skip: u64,
    contents: Contents,
}

#[derive(Debug, Clone)]
enum Contents {
    /// Zeros.
    None,
    Inline(Vec<u8>),
    /// The address.
    Disk(u64),
    /// The address, and the lengths.
    Compressed {
        codec: Codec,
        address: u64,
        len: u32,
        decoded: u32,
    },
}

impl Run {
    /// Returns the range of addresses that is read for this run, which starts at an offset of the file.
    fn addresses(&self, start: u64) -> Option<(u64, u64)> {
        let (address, len) = match self.contents {
            Contents::None | Contents::Inline(_) => return None,
            Contents::Disk(address) => (address.saturating_add(self.skip), self.end - start),
            Contents::Compressed { address, len, .. } => (address, u64::from(len)),
        };
        Some((address, address.saturating_add(len)))
    }
}

/// Maps a file.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
pub(super) async fn map(trees: &Trees, subvolume: &Subvolume, inode: &Inode) -> Result<FileMap, Error> {
    let (stored, _memory) = subvolume.stored_extents(trees, inode.number).await?;
    let mut runs = Runs::new();
    for (offset, item) in &stored {
        let run = parse(trees, inode.number, *offset, item)?;
        let overlaps = runs.last_key_value().is_some_and(|(_, last)| last.end > *offset);
        if overlaps {
            return Err(corrupt(inode.number, "overlapping extents"));
        }
        runs.insert(*offset, run);
    }
    let mut memory = trees.volume.memory().reserve(0)?;
    if let Some(ExtentChanges { keep, items }) = subvolume.changes.extents.get(&inode.number) {
        if let Some(keep) = keep {
            remove(&mut runs, *keep, u64::MAX);
        }
        for (offset, item) in items {
            let run = parse(trees, inode.number, *offset, item)?;
            memory.resize(memory.bytes() + 256 + item.len())?;
            // An inline extent replaces the whole block.
            let end = match run.contents {
                Contents::Inline(_) => run.end.next_multiple_of(trees.superblock.sector_size.into()),
                _ => run.end,
            };
            remove(&mut runs, *offset, end);
            runs.insert(*offset, run);
        }
    }
    let mut file =
        FileMap { size: inode.size, identity: inode.identity, modified: inode.modified, ..FileMap::default() };
    let mut ranges = Vec::new();
    for (start, run) in runs.into_iter().take_while(|(start, _)| *start < inode.size) {
        ranges.extend(run.addresses(start));
        add(trees, &mut file, start, run)?;
        if file.extents.len() + file.compressed.len() > MAX_EXTENTS {
            return Err(unsupported(inode.number, "too fragmented"));
        }
    }
    if inode.has_checksums() && !ranges.is_empty() {
        file.checksums = data_checksums::find(trees, subvolume, ranges).await?;
    }
    Ok(file)
}

/// Adds a run to a map.
fn add(trees: &Trees, file: &mut FileMap, start: u64, run: Run) -> Result<(), Error> {
    let len = run.end - start;
    let locate = |address: u64, len: u64| -> Result<u64, Error> {
        let copy = trees.chunks.locate(address, len)?.next();
        let offset = copy.ok_or_else(|| Error::corrupt(("address", address), "not on this device"))?;
        trees.volume.disk_offset(offset, len)
    };
    match run.contents {
        Contents::None => {}
        Contents::Inline(mut bytes) => {
            bytes.truncate(len as usize);
            file.patches.push(Patch { file_offset: start, bytes });
        }
        Contents::Disk(address) => {
            let address = address.saturating_add(run.skip);
            file.push(Extent { file_offset: start, len, disk_offset: locate(address, len)? });
        }
        Contents::Compressed { codec, address, len: compressed, decoded } => {
            let form = Compressed {
                codec,
                len: compressed as usize,
                decoded: decoded as usize,
                sector: trees.superblock.sector_size as usize,
            };
            let disk_offset = locate(address, u64::from(compressed))?;
            file.compressed.push(CompressedExtent { file_offset: start, len, disk_offset, form, skip: run.skip });
        }
    }
    Ok(())
}

/// Removes a range of a file.
fn remove(runs: &mut Runs, start: u64, end: u64) {
    while let Some((&at, _)) = runs.range(..end).next_back().filter(|(_, run)| run.end > start) {
        let Some(mut run) = runs.remove(&at) else { return };
        if run.end > end {
            let after = Run { skip: run.skip + (end - at), ..run.clone() };
            runs.insert(end, after);
        }
        if at < start {
            run.end = start;
            runs.insert(at, run);
        }
    }
}

/// Parses an extent item.
fn parse(trees: &Trees, number: u64, offset: u64, item: &[u8]) -> Result<Run, Error> {
    let inconsistent = || corrupt(number, "inconsistent extent");
    let byte = |at: usize| item.get(at).copied().unwrap_or(0);
    let sector = u64::from(trees.superblock.sector_size);
    if byte(17) != 0 || le::u16_at(item, 18) != 0 {
        return Err(unsupported(number, "encrypted"));
    }
    let codec = match byte(16) {
        0 => None,
        1 => Some(Codec::Zlib),
        2 => Some(Codec::Lzo),
        3 => Some(Codec::Zstd),
        _ => return Err(unsupported(number, "compressed in an unknown way")),
    };
    let decoded = le::u64_at(item, 8);
    if byte(20) == 0 {
        let stored = item.get(INLINE..).ok_or_else(inconsistent)?;
        if offset != 0 || decoded > sector.max(stored.len() as u64) {
            return Err(inconsistent());
        }
        let bytes = match codec {
            None => stored.to_vec(),
            Some(codec) => {
                let form = Compressed { codec, len: stored.len(), decoded: decoded as usize, sector: sector as usize };
                form.decode(stored).ok_or_else(inconsistent)?
            }
        };
        return match bytes.len() as u64 == decoded && decoded > 0 {
            true => Ok(Run { end: decoded, skip: 0, contents: Contents::Inline(bytes) }),
            false => Err(inconsistent()),
        };
    }
    if item.len() != REGULAR || !matches!(byte(20), 1 | 2) {
        return Err(inconsistent());
    }
    let [address, disk_len, skip, len] = [21, 29, 37, 45].map(|at| le::u64_at(item, at));
    let end = offset.checked_add(len).filter(|_| len > 0).ok_or_else(inconsistent)?;
    if [offset, address, disk_len, skip, len].iter().any(|value| value % sector != 0)
        || skip.checked_add(len).is_none_or(|end| address != 0 && end > decoded)
    {
        return Err(inconsistent());
    }
    let contents = match codec {
        _ if byte(20) == 2 || address == 0 => Contents::None,
        None if decoded <= disk_len => Contents::Disk(address),
        Some(codec) if disk_len <= MAX_COMPRESSED && decoded <= MAX_COMPRESSED => {
            Contents::Compressed { codec, address, len: disk_len as u32, decoded: decoded as u32 }
        }
        _ => return Err(inconsistent()),
    };
    Ok(Run { end, skip, contents })
}

/// Returns the target of a symbolic link.
///
/// # Errors
///
/// As [`map`].
pub(super) async fn link_target(trees: &Trees, subvolume: &Subvolume, link: &Inode) -> Result<Vec<u8>, Error> {
    let map = map(trees, subvolume, link).await?;
    // `mkfs.btrfs --rootdir` writes a NUL after the target.
    match map.patches.into_iter().next() {
        Some(mut patch) if patch.bytes.len() as u64 >= link.size => {
            patch.bytes.truncate(link.size as usize);
            Ok(patch.bytes)
        }
        _ => Err(corrupt(link.number, "inconsistent symbolic link")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_keeps_what_is_before_and_after() {
        let run = |end| Run { end, skip: 0, contents: Contents::Disk(0) };
        let mut runs = Runs::from([(0, run(10)), (10, run(20)), (30, run(40))]);
        remove(&mut runs, 5, 35);
        let left: Vec<_> = runs.iter().map(|(start, run)| (*start, run.end, run.skip)).collect();
        assert_eq!(left, [(0, 5, 0), (35, 40, 5)]);
        let mut whole = Runs::from([(0, run(40))]);
        remove(&mut whole, 10, 20);
        let left: Vec<_> = whole.iter().map(|(start, run)| (*start, run.end, run.skip)).collect();
        assert_eq!(left, [(0, 10, 0), (20, 40, 20)]);
        remove(&mut whole, 30, u64::MAX);
        assert_eq!(whole[&20].end, 30);
    }
}
