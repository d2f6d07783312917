//! Finds the newest record of the log.

use super::{
    position::{Position, corrupt},
    record::{MAX_LEN, Record},
    ring::{BLOCK, RECORD_MAGIC, Ring, cycle_of},
    transaction::is_unmount,
};
use crate::fs::{Error, bytes::be, xfs::superblock::Superblock};

/// The number of records that Linux writes at the same time (`XLOG_MAX_ICLOGS`). They may reach the disk in any order.
const MAX_CONCURRENT: usize = 8;
/// The number of blocks of these records, and of the one before.
const CONCURRENT_BLOCKS: u32 = ((MAX_CONCURRENT + 2) * MAX_LEN / BLOCK) as u32;
/// The number of blocks that contain the record of an unmount, unless the log is striped.
const UNMOUNT_BLOCKS: u32 = 16;
/// The number of blocks to read at once.
const CHUNK: u32 = 512;

/// The end of the log, and where its replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The position of the oldest record that must be replayed.
    pub(super) tail: Position,
    /// The position after the newest complete record.
    pub(super) end: Position,
    /// Whether the newest record says that the file system was unmounted.
    pub(super) is_clean: bool,
}

impl Head {
    /// Finds the head.
    ///
    /// The newest complete record is the last one without an incomplete one before it: Linux has not waited for those after it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn find(ring: &Ring<'_>, superblock: &Superblock) -> Result<Self, Error> {
        let mut memory = ring.volume.memory().reserve(2 * MAX_LEN)?;
        let Some(end) = approximate_end(ring).await? else {
            let start = Position { cycle: 1, block: 0 };
            return Ok(Self { tail: start, end: start, is_clean: true });
        };
        if let Some(clean) = Self::after_unmount(ring, superblock, end).await? {
            return Ok(clean);
        }
        // Two records, and the data of both.
        memory.resize(4 * MAX_LEN)?;
        let headers = last_headers(ring, end, CONCURRENT_BLOCKS).await?;
        let candidates = headers.len().saturating_sub(MAX_CONCURRENT + 1);
        let mut newest: Option<Record> = None;
        for start in headers.into_iter().skip(candidates) {
            if newest.as_ref().is_some_and(|newest| newest.end != start) {
                break;
            }
            match Record::read(ring, start, superblock).await? {
                Some(record) => newest = Some(record),
                None if newest.is_some() => break,
                None => return Err(corrupt("a record is damaged, and later ones are not")),
            }
        }
        let Record { end, tail, operations, data, .. } = newest.ok_or_else(|| corrupt("without a complete record"))?;
        let is_clean = operations == 1 && is_unmount(&data);
        Ok(Self { tail: if is_clean { end } else { tail }, end, is_clean })
    }

    /// Returns the head if the last record before `end` says that the file system was unmounted: Linux has waited for all others.
    async fn after_unmount(ring: &Ring<'_>, superblock: &Superblock, end: Position) -> Result<Option<Self>, Error> {
        let Some(start) = last_headers(ring, end, UNMOUNT_BLOCKS).await?.pop() else { return Ok(None) };
        let record = Record::read(ring, start, superblock).await?;
        let is_clean = |record: &Record| record.end == end && record.operations == 1 && is_unmount(&record.data);
        Ok(record.filter(is_clean).map(|_| Self { tail: end, end, is_clean: true }))
    }
}

/// Returns the position behind the last block that was written in the cycle of the first block; `None` if the log was never written.
pub(super) async fn approximate_end(ring: &Ring<'_>) -> Result<Option<Position>, Error> {
    let cycle = cycle_of(&ring.read(0, 1).await?);
    let last = cycle_of(&ring.read(ring.blocks - 1, 1).await?);
    if cycle == 0 {
        return if last == 0 { Ok(None) } else { Err(corrupt("its first block is empty")) };
    }
    if last == cycle {
        return Ok(Some(Position { cycle: cycle.wrapping_add(1), block: 0 }));
    }
    if last != cycle - 1 {
        return Err(corrupt("inconsistent cycles"));
    }
    let (mut written, mut older) = (0, ring.blocks - 1);
    while older - written > 1 {
        let middle = written + (older - written) / 2;
        if cycle_of(&ring.read(middle, 1).await?) == cycle {
            written = middle;
        } else {
            older = middle;
        }
    }
    Ok(Some(Position { cycle, block: older }))
}

/// Returns the positions of the records that start in the last `window` blocks before `end`, oldest first, up to the first block that
/// was not written.
async fn last_headers(ring: &Ring<'_>, end: Position, window: u32) -> Result<Vec<Position>, Error> {
    let is_first_cycle = end.cycle == 1;
    let available = if is_first_cycle { end.block } else { ring.blocks };
    let count = window.min(available);
    let start = match end.block.checked_sub(count) {
        Some(block) => Position { cycle: end.cycle, block },
        None => Position { cycle: end.cycle.wrapping_sub(1), block: end.block + (ring.blocks - count) },
    };
    let mut headers = Vec::new();
    let mut read = 0;
    while read < count {
        let chunk = ring.read(ring.after(start, read).block, CHUNK.min(count - read)).await?;
        for block in chunk.chunks(BLOCK) {
            let position = ring.after(start, read);
            if cycle_of(block) != position.cycle {
                return Ok(headers);
            }
            if be::u32_at(block, 0) == RECORD_MAGIC {
                headers.push(position);
            }
            read += 1;
        }
    }
    Ok(headers)
}
