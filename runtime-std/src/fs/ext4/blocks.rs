//! The blocks of a file system, as they would be after its journal was replayed.

use std::ops::Range;

use super::{
    super::{Error, Extent, Patch, Volume},
    journal::{Copied, Journal},
    superblock::Superblock,
};

/// What the first bytes of a block stand for that its journal keeps zeros for: a block of the journal itself begins with them.
const ESCAPED: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

/// The blocks of a file system. None is ever read behind the journal's back.
#[derive(Debug)]
pub(super) struct Blocks {
    volume: Volume,
    /// How long a block is, in bytes.
    pub(super) size: u32,
    /// Those that files and tables may have.
    usable: Range<u64>,
    /// Newer copies of blocks.
    pub(super) journal: Journal,
}

impl Blocks {
    /// The blocks of a file system as they are in their places.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the volume is too short for them.
    pub(super) fn new(volume: Volume, superblock: &Superblock) -> Result<Self, Error> {
        let len = superblock.len()?;
        if len > volume.size() {
            let what = format!("the file system has {len} bytes, but its volume only {}", volume.size());
            return Err(Error::corrupt("superblock", what));
        }
        let usable = superblock.first_block.saturating_add(1)..superblock.blocks;
        Ok(Self { volume, size: superblock.block_size, usable, journal: Journal::default() })
    }

    /// The volume that they are in.
    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Reads a part of a block.
    pub(super) async fn read(&self, block: u64, from: u64, len: usize) -> Result<Vec<u8>, Error> {
        let (extent, patch) = self.extent(0, block..block.saturating_add(1), self.journal.find(block))?;
        let mut bytes = self.read_extent(&extent, from, len).await?;
        if let Some(patch) = patch {
            let before = usize::try_from(from).unwrap_or(usize::MAX);
            bytes.iter_mut().zip(patch.bytes.iter().skip(before)).for_each(|(byte, real)| *byte = *real);
        }
        Ok(bytes)
    }

    /// Reads a part of a piece of a file that is one of the file system's own structures, through the cache.
    pub(super) async fn read_extent(&self, extent: &Extent, from: u64, len: usize) -> Result<Vec<u8>, Error> {
        let outside = || Error::corrupt("file system", "a structure lies outside the file system");
        let start = self.volume.disk_offset(0, 0)?;
        let offset =
            extent.disk_offset.checked_sub(start).and_then(|offset| offset.checked_add(from)).ok_or_else(outside)?;
        self.volume.read(offset, len).await
    }

    /// Whether files and tables may have all of these blocks.
    pub(super) fn are_usable(&self, blocks: &Range<u64>) -> bool {
        self.usable.start <= blocks.start && blocks.start < blocks.end && blocks.end <= self.usable.end
    }

    /// Where a run of blocks is that is at `start` in a file, in bytes.
    pub(super) fn extents(
        &self,
        start: u64,
        run: Range<u64>,
    ) -> impl Iterator<Item = Result<(Extent, Option<Patch>), Error>> {
        let first = run.start;
        pieces(run.clone(), self.journal.range(run)).map(move |(piece, copied)| {
            let before = (piece.start - first).checked_mul(self.size.into());
            let start = before.and_then(|before| start.checked_add(before)).ok_or_else(too_large)?;
            self.extent(start, piece, copied)
        })
    }

    /// Where blocks are of which there is one copy, or none, in the journal.
    fn extent(&self, start: u64, blocks: Range<u64>, copied: Option<Copied>) -> Result<(Extent, Option<Patch>), Error> {
        let size = u64::from(self.size);
        let bytes = |blocks: u64| blocks.checked_mul(size).ok_or_else(too_large);
        let len = bytes(blocks.end.saturating_sub(blocks.start))?;
        match copied {
            Some(Copied { place, escaped }) => Ok((
                Extent { file_offset: start, len, disk_offset: place },
                escaped.then(|| Patch { file_offset: start, bytes: ESCAPED.to_vec() }),
            )),
            None => {
                let disk_offset = self.volume.disk_offset(bytes(blocks.start)?, len)?;
                Ok((Extent { file_offset: start, len, disk_offset }, None))
            }
        }
    }
}

fn too_large() -> Error {
    Error::corrupt("file system", "a structure lies beyond the end of the file system")
}

/// Cuts a run of blocks where copies begin and end; the copies are in order.
fn pieces(
    run: Range<u64>,
    mut copies: impl Iterator<Item = (u64, Copied)>,
) -> impl Iterator<Item = (Range<u64>, Option<Copied>)> {
    let mut at = run.start;
    let mut next = copies.next();
    std::iter::from_fn(move || {
        let piece = match next {
            Some((block, copied)) if block == at => {
                next = copies.next();
                (at..at.saturating_add(1), Some(copied))
            }
            Some((block, _)) => (at..block.min(run.end), None),
            None => (at..run.end, None),
        };
        at = piece.0.end;
        (!piece.0.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_cut_a_run() {
        let copied = |place| Copied { place, escaped: false };
        let cut = |copies: &[u64]| {
            let copies = copies.iter().map(|block| (*block, copied(*block)));
            pieces(10..20, copies).map(|(piece, copy)| (piece.start, piece.end, copy.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[]), [(10, 20, false)]);
        assert_eq!(cut(&[10, 19]), [(10, 11, true), (11, 19, false), (19, 20, true)]);
        assert_eq!(cut(&[12, 13]), [(10, 12, false), (12, 13, true), (13, 14, true), (14, 20, false)]);
    }
}
