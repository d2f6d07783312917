//! The part of a file that is in memory: a few chunks, as large as the memory for disks allows.

use std::ops::Range;

use crate::{
    fs::Buffer,
    memory::{DiskMemory, OutOfMemory, Part, Reservation},
};

/// A size of chunks, and the part of the memory for disks within which it is used.
#[derive(Debug, PartialEq, Eq)]
struct Tier {
    chunk_len: usize,
    /// The size of the smallest file that is read in such chunks. The first byte of a file is sent after a whole chunk was read, which
    /// only large files make up for.
    min_size: u64,
    part: Part,
    /// Whether the next chunk is read ahead.
    reads_ahead: bool,
}

/// For a few transfers at once: each chunk costs two changes of the thread.
const HUGE: Tier = Tier { chunk_len: 1 << 20, min_size: 8 << 20, part: Part { all: 2, disk: 2 }, reads_ahead: true };
const LARGE: Tier = Tier { chunk_len: 256 << 10, min_size: 0, part: Part { all: 9, disk: 4 }, reads_ahead: true };
/// For many transfers at once, which need not read ahead: one sends while others read.
const MEDIUM: Tier = Tier { chunk_len: 128 << 10, min_size: 0, part: Part { all: 11, disk: 6 }, reads_ahead: false };
const SMALL: Tier = Tier { chunk_len: 64 << 10, min_size: 0, part: Part { all: 13, disk: 8 }, reads_ahead: false };
const TINY: Tier = Tier { chunk_len: 16 << 10, min_size: 0, part: Part { all: 15, disk: 14 }, reads_ahead: false };
/// The sizes of chunks, the fastest first. The rest of the memory is for the snapshots in which transfers verify that their file is
/// unchanged: all files that could be opened can be read to their ends.
const TIERS: [&Tier; 5] = [&HUGE, &LARGE, &MEDIUM, &SMALL, &TINY];
/// The number of chunks kept in memory: a transfer reads at both ends of its window.
const KEPT: usize = 2;

/// What a read of a file takes besides the bytes that it returns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    /// Whether the bytes may be in several parts of the disk.
    pub(super) is_fragmented: bool,
    /// The memory in bytes to decode those that are compressed.
    pub(super) decoding: usize,
}

/// The chunks of a file in memory, within a reservation for all of them and for one that is being read.
#[derive(Debug)]
pub(super) struct Chunks {
    tier: &'static Tier,
    /// The size of the file in bytes.
    size: u64,
    layout: Layout,
    /// The maximum number of chunks that are kept.
    max: usize,
    memory: Reservation,
    disk_memory: DiskMemory,
    /// The oldest first.
    chunks: Vec<Chunk>,
}

/// A chunk of a file. The last one is shorter than the others.
#[derive(Debug)]
struct Chunk {
    index: u64,
    bytes: Buffer,
}

impl Chunks {
    /// Reserves memory for the chunks of a file of `size` bytes: large ones, or smaller ones if memory is short.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(super) fn new(disk_memory: &DiskMemory, size: u64, layout: Layout) -> Result<Self, OutOfMemory> {
        let reserve = |tier: &'static Tier| {
            let memory = disk_memory.reserve_within(needed(tier, KEPT, size, layout), tier.part)?;
            Ok((tier, memory))
        };
        let mut fitting = TIERS.into_iter().filter(|tier| size >= tier.min_size);
        let (tier, memory) = fitting.find_map(|tier| reserve(tier).ok()).map_or_else(|| reserve(&TINY), Ok)?;
        let disk_memory = disk_memory.clone();
        Ok(Self { tier, size, layout, max: KEPT, memory, disk_memory, chunks: Vec::new() })
    }

    /// Returns the length of a chunk in bytes.
    pub(super) fn chunk_len(&self) -> usize {
        self.tier.chunk_len
    }

    /// Returns the offset of a chunk in the file in bytes.
    pub(super) fn offset(&self, index: u64) -> u64 {
        index * self.tier.chunk_len as u64
    }

    /// Returns whether a chunk is the last one of the file.
    pub(super) fn is_last(&self, index: u64) -> bool {
        self.offset(index + 1) >= self.size
    }

    /// Returns whether the chunk after `index` should be read before it is needed.
    pub(super) fn reads_ahead(&self, index: u64) -> bool {
        self.tier.reads_ahead && !self.is_last(index) && !self.should_shrink()
    }

    /// Returns the first chunk of a range that is not in memory.
    pub(super) fn first_missing(&self, offset: u64, len: usize) -> Option<u64> {
        self.indices(offset, len).find(|index| self.chunks.iter().all(|chunk| chunk.index != *index))
    }

    /// Returns whether all chunks of a range can be in memory at the same time. If the range is `indivisible`, makes room for them.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(super) fn can_hold(&mut self, offset: u64, len: usize, indivisible: bool) -> Result<bool, OutOfMemory> {
        let indices = self.indices(offset, len);
        let count = (indices.end - indices.start) as usize;
        if count > self.max && indivisible {
            self.memory.resize(needed(self.tier, count, self.size, self.layout))?;
            self.max = count;
        }
        Ok(count <= self.max)
    }

    /// Returns the rest of the chunk that contains `offset`; nothing if it is not in memory.
    pub(super) fn bytes_from(&self, offset: u64) -> &[u8] {
        let index = offset / self.tier.chunk_len as u64;
        let chunk = self.chunks.iter().find(|chunk| chunk.index == index);
        chunk.and_then(|chunk| chunk.bytes.get((offset - self.offset(index)) as usize..)).unwrap_or_default()
    }

    /// Makes room for a chunk that is about to be read.
    pub(super) fn before_reading(&mut self) {
        // Without read-ahead, the memory does not suffice for another chunk while it is being read.
        let kept = if self.tier.reads_ahead { self.max } else { self.max - 1 };
        self.chunks.drain(..self.chunks.len().saturating_sub(kept));
    }

    /// Adds a chunk that was read, in place of the oldest one if there are too many. Its buffer is used for the next read.
    pub(super) fn add(&mut self, index: u64, bytes: Buffer) {
        self.chunks.drain(..(self.chunks.len() + 1).saturating_sub(self.max));
        self.chunks.push(Chunk { index, bytes });
    }

    /// Frees all chunks.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
    }

    /// Changes to smaller chunks if memory is short; all chunks are freed then. Returns whether that was necessary.
    pub(super) fn shrink(&mut self) -> bool {
        let smaller = TIERS.iter().find(|tier| tier.chunk_len < self.tier.chunk_len);
        let Some(smaller) = smaller.filter(|_| self.should_shrink()) else { return false };
        let needed = needed(smaller, KEPT, self.size, self.layout);
        // Never fails, because it frees memory; a short file needs as little with large chunks.
        if needed >= self.memory.bytes() || self.memory.resize(needed).is_err() {
            return false;
        }
        (self.tier, self.max) = (smaller, KEPT);
        self.chunks.clear();
        true
    }

    fn should_shrink(&self) -> bool {
        self.disk_memory.exceeds(self.tier.part)
    }

    /// Copies the bytes at `offset` that are in memory. Returns their number.
    pub(super) fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut copied = 0;
        while copied < buf.len() {
            let at = offset + copied as u64;
            let index = at / self.tier.chunk_len as u64;
            let chunk = self.chunks.iter().find(|chunk| chunk.index == index);
            let rest = chunk.and_then(|chunk| chunk.bytes.get((at - self.offset(index)) as usize..));
            // Ends at the end of the file, or where the disk returned fewer bytes than the size promised.
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            let len = rest.len().min(buf.len() - copied);
            buf[copied..copied + len].copy_from_slice(&rest[..len]);
            copied += len;
        }
        copied
    }

    /// Returns the chunks that a range touches.
    fn indices(&self, offset: u64, len: usize) -> Range<u64> {
        let chunk_len = self.tier.chunk_len as u64;
        offset / chunk_len..(offset + len as u64).div_ceil(chunk_len)
    }
}

/// Returns the memory for the chunks of a file in bytes: `kept` chunks, one that is being read ahead, and the parts of one that is
/// not contiguous on the disk, or compressed.
fn needed(tier: &Tier, kept: usize, size: u64, layout: Layout) -> usize {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let count = kept + usize::from(tier.reads_ahead);
    let parts = if layout.is_fragmented { tier.chunk_len.min(size) } else { 0 };
    (count * tier.chunk_len).min(size) + parts + layout.decoding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    const FILE: u64 = 10 << 20;

    #[test]
    fn chunks_shrink_as_memory_becomes_short() {
        // For one disk: 2 MiB, 3 MiB, 4 MiB and 7 MiB are the limits of the sizes.
        let disk = Memory::new(32 << 20).disk();
        let files: Vec<_> = (0..).map_while(|_| Chunks::new(&disk, FILE, Layout::default()).ok()).collect();
        let count = |tier: &Tier| files.iter().filter(|chunks| chunks.tier == tier).count();
        assert_eq!((count(&LARGE), count(&MEDIUM), count(&SMALL), count(&TINY)), (2, 6, 8, 96));
        assert_eq!(disk.used(), 7 << 20);
        drop(files);
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn a_few_large_files_have_huge_chunks() {
        let disk = Memory::new(256 << 20).disk();
        let small = Chunks::new(&disk, HUGE.min_size - 1, Layout::default()).expect("memory");
        let files = [(); 3].map(|()| Chunks::new(&disk, FILE, Layout::default()).expect("memory"));
        assert_eq!((small.tier, files.each_ref().map(|chunks| chunks.tier)), (&LARGE, [&HUGE, &HUGE, &LARGE]));
        drop((small, files));
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn short_and_fragmented_files_reserve_what_they_need() {
        let disk = DiskMemory::unlimited();
        for (size, is_fragmented, decoding, expected) in [
            (0, false, 0, 0),
            (5000, false, 0, 5000),
            (5000, true, 0, 10_000),
            (5000, true, 8192, 18_192),
            (600_000, false, 0, 600_000),
            (5 << 20, true, 0, 1 << 20),
            (FILE, true, 0, 4 << 20),
        ] {
            let chunks = Chunks::new(&disk, size, Layout { is_fragmented, decoding }).expect("memory");
            assert_eq!(disk.used(), expected, "{size} bytes");
            drop(chunks);
        }
    }

    #[test]
    fn running_transfer_makes_room_for_others() {
        let disk = Memory::new(32 << 20).disk();
        let mut chunks = Chunks::new(&disk, FILE, Layout::default()).expect("memory");
        chunks.add(0, vec![7; LARGE.chunk_len].into());
        assert!(chunks.reads_ahead(0) && !chunks.shrink());
        let mut others = vec![];
        for (tier, reserved) in [(&MEDIUM, 2 << 20), (&SMALL, 1 << 20), (&TINY, 1 << 20)] {
            others.push(disk.reserve(reserved).expect("memory"));
            assert!(!chunks.reads_ahead(0) && chunks.shrink() && !chunks.shrink());
            assert_eq!((chunks.tier, chunks.first_missing(0, 1)), (tier, Some(0)));
        }
        drop((others, chunks));
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn a_long_block_takes_more_chunks() {
        let disk = Memory::new(400 << 10).disk();
        let mut chunks = Chunks::new(&disk, FILE, Layout::default()).expect("memory");
        assert_eq!(chunks.tier, &TINY);
        assert_eq!(chunks.can_hold(1, 40_000, false), Ok(false), "the caller can ask for less");
        assert_eq!(chunks.can_hold(1, 40_000, true), Ok(true));
        for index in 0..3 {
            chunks.before_reading();
            chunks.add(index, vec![index as u8; TINY.chunk_len].into());
        }
        let mut block = [9; 40_000];
        assert_eq!((chunks.first_missing(1, 40_000), chunks.copy(1, &mut block)), (None, 40_000));
        assert_eq!((block[0], block[16_383], block[39_999]), (0, 1, 2));
        assert_eq!(chunks.can_hold(0, 200_000, true), Err(OutOfMemory::ThisDisk));
        drop(chunks);
        assert_eq!(disk.used(), 0);
    }
}
