//! The blocks of a log, one after the other.

use std::ops::Range;

use crate::fs::{BlockDevice, Error, FileMap, ReadFuture};

/// How much is read at once, in bytes.
const PIECE: u64 = 256 * 1024;
/// How many blocks are gone through at most: four times as many as the largest journals have that are made unasked.
pub(super) const MOST: u32 = 1 << 20;

/// Goes through a log block by block, but reads it in large pieces.
pub(super) struct Log<'a> {
    file: &'a FileMap,
    disk: &'a dyn BlockDevice,
    block_size: u64,
    ring: Range<u32>,
    /// The next block.
    at: u32,
    visited: u32,
    /// What was read last, and where it begins in the file.
    piece: Vec<u8>,
    start: u64,
    /// What is being read already, and where it begins in the file.
    ahead: Option<(u64, ReadFuture<'a>)>,
}

impl<'a> Log<'a> {
    /// Goes round in the blocks of `ring`, beginning with block `at`.
    pub(super) fn new(
        file: &'a FileMap,
        disk: &'a dyn BlockDevice,
        block_size: u32,
        ring: Range<u32>,
        at: u32,
    ) -> Self {
        let block_size = u64::from(block_size);
        Self { file, disk, block_size, ring, at, visited: 0, piece: Vec::new(), start: 0, ahead: None }
    }

    /// The next block and where it is on the disk; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a part of the log is nowhere, [`Error::Unsupported`] for more than [`MOST`] blocks, [`Error::Io`].
    pub(super) async fn next(&mut self) -> Result<Option<(u64, &[u8])>, Error> {
        let index = self.at;
        let Some(place) = self.skip()? else { return Ok(None) };
        let offset = u64::from(index) * self.block_size;
        if !(self.start..self.end()).contains(&offset) {
            self.load(offset).await?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let block = self.piece.get(from..).and_then(|rest| rest.get(..self.block_size as usize));
        let block = block.ok_or_else(|| Error::Io("the disk gave less than was asked for".into()))?;
        Ok(Some((place, block)))
    }

    /// Passes over the next block, and says where it is on the disk; `None` after the last.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub(super) fn skip(&mut self) -> Result<Option<u64>, Error> {
        if self.visited >= self.ring.end - self.ring.start {
            return Ok(None);
        }
        if self.visited >= MOST {
            return Err(Error::unsupported("journal", format!("more than {MOST} blocks in use")));
        }
        let (place, _) = self.place(u64::from(self.at) * self.block_size)?;
        self.visited += 1;
        self.at += 1;
        if self.at == self.ring.end {
            self.at = self.ring.start;
        }
        Ok(Some(place))
    }

    /// Reads any block.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is nowhere, [`Error::Io`].
    pub(super) async fn read(&mut self, index: u32) -> Result<Vec<u8>, Error> {
        let (place, _) = self.place(u64::from(index) * self.block_size)?;
        self.disk.read(place, self.block_size as usize).await
    }

    /// Has the piece that begins at `offset`. If pieces are read in a row, the next one is asked for at once.
    async fn load(&mut self, offset: u64) -> Result<(), Error> {
        let in_a_row = offset == self.end();
        let reading = match self.ahead.take() {
            Some((start, reading)) if start == offset => reading,
            _ => self.begin(offset)?,
        };
        if in_a_row {
            let next = self.behind(offset + self.piece_len(offset)?);
            self.ahead = Some((next, self.begin(next)?));
        }
        self.piece = reading.await?;
        self.start = offset;
        Ok(())
    }

    fn begin(&self, offset: u64) -> Result<ReadFuture<'a>, Error> {
        let (place, _) = self.place(offset)?;
        let len = usize::try_from(self.piece_len(offset)?).unwrap_or(usize::MAX);
        Ok(self.disk.read(place, len))
    }

    /// How long the piece at `offset` is: whole blocks that are neighbours on the disk.
    fn piece_len(&self, offset: u64) -> Result<u64, Error> {
        let (_, neighbours) = self.place(offset)?;
        let until_end = (u64::from(self.ring.end) * self.block_size).saturating_sub(offset);
        let len = neighbours.min(until_end).min(PIECE.max(self.block_size));
        Ok(len - len % self.block_size)
    }

    /// Where in the file what is held ends, and what follows begins.
    fn end(&self) -> u64 {
        self.start + self.piece.len() as u64
    }

    /// Where the log goes on behind `offset`.
    fn behind(&self, offset: u64) -> u64 {
        if offset < u64::from(self.ring.end) * self.block_size {
            offset
        } else {
            u64::from(self.ring.start) * self.block_size
        }
    }

    /// Where the block at `offset` is on the disk, and how many bytes from there on belong together.
    fn place(&self, offset: u64) -> Result<(u64, u64), Error> {
        let extents = &self.file.extents;
        let behind = extents.partition_point(|extent| extent.file_offset <= offset);
        let extent = behind.checked_sub(1).and_then(|at| extents.get(at));
        let found = extent.and_then(|extent| {
            let before = offset.checked_sub(extent.file_offset)?;
            let neighbours = extent.len.checked_sub(before).filter(|left| *left >= self.block_size)?;
            Some((extent.disk_offset.checked_add(before)?, neighbours))
        });
        found.ok_or_else(|| Error::corrupt("journal", "a part of the log has no blocks"))
    }
}
