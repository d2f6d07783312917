//! The mapping of a regular file: which bytes of the disk hold its contents.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use smol::future::yield_now;

use super::{BlockChecksums, BlockDevice, Buffer, Error, block_checksums::BlockRead, compression::Compressed};

/// The maximum number of runs that one read requests at the same time.
const MAX_PARALLEL_RUNS: usize = 16;
/// The maximum number of compressed runs that one read requests at the same time.
const MAX_PARALLEL_COMPRESSED: usize = 2;

/// A regular file at one moment: its size, its identity and the location of its contents.
///
/// The contents are zeros, overlaid first by [`extents`](Self::extents) and [`compressed`](Self::compressed), then by
/// [`patches`](Self::patches). Two equal maps
/// describe the same state of the same file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileMap {
    /// The size in bytes.
    pub size: u64,
    /// Distinguishes this state of the file from every other file and state.
    pub identity: FileIdentity,
    /// The modification time, if the file system records one.
    pub modified: Option<SystemTime>,
    /// Runs of the file that are contiguous on the disk, in file order and without overlap.
    pub extents: Vec<Extent>,
    /// Runs of the file that are compressed on the disk, in file order and without overlap.
    pub compressed: Vec<CompressedExtent>,
    /// Contents that are known without reading the file's extents, in file order and without overlap.
    pub patches: Vec<Patch>,
    /// The checksums of the blocks in [`extents`](Self::extents) and [`compressed`](Self::compressed), if the file system has some.
    /// Both begin and end at blocks.
    pub checksums: Option<Arc<BlockChecksums>>,
}

/// Identifies one state of one file. Fields that a file system does not record are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileIdentity {
    /// The UUID or serial number of the file system: another disk may appear at the same address.
    pub file_system: [u8; 16],
    /// The [`Node::id`](super::Node::id) of the file.
    pub node: u64,
    /// Distinguishes the file from earlier ones with the same node: a generation number or the first cluster.
    pub generation: u64,
    /// The change and modification times, as stored on the disk.
    pub times: [u64; 2],
    /// A counter of changes.
    pub version: u64,
    /// Attribute flags, as stored on the disk.
    pub flags: u32,
}

/// A run of a file that is contiguous on the disk. All fields are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the run in the file.
    pub file_offset: u64,
    /// The length of the run. The last run may extend beyond the end of the file.
    pub len: u64,
    /// The offset of the run on the disk (not in its volume).
    pub disk_offset: u64,
}

/// A run of a file that is a part of an extent which is decoded as a whole. All fields are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressedExtent {
    /// The offset of the run in the file.
    pub file_offset: u64,
    /// The length of the run. The last run may extend beyond the end of the file.
    pub len: u64,
    /// The offset of the extent on the disk (not in its volume).
    pub disk_offset: u64,
    /// The form of the extent on the disk.
    pub form: Compressed,
    /// The number of bytes of the decoded extent before the run.
    pub skip: u64,
}

/// Bytes of a file that replace those in its extents, such as contents stored in an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The offset in the file, in bytes.
    pub file_offset: u64,
    /// The contents.
    pub bytes: Vec<u8>,
}

impl Extent {
    /// Returns the offset in the file of the first byte after this run.
    pub fn end(&self) -> u64 {
        self.file_offset + self.len
    }
}

impl CompressedExtent {
    /// Returns the offset in the file of the first byte after this run.
    pub fn end(&self) -> u64 {
        self.file_offset + self.len
    }
}

impl Patch {
    fn end(&self) -> u64 {
        self.file_offset + self.bytes.len() as u64
    }

    /// Returns the memory that it needs in a list, in bytes: twice its size, because lists grow ahead.
    pub(super) fn memory(&self) -> usize {
        2 * size_of::<Self>() + self.bytes.len()
    }
}

impl FileMap {
    /// Returns whether `other` is the same file with contents of the same size at the same location, modified at the same time.
    ///
    /// Attributes that a chmod, a hard link or a new access time changes are ignored. So two such maps hold the same bytes unless
    /// somebody has overwritten some and restored the modification time.
    pub fn has_location_of(&self, other: &Self) -> bool {
        let stable =
            |identity: &FileIdentity| FileIdentity { times: [0, identity.times[1]], version: 0, flags: 0, ..*identity };
        let contents = |map: &Self| (map.size, stable(&map.identity));
        contents(self) == contents(other)
            && self.extents == other.extents
            && self.compressed == other.compressed
            && self.patches == other.patches
    }

    /// Appends a run, or extends the last one if the two are contiguous in the file and on the disk.
    pub fn push(&mut self, next: Extent) {
        match self.extents.last_mut() {
            Some(last) if last.end() == next.file_offset && last.disk_offset + last.len == next.disk_offset => {
                last.len += next.len;
            }
            _ => self.extents.push(next),
        }
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file. Several runs are requested at the same time.
    ///
    /// # Errors
    ///
    /// The errors of `device`, and [`Error::Corrupt`] if a compressed run is invalid, or a block differs from its checksum.
    pub async fn read(&self, device: &dyn BlockDevice, offset: u64, len: usize) -> Result<Buffer, Error> {
        let len = len.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let end = offset + len as u64;
        let first = self.extents.partition_point(|extent| extent.end() <= offset);
        if let Some(extent) = self.extents.get(first)
            && extent.file_offset <= offset
            && end <= extent.end()
        {
            // One run holds the whole range, as in nearly all reads.
            let mut bytes = self.read_extent(device, extent, offset, end).finish().await?;
            self.apply_patches(offset, &mut bytes);
            return Ok(bytes);
        }
        let mut bytes = Buffer::from(vec![0; len]);
        let mut runs = self.extents[first..].iter().take_while(|extent| extent.file_offset < end).map(|extent| {
            let from = extent.file_offset.max(offset);
            let to = extent.end().min(end);
            (from, self.read_extent(device, extent, from, to))
        });
        let mut reads: VecDeque<_> = runs.by_ref().take(MAX_PARALLEL_RUNS).collect();
        while let Some((from, read)) = reads.pop_front() {
            let run = read.finish().await?;
            reads.extend(runs.next());
            let at = (from - offset) as usize;
            let target = bytes.get_mut(at..at + run.len());
            target
                .ok_or_else(|| Error::Io("the disk returned more bytes than requested".into()))?
                .copy_from_slice(&run);
        }
        self.read_compressed(device, offset, &mut bytes).await?;
        self.apply_patches(offset, &mut bytes);
        Ok(bytes)
    }

    /// Starts to read a part of an extent, given by offsets in the file.
    fn read_extent<'a>(&'a self, device: &'a dyn BlockDevice, extent: &Extent, from: u64, to: u64) -> BlockRead<'a> {
        let block = self.checksums.as_ref().map_or(1, |checksums| checksums.block() as u64);
        let (from, to) = (from - extent.file_offset, to - extent.file_offset);
        let start = from - from % block;
        let end = to.next_multiple_of(block).min(extent.len);
        let disk_offset = extent.disk_offset + start;
        BlockRead {
            device,
            checksums: self.checksums.as_deref(),
            disk_offset,
            blocks: device.read(disk_offset, (end - start) as usize),
            wanted: ((from - start) as usize, (to - from) as usize),
        }
    }

    /// Overwrites those of `bytes`, which start at `offset` in the file, that are compressed on the disk.
    async fn read_compressed(&self, device: &dyn BlockDevice, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let end = offset + bytes.len() as u64;
        let first = self.compressed.partition_point(|run| run.end() <= offset);
        let mut runs = self.compressed[first..].iter().take_while(|run| run.file_offset < end);
        let read = |run: &'_ CompressedExtent| (*run, device.read(run.disk_offset, run.form.len));
        let mut reads: VecDeque<_> = runs.by_ref().take(MAX_PARALLEL_COMPRESSED).map(read).collect();
        while let Some((run, read_run)) = reads.pop_front() {
            let mut stored = read_run.await?;
            reads.extend(runs.next().map(read));
            if let Some(checksums) = &self.checksums {
                checksums.verify(device, run.disk_offset, &mut stored).await?;
            }
            let from = run.file_offset.max(offset);
            let to = run.end().min(end);
            let start = run.skip + (from - run.file_offset);
            let target = &mut bytes[(from - offset) as usize..(to - offset) as usize];
            run.form
                .decode(&stored)
                .and_then(|decoded| {
                    target.copy_from_slice(decoded.get(start as usize..)?.get(..target.len())?);
                    Some(())
                })
                .ok_or_else(|| Error::corrupt("file", "invalid compressed contents: damaged, or being written"))?;
            drop(stored);
            // Decoding takes long: other tasks run in between.
            yield_now().await;
        }
        Ok(())
    }

    /// Returns the memory in bytes that compressed runs take while some of them are being read.
    pub(crate) fn decoding_memory(&self) -> usize {
        MAX_PARALLEL_COMPRESSED * self.compressed.iter().map(|run| run.form.len).max().unwrap_or(0)
    }

    /// Returns the memory in use, in bytes.
    pub(super) fn memory(&self) -> usize {
        let patches = self.patches.iter().map(Patch::memory).sum::<usize>();
        let compressed = self.compressed.capacity() * size_of::<CompressedExtent>();
        let checksums = self.checksums.as_ref().map_or(0, |checksums| checksums.memory());
        size_of::<Self>() + self.extents.capacity() * size_of::<Extent>() + compressed + patches + checksums
    }

    /// Overwrites those of `bytes`, which were read at `offset` in the file, that the patches replace.
    pub(super) fn apply_patches(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        let first = self.patches.partition_point(|patch| patch.end() <= offset);
        for patch in self.patches[first..].iter().take_while(|patch| patch.file_offset < end) {
            let from = patch.file_offset.max(offset);
            let to = patch.end().min(end);
            let source = &patch.bytes[(from - patch.file_offset) as usize..(to - patch.file_offset) as usize];
            bytes[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use smol::block_on;

    use super::*;
    use crate::fs::ReadFuture;

    #[test]
    fn read_combines_extents_holes_and_patches() {
        let disk: Vec<u8> = (0..=255).collect();
        let mut file = FileMap { size: 50, ..FileMap::default() };
        for (file_offset, len, disk_offset) in [(0, 4, 100), (4, 4, 104), (16, 8, 0), (24, 8, 8), (40, 16, 200)] {
            file.push(Extent { file_offset, len, disk_offset });
        }
        assert_eq!(file.extents.len(), 3, "contiguous runs are merged");
        file.patches = vec![
            Patch { file_offset: 6, bytes: b"xyz".to_vec() },
            Patch { file_offset: 24, bytes: b"abcd".to_vec() },
            Patch { file_offset: 48, bytes: b"1234".to_vec() },
        ];
        let mut whole = [0; 50];
        whole[..8].copy_from_slice(&disk[100..108]);
        whole[16..32].copy_from_slice(&disk[..16]);
        whole[40..].copy_from_slice(&disk[200..210]);
        whole[6..9].copy_from_slice(b"xyz");
        whole[24..28].copy_from_slice(b"abcd");
        whole[48..].copy_from_slice(b"12");
        for offset in 0..=52 {
            for len in 0..=52 {
                let expected = &whole[offset.min(50)..(offset + len).min(50)];
                assert_eq!(block_on(file.read(&disk, offset as u64, len)).as_deref(), Ok(expected), "{offset}+{len}");
            }
        }
    }

    /// A disk whose reads complete at once and that records the maximum number of reads in flight.
    #[derive(Debug, Default)]
    struct CountingDisk {
        in_flight: AtomicUsize,
        max_in_flight: AtomicUsize,
    }

    impl BlockDevice for CountingDisk {
        fn size(&self) -> u64 {
            u64::MAX
        }

        fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
            let in_flight = self.in_flight.fetch_add(1, Relaxed) + 1;
            self.max_in_flight.fetch_max(in_flight, Relaxed);
            Box::pin(async move {
                self.in_flight.fetch_sub(1, Relaxed);
                Ok(vec![(offset / 1024) as u8; len].into())
            })
        }
    }

    #[test]
    fn requests_few_runs_at_a_time() {
        let mut file = FileMap { size: 256 << 10, ..FileMap::default() };
        for block in 0..256 {
            file.push(Extent { file_offset: block << 10, len: 1024, disk_offset: (255 - block) << 10 });
        }
        let disk = CountingDisk::default();
        let bytes = block_on(file.read(&disk, 0, 256 << 10)).expect("readable");
        assert!((0..=255).rev().zip(bytes.chunks(1024)).all(|(block, bytes)| bytes == [block; 1024]));
        assert_eq!(disk.max_in_flight.into_inner(), MAX_PARALLEL_RUNS);
    }

    #[test]
    fn reads_contents_stored_in_a_patch_alone() {
        let patch = Patch { file_offset: 0, bytes: b"inline".to_vec() };
        let file = FileMap { size: 6, patches: vec![patch], ..FileMap::default() };
        assert_eq!(block_on(file.read(&vec![], 2, 100)).as_deref(), Ok(&b"line"[..]));
        let longer = FileMap { size: 8, ..file };
        assert_eq!(block_on(longer.read(&vec![], 0, 100)).as_deref(), Ok(&b"inline\0\0"[..]));
    }

    #[test]
    fn read_beyond_the_disk_is_an_io_error() {
        let mut file = FileMap { size: 10, ..FileMap::default() };
        file.push(Extent { file_offset: 0, len: 10, disk_offset: 95 });
        assert!(matches!(block_on(file.read(&vec![0; 100], 0, 10)), Err(Error::Io(_))));
    }
}
