//! The part of a disk that holds one file system.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Error, Source};

/// How much of a disk is read and kept together, in bytes.
const LINE: u64 = 16 * 1024;
/// How many lines are kept.
const LINES: usize = 24;
/// How much is read at once at most, in bytes: more than any structure of a file system is long.
const LONGEST: usize = 1 << 20;

/// What has been read of a disk during one look at it. It is never read again, and so is as old as the look.
pub struct Cache {
    source: Arc<dyn Source>,
    /// The lines that were used last, the latest at the end.
    lines: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache with nothing in it.
    pub fn new(source: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Self { source, lines: Mutex::default() })
    }

    /// Reads exactly `len` bytes at `offset`.
    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.source.size());
        let end = end.ok_or_else(|| Error::Corrupt("something is said to lie behind the end of the disk".into()))?;
        if len > LONGEST {
            return Err(Error::Corrupt(format!("something is said to be {len} bytes long")));
        }
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let line = self.line(at / LINE, end.div_ceil(LINE)).await?;
            let from = (at % LINE) as usize;
            let part = line.get(from..).unwrap_or_default();
            let part = part.get(..usize::try_from(end - at).unwrap_or(usize::MAX)).unwrap_or(part);
            if part.is_empty() {
                return Err(Error::Io("the disk gave less than was asked for".into()));
            }
            bytes.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(bytes)
    }

    /// Gives a line; if it has to be read, those up to `end` that are not there either are read in one go.
    async fn line(&self, index: u64, end: u64) -> Result<Arc<[u8]>, Error> {
        let missing = {
            let mut lines = self.lock();
            if let Some(at) = lines.iter().position(|(known, _)| *known == index) {
                let line = lines.remove(at).map(|(_, line)| line).unwrap_or_default();
                lines.push_back((index, line.clone()));
                return Ok(line);
            }
            (index..end).take_while(|index| lines.iter().all(|(known, _)| known != index)).take(LINES).count() as u64
        };
        let start = index * LINE;
        let len = (missing * LINE).min(self.source.size() - start);
        let bytes = self.source.read(start, usize::try_from(len).unwrap_or(usize::MAX)).await?;
        let mut lines = self.lock();
        let mut first = None;
        for (index, line) in (index..).zip(bytes.chunks(LINE as usize)) {
            let line: Arc<[u8]> = line.into();
            first.get_or_insert_with(|| line.clone());
            lines.push_back((index, line));
        }
        while lines.len() > LINES {
            lines.pop_front();
        }
        Ok(first.unwrap_or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Arc<[u8]>)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition, or all of a disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volume {
    cache: Arc<Cache>,
    start: u64,
    len: u64,
}

impl Volume {
    /// All of a disk.
    pub fn whole(cache: &Arc<Cache>) -> Self {
        Self { cache: cache.clone(), start: 0, len: cache.source.size() }
    }

    /// The `len` bytes from `start` on, cut at the end of this volume.
    pub fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        Self { cache: self.cache.clone(), start: self.start + start, len: len.min(self.len - start) }
    }

    /// The disk that it is a part of.
    pub fn disk(&self) -> &Arc<dyn Source> {
        &self.cache.source
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Where a byte of this volume is on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the `len` bytes there are not all in this volume.
    pub fn place(&self, offset: u64, len: u64) -> Result<u64, Error> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.start + offset),
            _ => Err(Error::Corrupt("something is said to lie behind the end of the file system".into())),
        }
    }

    /// Reads exactly `len` bytes of a file system's own structures, at most 1 MiB, through the cache.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if they are not all in this volume, [`Error::Io`].
    pub async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        self.cache.read(self.place(offset, len as u64)?, len).await
    }
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;
    use crate::fs::testing::Disk;

    /// The bytes of a disk, the disk, and all of it.
    fn disk(len: usize) -> (Vec<u8>, Arc<Disk>, Volume) {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        let disk = Disk::new(bytes.clone());
        let volume = disk.volume();
        (bytes, disk, volume)
    }

    #[test]
    fn what_is_read_is_what_is_on_the_disk() {
        let (bytes, _, volume) = disk(100_001);
        for (offset, len) in [(0, 0), (0, 1), (16_383, 2), (5, 99_996), (100_000, 1), (100_001, 0), (30_000, 40_000)] {
            let read = block_on(volume.read(offset, len)).expect("in the disk");
            assert_eq!(read, bytes[offset as usize..][..len]);
        }
    }

    #[test]
    fn nothing_is_read_twice_and_neighbours_are_read_together() {
        let (_, disk, volume) = disk(200_000);
        for _ in 0..3 {
            block_on(volume.read(0, 150_000)).expect("in the disk");
        }
        assert_eq!(disk.reads(), 1);
    }

    #[test]
    fn the_cache_is_bounded() {
        let (bytes, _, volume) = disk(4 << 20);
        for at in 0..256u64 {
            block_on(volume.read(at * LINE, 1)).expect("in the disk");
        }
        assert_eq!(volume.cache.lock().len(), LINES);
        assert_eq!(block_on(volume.read(0, 1 << 20)).expect("more than is kept"), bytes[..1 << 20]);
    }

    #[test]
    fn nothing_beyond_a_volume_can_be_named() {
        let (bytes, _, volume) = disk(10_000);
        let part = volume.part(1000, 500);
        assert_eq!(block_on(part.read(499, 1)), Ok(vec![bytes[1499]]));
        assert_eq!(part.place(499, 1), Ok(1499));
        assert_eq!(part.part(400, u64::MAX).size(), 100);
        assert_eq!(part.part(u64::MAX, u64::MAX).size(), 0);
        for (offset, len) in [(500, 1), (0, 501), (u64::MAX, 1), (u64::MAX, usize::MAX)] {
            assert!(matches!(block_on(part.read(offset, len)), Err(Error::Corrupt(_))));
        }
    }
}
