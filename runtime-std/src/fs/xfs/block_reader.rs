//! Reads the structures of a file system as they would be after a replay of the log.

use super::{
    inode_layout,
    log::{BUFFER_HEADER, Changes, InodeBase, Log, buffer_lsn, describe},
    superblock::Superblock,
};
use crate::fs::{Error, FileMap, Volume, limits::MAX_STRUCTURE};

/// Reads structures from the disk and applies the changes in the log.
#[derive(Debug)]
pub(super) struct BlockReader {
    volume: Volume,
    pub(super) superblock: Superblock,
    changes: Changes,
    /// The LSN of the newest state that the log describes.
    newest_lsn: u64,
}

/// A structure.
#[derive(Debug)]
pub(super) struct Structure {
    pub(super) bytes: Vec<u8>,
    /// Whether changes in the log were applied, so that its checksum is no longer valid.
    pub(super) is_changed: bool,
}

impl BlockReader {
    /// Creates a reader that applies the changes in a log.
    pub(super) fn new(volume: Volume, superblock: Superblock, log: Log) -> Self {
        Self { volume, superblock, changes: log.changes, newest_lsn: log.newest_lsn }
    }

    /// Returns the volume that contains the file system.
    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Reads `len` bytes at an offset in the volume, where a buffer starts, or a further block of one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if they were written after the log was read, [`Error::TooMuchWork`], [`Error::OutOfMemory`],
    /// [`Error::Io`].
    pub(super) async fn read(&self, offset: u64, len: usize) -> Result<Structure, Error> {
        let mut bytes = self.volume.read(offset, len).await?;
        let lsn = buffer_lsn(&bytes, &self.superblock);
        self.check_age(lsn)?;
        let mut others = Vec::new();
        for other in self.changes.other_buffers(offset, len) {
            let header = self.volume.read(other, BUFFER_HEADER).await?;
            others.push((other, buffer_lsn(&header, &self.superblock)));
        }
        let lsn_of = |buffer: u64| match buffer == offset {
            true => lsn,
            false => others.iter().find(|(other, _)| *other == buffer).and_then(|(_, lsn)| *lsn),
        };
        let is_changed = self.changes.apply(offset, &mut bytes, lsn_of);
        Ok(Structure { bytes, is_changed })
    }

    /// Reads the inode at an offset in the volume.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(super) async fn read_inode(&self, offset: u64) -> Result<Structure, Error> {
        let len = self.superblock.inode_size();
        let block = offset - offset % self.superblock.block_size() as u64;
        let mut inode = match self.changes.inode_base(block) {
            InodeBase::Created => Structure { bytes: vec![0; len], is_changed: true },
            InodeBase::Disk => {
                let inode = self.read(offset, len).await?;
                self.check_age(inode_layout::lsn(&inode.bytes))?;
                inode
            }
        };
        let replaced = self.changes.apply_to_inode(offset, &mut inode.bytes, &self.superblock);
        inode.is_changed |= replaced.core || replaced.fork;
        Ok(inode)
    }

    /// Reads up to `len` bytes at an offset in a file of structures; fewer if its run of blocks ends, none in a hole.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(super) async fn read_mapped(&self, map: &FileMap, position: u64, len: usize) -> Result<Structure, Error> {
        let Some((offset, contiguous)) = self.locate(map, position)? else {
            return Ok(Structure { bytes: Vec::new(), is_changed: false });
        };
        let len = usize::try_from(contiguous).unwrap_or(usize::MAX).min(len).min(MAX_STRUCTURE);
        self.read(offset, len).await
    }

    /// Returns the offset in the volume of a position in a file of structures, and the number of bytes that are contiguous from
    /// there; `None` in a hole.
    pub(super) fn locate(&self, map: &FileMap, position: u64) -> Result<Option<(u64, u64)>, Error> {
        let extents = &map.extents;
        let extent = extents.get(extents.partition_point(|extent| extent.end() <= position));
        let Some(extent) = extent.filter(|extent| extent.file_offset <= position) else { return Ok(None) };
        let offset = extent.disk_offset - self.volume.disk_offset(0, 0)?;
        Ok(Some((offset + (position - extent.file_offset), extent.end() - position)))
    }

    /// Rejects a structure that was written after the log was read.
    fn check_age(&self, lsn: Option<u64>) -> Result<(), Error> {
        match lsn {
            Some(lsn) if lsn > self.newest_lsn => {
                let what = format!(
                    "a structure is newer ({}) than the log that was read ({}): the disk is being written",
                    describe(lsn),
                    describe(self.newest_lsn)
                );
                Err(Error::corrupt("file system", what))
            }
            _ => Ok(()),
        }
    }
}
