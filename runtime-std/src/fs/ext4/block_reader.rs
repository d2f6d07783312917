//! Reads blocks of a file system from the journal if it has a newer copy.

use std::ops::Range;

use super::{
    journal::{Journal, JournalBlock, MAGIC},
    superblock::Superblock,
};
use crate::fs::{Error, Extent, Patch, Volume};

/// Reads blocks of a file system and locates them on the disk, as they would be after a replay of the journal.
#[derive(Debug)]
pub(super) struct BlockReader {
    volume: Volume,
    /// The size of a block in bytes.
    pub(super) block_size: u32,
    /// The blocks behind the superblock, which may contain tables and the content of files.
    data_blocks: Range<u64>,
    journal: Journal,
}

impl BlockReader {
    /// Creates a reader without a journal.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the volume is smaller than the file system.
    pub(super) fn new(volume: Volume, superblock: &Superblock) -> Result<Self, Error> {
        let len = superblock.len()?;
        if len > volume.size() {
            let what = format!("the file system has {len} bytes, but its volume only {}", volume.size());
            return Err(Error::corrupt("superblock", what));
        }
        let data_blocks = superblock.first_data_block.saturating_add(1)..superblock.block_count;
        Ok(Self { volume, block_size: superblock.block_size, data_blocks, journal: Journal::default() })
    }

    /// Sets the journal, whose copies replace the blocks of the file system from now on. The others are read again: meanwhile a copy
    /// may have been written to its place, and removed from the journal.
    pub(super) fn set_journal(&mut self, journal: Journal) {
        self.journal = journal;
        self.volume = self.volume.without_cache();
    }

    /// Returns the volume that contains the file system.
    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Reads `len` bytes at `offset` in a block.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the block lies outside the file system, [`Error::Io`].
    pub(super) async fn read(&self, block: u64, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let (extent, patch) = self.locate_extent(0, block..block.saturating_add(1), self.journal.get(block))?;
        let mut bytes = self.read_extent(&extent, offset, len).await?;
        if let Some(patch) = patch {
            let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
            bytes.iter_mut().zip(patch.bytes.iter().skip(skipped)).for_each(|(byte, patched)| *byte = *patched);
        }
        Ok(bytes)
    }

    /// Reads `len` bytes at `offset` in an extent of metadata, through the cache.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the extent lies outside the volume, [`Error::Io`].
    pub(super) async fn read_extent(&self, extent: &Extent, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let outside = || Error::corrupt("file system", "a structure lies outside the file system");
        let volume_start = self.volume.disk_offset(0, 0)?;
        let in_volume = extent.disk_offset.checked_sub(volume_start).and_then(|at| at.checked_add(offset));
        self.volume.read(in_volume.ok_or_else(outside)?, len).await
    }

    /// Returns whether the range is not empty and all of its blocks may contain tables or the content of files.
    pub(super) fn are_data_blocks(&self, blocks: &Range<u64>) -> bool {
        self.data_blocks.start <= blocks.start && blocks.start < blocks.end && blocks.end <= self.data_blocks.end
    }

    /// Locates a run of blocks that is mapped at `file_offset` (in bytes) of a file. A copy of a block in the journal is an extent of
    /// its own, with a patch if the copy is escaped.
    pub(super) fn locate(
        &self,
        file_offset: u64,
        run: Range<u64>,
    ) -> impl Iterator<Item = Result<(Extent, Option<Patch>), Error>> {
        let first = run.start;
        split_at_copies(run.clone(), self.journal.range(run)).map(move |(part, copy)| {
            let before = (part.start - first).checked_mul(self.block_size.into());
            let file_offset = before.and_then(|before| file_offset.checked_add(before)).ok_or_else(beyond_end)?;
            self.locate_extent(file_offset, part, copy)
        })
    }

    /// Locates a run of blocks that has no copy in the journal, or a single block that has one.
    fn locate_extent(
        &self,
        file_offset: u64,
        run: Range<u64>,
        copy: Option<JournalBlock>,
    ) -> Result<(Extent, Option<Patch>), Error> {
        let block_size = u64::from(self.block_size);
        let bytes = |blocks: u64| blocks.checked_mul(block_size).ok_or_else(beyond_end);
        let len = bytes(run.end.saturating_sub(run.start))?;
        match copy {
            Some(JournalBlock { disk_offset, is_escaped }) => Ok((
                Extent { file_offset, len, disk_offset },
                is_escaped.then(|| Patch { file_offset, bytes: MAGIC.to_be_bytes().to_vec() }),
            )),
            None => {
                let disk_offset = self.volume.disk_offset(bytes(run.start)?, len)?;
                Ok((Extent { file_offset, len, disk_offset }, None))
            }
        }
    }
}

fn beyond_end() -> Error {
    Error::corrupt("file system", "a structure lies beyond the end of the file system")
}

/// Splits a run of blocks into single blocks with a copy and the runs between them. `copies` is sorted by block number.
fn split_at_copies(
    run: Range<u64>,
    mut copies: impl Iterator<Item = (u64, JournalBlock)>,
) -> impl Iterator<Item = (Range<u64>, Option<JournalBlock>)> {
    let mut position = run.start;
    let mut next_copy = copies.next();
    std::iter::from_fn(move || {
        let part = match next_copy {
            Some((block, copy)) if block == position => {
                next_copy = copies.next();
                (position..position.saturating_add(1), Some(copy))
            }
            Some((block, _)) => (position..block.min(run.end), None),
            None => (position..run.end, None),
        };
        position = part.0.end;
        (!part.0.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_run_at_journal_copies() {
        let split = |copies: &[u64]| {
            let copies = copies.iter().map(|&block| (block, JournalBlock { disk_offset: block, is_escaped: false }));
            let parts = split_at_copies(10..20, copies);
            parts.map(|(part, copy)| (part.start, part.end, copy.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(split(&[]), [(10, 20, false)]);
        assert_eq!(split(&[10, 19]), [(10, 11, true), (11, 19, false), (19, 20, true)]);
        assert_eq!(split(&[12, 13]), [(10, 12, false), (12, 13, true), (13, 14, true), (14, 20, false)]);
    }
}
