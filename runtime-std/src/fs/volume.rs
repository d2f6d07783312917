//! Volumes: the part of a disk that holds one file system, and the cache through which it is read.

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;

use super::{BlockDevice, Error, limits::MAX_STRUCTURE, work};
use crate::memory::{DiskMemory, Part, Reservation};

/// The size of a cache line in bytes.
const LINE: u64 = 16 * 1024;
/// The maximum number of lines in the cache.
const CACHE_LINES: usize = 24;
/// The number of lines that the cache has even if memory is short.
const MIN_CACHE_LINES: usize = 4;
/// The part of the memory within which the cache has more lines than that. With a thousand disks, larger chunks of files save more.
const FOR_SPEED: Part = Part { all: 4, disk: 8 };

/// A partition, or the whole of a disk. Cheap to clone.
///
/// All volumes of a disk share a cache. Its contents are never read again, and so are as old as the first volume.
#[derive(Debug, Clone)]
pub struct Volume {
    cache: Arc<Cache>,
    start: u64,
    len: u64,
}

impl Volume {
    /// Creates the volume that is the whole of a disk, with an empty cache and without a limit on memory.
    pub fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self::with_memory(device, DiskMemory::unlimited())
    }

    /// Creates the volume that is the whole of a disk, with an empty cache. What is read from it uses this memory.
    pub fn with_memory(device: Arc<dyn BlockDevice>, memory: DiskMemory) -> Self {
        let len = device.size();
        Self { cache: Arc::new(Cache { device, memory, lines: Mutex::default() }), start: 0, len }
    }

    /// Returns the `len` bytes at `start`, truncated at the end of this volume.
    pub fn slice(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        Self { cache: self.cache.clone(), start: self.start + start, len: len.min(self.len - start) }
    }

    /// Returns this volume with an empty cache of its own.
    pub(super) fn without_cache(&self) -> Self {
        let (device, memory) = (self.cache.device.clone(), self.cache.memory.clone());
        Self { cache: Arc::new(Cache { device, memory, lines: Mutex::default() }), ..self.clone() }
    }

    /// Returns the disk.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.cache.device
    }

    /// Returns the memory for what is read from the disk.
    pub fn memory(&self) -> &DiskMemory {
        &self.cache.memory
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Converts an offset in this volume to an offset on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the `len` bytes at `offset` exceed this volume.
    pub fn disk_offset(&self, offset: u64, len: u64) -> Result<u64, Error> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.start + offset),
            _ => Err(Error::corrupt("file system", "a structure lies beyond its end")),
        }
    }

    /// Reads exactly `len` bytes, at most 1 MiB, of the structures of a file system through the cache.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if they exceed this volume or 1 MiB, [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        work::count_read(len).await?;
        self.cache.read(self.disk_offset(offset, len as u64)?, len).await
    }
}

/// The parts of a disk that were read last.
struct Cache {
    device: Arc<dyn BlockDevice>,
    memory: DiskMemory,
    /// The most recently used line is the last.
    lines: Mutex<VecDeque<Line>>,
}

/// A line of the cache.
struct Line {
    /// The number of the line on the disk.
    index: u64,
    bytes: Arc<[u8]>,
    memory: Reservation,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Cache {
    /// Reads exactly `len` bytes at `offset`.
    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.device.size());
        let end = end.ok_or_else(|| Error::corrupt("disk", "a structure lies beyond its end"))?;
        if len > MAX_STRUCTURE {
            return Err(Error::corrupt("file system", format!("invalid structure of {len} bytes")));
        }
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let line = self.line(at / LINE, end.div_ceil(LINE)).await?;
            let from = (at % LINE) as usize;
            let part = line.get(from..).unwrap_or_default();
            let part = part.get(..usize::try_from(end - at).unwrap_or(usize::MAX)).unwrap_or(part);
            if part.is_empty() {
                return Err(Error::Io("the disk returned fewer bytes than requested".into()));
            }
            bytes.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(bytes)
    }

    /// Returns line `index`. If it is not cached, reads it together with the uncached lines that follow, up to line `end`.
    async fn line(&self, index: u64, end: u64) -> Result<Arc<[u8]>, Error> {
        let mut memory = {
            let mut lines = self.lines.lock();
            if let Some(at) = lines.iter().position(|line| line.index == index) {
                let line = lines.remove(at);
                lines.extend(line);
                return Ok(lines.back().map(|line| line.bytes.clone()).unwrap_or_default());
            }
            let is_missing = |index: &u64| lines.iter().all(|line| line.index != *index);
            let missing = (index..end).take_while(is_missing).take(CACHE_LINES).count();
            self.make_room(&mut lines, missing)?
        };
        let start = index * LINE;
        let len = (memory.len() as u64 * LINE).min(self.device.size() - start);
        // Taken out of its pool, where a large buffer would be kept for later reads.
        let bytes = self.device.read(start, usize::try_from(len).unwrap_or(usize::MAX)).await?.into_vec();
        let mut lines = self.lines.lock();
        let mut first = None;
        for (index, line) in (index..).zip(bytes.chunks(LINE as usize)) {
            let bytes: Arc<[u8]> = line.into();
            first.get_or_insert_with(|| bytes.clone());
            // Another read may have added the same lines meanwhile.
            lines.retain(|line| line.index != index);
            lines.extend(memory.pop().map(|memory| Line { index, bytes, memory }));
        }
        Ok(first.unwrap_or_default())
    }

    /// Makes room for up to `count` lines, at least one. Removes the lines that have not been used for longest, if necessary.
    fn make_room(&self, lines: &mut VecDeque<Line>, count: usize) -> Result<Vec<Reservation>, Error> {
        if self.memory.is_short() {
            lines.drain(..lines.len().saturating_sub(MIN_CACHE_LINES));
        }
        let mut memory = Vec::new();
        while memory.len() < count {
            let used = lines.len() + memory.len();
            let reserved = match used {
                0..MIN_CACHE_LINES => self.memory.reserve(LINE as usize).ok(),
                MIN_CACHE_LINES..CACHE_LINES => self.memory.reserve_within(LINE as usize, FOR_SPEED).ok(),
                _ => None,
            };
            match reserved.or_else(|| lines.pop_front().map(|line| line.memory)) {
                Some(reserved) => memory.push(reserved),
                None if memory.is_empty() => memory.push(self.memory.reserve(LINE as usize)?),
                None => break,
            }
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;
    use crate::{
        fs::testing::Disk,
        memory::{Memory, OutOfMemory},
    };

    /// Returns some bytes, a disk that holds them, and the volume of all of it.
    fn disk(len: usize) -> (Vec<u8>, Arc<Disk>, Volume) {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        let disk = Disk::new(bytes.clone());
        let volume = disk.volume();
        (bytes, disk, volume)
    }

    #[test]
    fn reads_any_range_of_the_disk() {
        let (bytes, _, volume) = disk(100_001);
        for (offset, len) in [(0, 0), (0, 1), (16_383, 2), (5, 99_996), (100_000, 1), (100_001, 0), (30_000, 40_000)] {
            let read = block_on(volume.read(offset, len)).expect("within the disk");
            assert_eq!(read, bytes[offset as usize..][..len]);
        }
    }

    #[test]
    fn reads_contiguous_lines_together_and_only_once() {
        let (_, disk, volume) = disk(200_000);
        for _ in 0..3 {
            block_on(volume.read(0, 150_000)).expect("within the disk");
        }
        assert_eq!(disk.reads(), 1);
    }

    #[test]
    fn cache_is_bounded() {
        let (bytes, _, volume) = disk(4 << 20);
        for at in 0..256u64 {
            block_on(volume.read(at * LINE, 1)).expect("within the disk");
        }
        assert_eq!(volume.cache.lines.lock().len(), CACHE_LINES);
        assert_eq!(block_on(volume.read(0, 1 << 20)).expect("more than the cache holds"), bytes[..1 << 20]);
    }

    #[test]
    fn cache_takes_what_memory_there_is() {
        let bytes = vec![7; 4 << 20];
        for (limit, lines) in [(4 << 20, CACHE_LINES), (800 << 10, 6), (260 << 10, MIN_CACHE_LINES), (68 << 10, 1)] {
            let memory = Memory::new(limit).disk();
            let volume = Volume::with_memory(Arc::new(bytes.clone()), memory.clone());
            for at in 0..256u64 {
                block_on(volume.read(at * LINE, 1)).expect("within the memory");
            }
            assert_eq!(block_on(volume.read(5, 1 << 20)).expect("more than the cache holds"), bytes[..1 << 20]);
            assert_eq!(volume.cache.lines.lock().len(), lines, "{limit} bytes for four disks");
            assert_eq!(memory.used(), lines * LINE as usize);
            drop(volume);
            assert_eq!(memory.used(), 0);
        }
        let volume = Volume::with_memory(Arc::new(bytes), Memory::new(60 << 10).disk());
        assert_eq!(block_on(volume.read(0, 1)), Err(Error::OutOfMemory(OutOfMemory::ThisDisk)));
    }

    #[test]
    fn reads_beyond_the_volume_are_errors() {
        let (bytes, _, volume) = disk(10_000);
        let slice = volume.slice(1000, 500);
        assert_eq!(block_on(slice.read(499, 1)), Ok(vec![bytes[1499]]));
        assert_eq!(slice.disk_offset(499, 1), Ok(1499));
        assert_eq!(slice.slice(400, u64::MAX).size(), 100);
        assert_eq!(slice.slice(u64::MAX, u64::MAX).size(), 0);
        for (offset, len) in [(500, 1), (0, 501), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
            assert!(matches!(block_on(slice.read(offset, len)), Err(Error::Corrupt(_))));
        }
    }
}
