//! Reads the blocks of the log in order.

use std::ops::Range;

use super::superblock::JournalSuperblock;
use crate::{
    fs::{BlockDevice, Error, FileMap, ReadFuture},
    memory::{DiskMemory, Part, Reservation},
};

/// The number of bytes to read at once.
const CHUNK: u64 = 256 * 1024;
/// The number of bytes to read at once if memory is short.
const SMALL_CHUNK: u64 = 16 * 1024;
/// The number of chunks in memory.
const CHUNKS: u64 = 2;
/// The part of the memory within which large chunks are read.
const FOR_SPEED: Part = Part { all: 12, disk: 12 };
/// The maximum number of blocks to read: four times the size of the largest journals that mke2fs creates by default.
const MAX_BLOCKS: u32 = 1 << 20;

/// Reads the log block by block, in large chunks with one chunk of read-ahead.
pub(super) struct LogReader<'a> {
    file: &'a FileMap,
    disk: &'a dyn BlockDevice,
    block_size: u64,
    /// The number of bytes to read at once.
    max_chunk: u64,
    _memory: Reservation,
    /// The blocks of the circular log.
    log_blocks: Range<u32>,
    next_block: u32,
    visited: u32,
    /// The latest chunk, and its offset in the file.
    chunk: Vec<u8>,
    chunk_offset: u64,
    /// The chunk that is being read ahead, and its offset in the file.
    read_ahead: Option<(u64, ReadFuture<'a>)>,
}

impl<'a> LogReader<'a> {
    /// Creates a reader of the circular log that starts at block `first`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub(super) fn new(
        file: &'a FileMap,
        disk: &'a dyn BlockDevice,
        superblock: &JournalSuperblock,
        first: u32,
        memory: &DiskMemory,
    ) -> Result<Self, Error> {
        let block_size = u64::from(superblock.block_size);
        let small_chunk = SMALL_CHUNK.max(block_size);
        let (max_chunk, memory) = match memory.reserve_within((CHUNKS * CHUNK) as usize, FOR_SPEED) {
            Ok(memory) => (CHUNK, memory),
            Err(_) => (small_chunk, memory.reserve((CHUNKS * small_chunk) as usize)?),
        };
        Ok(Self {
            file,
            disk,
            block_size,
            max_chunk,
            _memory: memory,
            log_blocks: superblock.log_blocks.clone(),
            next_block: first,
            visited: 0,
            chunk: Vec::new(),
            chunk_offset: 0,
            read_ahead: None,
        })
    }

    /// Returns the next block and its offset on the disk in bytes; `None` after all blocks of the log.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the log has a hole, [`Error::Unsupported`] after [`MAX_BLOCKS`], [`Error::Io`].
    pub(super) async fn next(&mut self) -> Result<Option<(u64, &[u8])>, Error> {
        let index = self.next_block;
        let Some(disk_offset) = self.skip()? else { return Ok(None) };
        let offset = u64::from(index) * self.block_size;
        if !(self.chunk_offset..self.chunk_end()).contains(&offset) {
            self.read_chunk(offset).await?;
        }
        let start = usize::try_from(offset - self.chunk_offset).unwrap_or(usize::MAX);
        let block = self.chunk.get(start..).and_then(|rest| rest.get(..self.block_size as usize));
        let block = block.ok_or_else(|| Error::Io("short read from the disk".into()))?;
        Ok(Some((disk_offset, block)))
    }

    /// Skips the next block and returns its offset on the disk in bytes; `None` after all blocks of the log.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub(super) fn skip(&mut self) -> Result<Option<u64>, Error> {
        if self.visited >= self.log_blocks.end - self.log_blocks.start {
            return Ok(None);
        }
        if self.visited >= MAX_BLOCKS {
            return Err(Error::unsupported("journal", format!("more than {MAX_BLOCKS} blocks in use")));
        }
        let (disk_offset, _) = self.locate(u64::from(self.next_block) * self.block_size)?;
        self.visited += 1;
        self.next_block += 1;
        if self.next_block == self.log_blocks.end {
            self.next_block = self.log_blocks.start;
        }
        Ok(Some(disk_offset))
    }

    /// Reads any block of the journal.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the block is in a hole, [`Error::Io`].
    pub(super) async fn read_block(&mut self, index: u32) -> Result<Vec<u8>, Error> {
        let (disk_offset, _) = self.locate(u64::from(index) * self.block_size)?;
        Ok(self.disk.read(disk_offset, self.block_size as usize).await?.into_vec())
    }

    /// Reads the chunk at `offset`. If it continues the previous chunk, starts to read the one behind it.
    async fn read_chunk(&mut self, offset: u64) -> Result<(), Error> {
        let is_sequential = offset == self.chunk_end();
        let reading = match self.read_ahead.take() {
            Some((start, reading)) if start == offset => reading,
            _ => self.start_reading(offset)?,
        };
        if is_sequential {
            let next = self.wrap(offset + self.chunk_len(offset)?);
            self.read_ahead = Some((next, self.start_reading(next)?));
        }
        self.chunk = reading.await?.into_vec();
        self.chunk_offset = offset;
        Ok(())
    }

    fn start_reading(&self, offset: u64) -> Result<ReadFuture<'a>, Error> {
        let (disk_offset, _) = self.locate(offset)?;
        let len = usize::try_from(self.chunk_len(offset)?).unwrap_or(usize::MAX);
        Ok(self.disk.read(disk_offset, len))
    }

    /// Returns the size of the chunk at `offset` in bytes: whole blocks that are contiguous on the disk.
    fn chunk_len(&self, offset: u64) -> Result<u64, Error> {
        let (_, contiguous) = self.locate(offset)?;
        let until_end = (u64::from(self.log_blocks.end) * self.block_size).saturating_sub(offset);
        let len = contiguous.min(until_end).min(self.max_chunk);
        Ok(len - len % self.block_size)
    }

    /// Returns the offset of the first byte behind the latest chunk.
    fn chunk_end(&self) -> u64 {
        self.chunk_offset + self.chunk.len() as u64
    }

    /// Returns `offset`, or the start of the log if `offset` is its end.
    fn wrap(&self, offset: u64) -> u64 {
        if offset < u64::from(self.log_blocks.end) * self.block_size {
            offset
        } else {
            u64::from(self.log_blocks.start) * self.block_size
        }
    }

    /// Returns the offset on the disk of the block at `offset`, and the number of bytes that are contiguous from there.
    fn locate(&self, offset: u64) -> Result<(u64, u64), Error> {
        let extents = &self.file.extents;
        let behind = extents.partition_point(|extent| extent.file_offset <= offset);
        let extent = behind.checked_sub(1).and_then(|index| extents.get(index));
        let located = extent.and_then(|extent| {
            let before = offset.checked_sub(extent.file_offset)?;
            let contiguous = extent.len.checked_sub(before).filter(|len| *len >= self.block_size)?;
            Some((extent.disk_offset.checked_add(before)?, contiguous))
        });
        located.ok_or_else(|| Error::corrupt("journal", "log with a hole"))
    }
}
