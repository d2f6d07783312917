//! The part of a file that is in memory: a few chunks, as large as the memory for disks allows.

use std::ops::Range;

use crate::{
    fs::Buffer,
    memory::{DiskMemory, OutOfMemory, Part, Reservation},
};

/// A size of chunks, and the part of the memory for disks within which it is used.
#[derive(Debug, PartialEq, Eq)]
struct Tier {
    /// A multiple of [`UNIT`].
    chunk_len: usize,
    /// The size of the smallest file that is read in such chunks. The first byte of a file is sent after a whole chunk was read, which
    /// only large files make up for.
    min_size: u64,
    part: Part,
    /// The bytes kept before those that are read now, because a transfer reads at both ends of its window.
    kept: usize,
    /// Whether the next chunk is read ahead.
    reads_ahead: bool,
}

/// The offset of a chunk is a multiple of this.
const UNIT: usize = 16 << 10;
/// For a few transfers at once: each chunk costs two changes of the thread.
const HUGE: Tier =
    Tier { chunk_len: 1 << 20, min_size: 8 << 20, part: Part { all: 2, disk: 2 }, kept: 1 << 20, reads_ahead: true };
const LARGE: Tier =
    Tier { chunk_len: 256 << 10, min_size: 0, part: Part { all: 9, disk: 4 }, kept: 256 << 10, reads_ahead: true };
/// For many transfers at once, which need not read ahead: one sends while others read.
const MEDIUM: Tier =
    Tier { chunk_len: 128 << 10, min_size: 0, part: Part { all: 11, disk: 6 }, kept: UNIT, reads_ahead: false };
const SMALL: Tier =
    Tier { chunk_len: 64 << 10, min_size: 0, part: Part { all: 13, disk: 8 }, kept: UNIT, reads_ahead: false };
const TINY: Tier =
    Tier { chunk_len: UNIT, min_size: 0, part: Part { all: 15, disk: 14 }, kept: UNIT, reads_ahead: false };
/// The sizes of chunks, the fastest first. The rest of the memory is for the snapshots in which transfers verify that their file is
/// unchanged: all files that could be opened can be read to their ends.
const TIERS: [&Tier; 5] = [&HUGE, &LARGE, &MEDIUM, &SMALL, &TINY];

/// What a read of a file takes besides the bytes that it returns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    /// Whether the bytes may be in several parts of the disk.
    pub(super) is_fragmented: bool,
    /// The memory in bytes to decode those that are compressed.
    pub(super) decoding: usize,
}

/// The chunks of a file in memory, within a reservation for all of them and for one that is being read. They are contiguous.
#[derive(Debug)]
pub(super) struct Chunks {
    tier: &'static Tier,
    /// The size of the file in bytes.
    size: u64,
    layout: Layout,
    /// The number of bytes that are kept before those that are read now: at least that of the tier.
    kept: usize,
    memory: Reservation,
    disk_memory: DiskMemory,
    /// In the order of the file.
    chunks: Vec<Chunk>,
}

/// A part of a file. It has fewer bytes if the disk returned fewer than the size of the file promised.
#[derive(Debug)]
struct Chunk {
    range: Range<u64>,
    bytes: Buffer,
}

impl Chunk {
    /// Returns the bytes from `offset` on.
    fn bytes_from(&self, offset: u64) -> &[u8] {
        self.bytes.get((offset - self.range.start) as usize..).unwrap_or_default()
    }
}

impl Chunks {
    /// Reserves memory for the chunks of a file of `size` bytes: large ones, or smaller ones if memory is short.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(super) fn new(disk_memory: &DiskMemory, size: u64, layout: Layout) -> Result<Self, OutOfMemory> {
        let reserve = |tier: &'static Tier| {
            let memory = disk_memory.reserve_within(needed(tier, tier.kept, size, layout), tier.part)?;
            Ok((tier, memory))
        };
        let mut fitting = TIERS.into_iter().filter(|tier| size >= tier.min_size);
        let (tier, memory) = fitting.find_map(|tier| reserve(tier).ok()).map_or_else(|| reserve(&TINY), Ok)?;
        let disk_memory = disk_memory.clone();
        Ok(Self { tier, size, layout, kept: tier.kept, memory, disk_memory, chunks: Vec::new() })
    }

    /// Returns the bytes of the file that are in memory.
    fn range(&self) -> Range<u64> {
        let ends = self.chunks.first().zip(self.chunks.last());
        ends.map_or(0..0, |(first, last)| first.range.start..last.range.end)
    }

    /// Returns the first byte of a range that is not in memory.
    pub(super) fn first_missing(&self, offset: u64, len: usize) -> Option<u64> {
        let (range, end) = (self.range(), offset + len as u64);
        if len == 0 {
            None
        } else if range.contains(&offset) {
            Some(range.end).filter(|missing| *missing < end)
        } else {
            Some(offset)
        }
    }

    /// Returns whether a chunk can be read while the bytes from `offset` on stay in memory. If they are `indivisible`, makes room for it.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub(super) fn can_keep(&mut self, offset: u64, indivisible: bool) -> Result<bool, OutOfMemory> {
        let range = self.range();
        let kept = if range.contains(&offset) { (range.end - offset) as usize } else { 0 };
        if kept > self.kept && indivisible {
            self.memory.resize(needed(self.tier, kept, self.size, self.layout))?;
            self.kept = kept;
        }
        Ok(kept <= self.kept)
    }

    /// Returns the chunk to read for a byte that is missing, and makes room for it; chunks become smaller if memory is short, and larger
    /// if there is enough again. The bytes from `offset` on stay in memory.
    pub(super) fn next(&mut self, missing: u64, offset: u64) -> Range<u64> {
        let range = self.range();
        let start = if missing == range.end { missing } else { missing - missing % UNIT as u64 };
        let is_next = start == range.end;
        self.adapt(if is_next { start.saturating_sub(offset) as usize } else { 0 });
        let ahead = if self.tier.reads_ahead { self.tier.chunk_len } else { 0 };
        self.cut(if is_next { start.saturating_sub((self.kept + ahead) as u64) } else { u64::MAX });
        start..self.size.min(start + self.tier.chunk_len as u64)
    }

    /// Changes to smaller chunks if memory is short, or to the largest that there is memory for. Room for `kept` bytes stays.
    fn adapt(&mut self, kept: usize) {
        let is_short = self.should_shrink();
        let is_candidate = |tier: &&&'static Tier| match is_short {
            true => tier.chunk_len < self.tier.chunk_len,
            false => tier.chunk_len > self.tier.chunk_len && self.size >= tier.min_size,
        };
        for tier in TIERS.iter().filter(is_candidate) {
            let kept = kept.max(tier.kept);
            let needed = needed(tier, kept, self.size, self.layout);
            // A short file needs as little with large chunks.
            if is_short && needed >= self.memory.bytes() {
                return;
            }
            if self.memory.resize_within(needed, tier.part).is_ok() {
                (self.tier, self.kept) = (tier, kept);
                return;
            }
        }
    }

    /// Frees what is before an offset.
    fn cut(&mut self, offset: u64) {
        self.chunks.retain(|chunk| chunk.range.end > offset);
        if let Some(chunk) = self.chunks.first_mut().filter(|chunk| chunk.range.start < offset) {
            *chunk = Chunk { range: offset..chunk.range.end, bytes: chunk.bytes_from(offset).to_vec().into() };
        }
    }

    /// Returns whether a chunk is the last one of the file.
    pub(super) fn is_last(&self, chunk: &Range<u64>) -> bool {
        chunk.end >= self.size
    }

    /// Returns whether the chunk after this one should be read before it is needed.
    pub(super) fn reads_ahead(&self, chunk: &Range<u64>) -> bool {
        self.tier.reads_ahead && !self.is_last(chunk) && !self.should_shrink()
    }

    /// Returns the rest of the chunk that contains `offset`; nothing if it is not in memory.
    pub(super) fn bytes_from(&self, offset: u64) -> &[u8] {
        self.chunk(offset).map_or(&[], |chunk| chunk.bytes_from(offset))
    }

    /// Adds a chunk that was read.
    pub(super) fn add(&mut self, range: Range<u64>, bytes: Buffer) {
        if self.range().end != range.start {
            self.chunks.clear();
        }
        self.chunks.push(Chunk { range, bytes });
    }

    /// Frees all chunks.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
    }

    fn should_shrink(&self) -> bool {
        self.disk_memory.exceeds(self.tier.part)
    }

    /// Copies the bytes at `offset` that are in memory. Returns their number.
    pub(super) fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut copied = 0;
        while copied < buf.len() {
            let rest = self.bytes_from(offset + copied as u64);
            // Ends at the end of the file, or where the disk returned fewer bytes than the size promised.
            if rest.is_empty() {
                break;
            }
            let len = rest.len().min(buf.len() - copied);
            buf[copied..copied + len].copy_from_slice(&rest[..len]);
            copied += len;
        }
        copied
    }

    fn chunk(&self, offset: u64) -> Option<&Chunk> {
        self.chunks.iter().find(|chunk| chunk.range.contains(&offset))
    }
}

/// Returns the memory for the chunks of a file in bytes: what is kept, a chunk that is being read, one that is read ahead, and the
/// parts of one that is not contiguous on the disk, or compressed.
fn needed(tier: &Tier, kept: usize, size: u64, layout: Layout) -> usize {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let count = 1 + usize::from(tier.reads_ahead);
    let parts = if layout.is_fragmented { tier.chunk_len.min(size) } else { 0 };
    (kept + count * tier.chunk_len).min(size) + parts + layout.decoding
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
        assert_eq!((count(&LARGE), count(&MEDIUM), count(&SMALL), count(&TINY)), (2, 10, 14, 96));
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

    /// Reads the next chunk, whose bytes are the number of their unit. Returns its range in units.
    fn read(chunks: &mut Chunks, missing: u64, offset: u64) -> Range<u64> {
        let range = chunks.next(missing, offset);
        let bytes: Vec<u8> = range.clone().map(|at| (at / UNIT as u64) as u8).collect();
        chunks.add(range.clone(), bytes.into());
        range.start / UNIT as u64..range.end / UNIT as u64
    }

    #[test]
    fn running_transfer_makes_room_for_others_and_takes_it_back() {
        let disk = Memory::new(32 << 20).disk();
        let mut chunks = Chunks::new(&disk, FILE, Layout::default()).expect("memory");
        assert_eq!(read(&mut chunks, 0, 0), 0..16);
        assert!(chunks.reads_ahead(&(0..1)));
        let (mut others, mut end) = (vec![], 16);
        for (reserved, len, kept) in [(2 << 20, 8, 1), (1 << 20, 4, 1), (1 << 20, 1, 1)] {
            others.push(disk.reserve(reserved).expect("memory"));
            assert!(!chunks.reads_ahead(&(0..1)));
            let missing = end * UNIT as u64;
            // The block that is to be sent begins in the chunk before.
            assert_eq!(read(&mut chunks, missing, missing - 1), end..end + len);
            assert_eq!(chunks.range(), (end - kept) * UNIT as u64..(end + len) * UNIT as u64);
            let mut block = [0; 2];
            assert_eq!((chunks.copy(missing - 1, &mut block), block), (2, [end as u8 - 1, end as u8]));
            assert_eq!(chunks.memory.bytes(), (kept + len) as usize * UNIT);
            end += len;
        }
        drop(others);
        let missing = end * UNIT as u64;
        assert_eq!(read(&mut chunks, missing, missing), end..end + 16);
        assert!(chunks.reads_ahead(&(0..1)));
        drop(chunks);
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn reads_at_the_end_and_anywhere_else() {
        let disk = DiskMemory::unlimited();
        let mut chunks = Chunks::new(&disk, 5 * UNIT as u64 - 7, Layout::default()).expect("memory");
        let unit = UNIT as u64;
        assert_eq!(chunks.next(unit + 5, unit + 5), unit..5 * unit - 7);
        chunks.add(unit..5 * unit - 7, vec![1; 4 * UNIT - 8].into());
        assert_eq!(
            (chunks.first_missing(unit, 4 * UNIT - 7), chunks.first_missing(unit - 1, 1)),
            (None, Some(unit - 1))
        );
        assert_eq!(chunks.copy(5 * unit - 9, &mut [0; 9]), 1, "the disk has returned too few bytes");
        assert_eq!(chunks.next(3, 3), 0..5 * unit - 7, "what is before is read with all that follows");
        assert_eq!(chunks.range(), 0..0);
    }

    #[test]
    fn a_long_block_takes_more_chunks() {
        let disk = Memory::new(400 << 10).disk();
        let mut chunks = Chunks::new(&disk, FILE, Layout::default()).expect("memory");
        assert_eq!(chunks.tier, &TINY);
        let read = |chunks: &mut Chunks| read(chunks, chunks.range().end, 1);
        assert_eq!((read(&mut chunks), chunks.can_keep(1, false)), (0..1, Ok(true)));
        assert_eq!((read(&mut chunks), chunks.can_keep(1, false)), (1..2, Ok(false)), "the caller can ask for less");
        assert_eq!((chunks.can_keep(1, true), read(&mut chunks)), (Ok(true), 2..3));
        let mut block = [9; 40_000];
        assert_eq!((chunks.first_missing(1, 40_000), chunks.copy(1, &mut block)), (None, 40_000));
        assert_eq!((block[0], block[16_383], block[39_999]), (0, 1, 2));
        for _ in 0..3 {
            assert_eq!(chunks.can_keep(1, true), Ok(true));
            read(&mut chunks);
        }
        assert_eq!(chunks.can_keep(1, true), Err(OutOfMemory::ThisDisk));
        drop(chunks);
        assert_eq!(disk.used(), 0);
    }
}
