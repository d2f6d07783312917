//! The ring of blocks that contains the log.

use parking_lot::Mutex;

use super::position::{Position, corrupt};
use crate::fs::{Error, ReadFuture, Volume, bytes::be, work::count_read, xfs::superblock::Superblock};

/// The size of a block of the log in bytes.
pub(super) const BLOCK: usize = 512;
/// The first word of a record. In every other block, it is the cycle in which the block was written.
pub(super) const RECORD_MAGIC: u32 = 0xfeed_babe;
/// The number of blocks to read at once.
const AHEAD: u32 = 1024;
/// The maximum size of the log in bytes (`XFS_MAX_LOG_BYTES`).
const MAX_LEN: u64 = 1 << 31;

/// The blocks of the log, read past the cache of the volume: the system that mounts the disk may be writing them.
#[derive(Debug)]
pub(super) struct Ring<'a> {
    pub(super) volume: &'a Volume,
    /// The offset of the first block in the volume, in bytes.
    start: u64,
    /// The number of blocks.
    pub(super) blocks: u32,
    /// The blocks that were read ahead.
    ahead: Option<Mutex<Ahead>>,
}

/// Blocks that were read ahead.
#[derive(Debug, Default)]
struct Ahead {
    first: u32,
    bytes: Vec<u8>,
}

impl<'a> Ring<'a> {
    /// Locates the log.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the log is on another device, [`Error::Corrupt`].
    pub(super) fn new(volume: &'a Volume, superblock: &Superblock) -> Result<Self, Error> {
        if superblock.log_start == 0 {
            return Err(Error::unsupported("log", "on another device"));
        }
        let start = superblock.block_offset(superblock.log_start, superblock.log_blocks.into());
        let start = start.ok_or_else(|| corrupt("lies outside of its allocation group"))?;
        let len = u64::from(superblock.log_blocks) * superblock.block_size() as u64;
        if len == 0 || len > MAX_LEN {
            return Err(corrupt("invalid size"));
        }
        Ok(Self { volume, start, blocks: (len / BLOCK as u64) as u32, ahead: None })
    }

    /// Returns the same log, to be read from a block on: reads more at once than is asked for.
    pub(super) fn ahead(&self) -> Self {
        Self { ahead: Some(Mutex::default()), ..*self }
    }

    /// Reads `count` blocks, the first of which follows the last one.
    ///
    /// # Errors
    ///
    /// [`Error::TooMuchWork`], [`Error::Io`].
    pub(super) async fn read(&self, first: u32, count: u32) -> Result<Vec<u8>, Error> {
        let Some(ahead) = &self.ahead else { return self.read_now(first, count).await };
        if let Some(bytes) = ahead.lock().get(first, count) {
            return Ok(bytes.to_vec());
        }
        // The old blocks are freed before others are read.
        *ahead.lock() = Ahead::default();
        let before_end = self.blocks - first.min(self.blocks);
        let bytes = self.read_now(first, count.max(AHEAD.min(before_end))).await?;
        let read = Ahead { first, bytes };
        let found = read.get(first, count).map(<[u8]>::to_vec).unwrap_or_default();
        *ahead.lock() = read;
        Ok(found)
    }

    async fn read_now(&self, first: u32, count: u32) -> Result<Vec<u8>, Error> {
        let count = count.min(self.blocks);
        let before_end = count.min(self.blocks - first.min(self.blocks));
        let (front, back) = (self.start_reading(first, before_end)?, self.start_reading(0, count - before_end)?);
        count_read(count as usize * BLOCK).await?;
        let mut bytes = front.await?.into_vec();
        if count > before_end {
            bytes.extend_from_slice(&back.await?);
        }
        if bytes.len() != count as usize * BLOCK {
            return Err(Error::Io("short read from the disk".into()));
        }
        Ok(bytes)
    }

    fn start_reading(&self, first: u32, count: u32) -> Result<ReadFuture<'a>, Error> {
        let (offset, len) = (self.start + u64::from(first) * BLOCK as u64, count as usize * BLOCK);
        if len == 0 {
            return Ok(Box::pin(async { Ok(Vec::new().into()) }));
        }
        Ok(self.volume.device().read(self.volume.disk_offset(offset, len as u64)?, len))
    }

    /// Returns the position `count` blocks after another one.
    pub(super) fn after(&self, position: Position, count: u32) -> Position {
        let block = u64::from(position.block) + u64::from(count);
        let wraps = (block / u64::from(self.blocks)) as u32;
        let block = (block % u64::from(self.blocks)) as u32;
        Position { cycle: position.cycle.wrapping_add(wraps), block }
    }
}

impl Ahead {
    fn get(&self, first: u32, count: u32) -> Option<&[u8]> {
        let start = first.checked_sub(self.first)? as usize * BLOCK;
        self.bytes.get(start..)?.get(..count as usize * BLOCK)
    }
}

/// Returns the cycle in which a block was written.
pub(super) fn cycle_of(block: &[u8]) -> u32 {
    match be::u32_at(block, 0) {
        RECORD_MAGIC => be::u32_at(block, 4),
        cycle => cycle,
    }
}
