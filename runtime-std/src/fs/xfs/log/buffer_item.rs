//! Changes of buffers (`struct xfs_buf_log_format`).

use super::{
    changes::{Buffer, CHUNK, Changes},
    position::corrupt,
    ring::BLOCK,
    transaction::Item,
};
use crate::fs::{
    Error,
    bytes::{array_at, le},
};

/// The type of the item.
pub(super) const TYPE: u16 = 0x123c;
/// The maximum size of a buffer in bytes: that of the largest directory blocks and clusters of inodes.
const MAX_LEN: u64 = 64 << 10;
/// The offset of the bitmap of the chunks that are logged.
const BITMAP: usize = 20;

// Flags.
const INODES: u16 = 1 << 0;
const CANCEL: u16 = 1 << 1;
const QUOTAS: u16 = 0b111 << 2;
/// The lowest bit of the type of the buffer in the flags.
const TYPE_SHIFT: u16 = 11;
const BTREE: u16 = 4;
/// The types of buffers that a reader never reads: quotas, headers of allocation groups, free directory blocks, attributes, tables of
/// realtime devices.
const UNUSED: [u16; 11] = [1, 2, 3, 5, 6, 7, 12, 16, 17, 19, 20];

/// A change of a buffer.
#[derive(Debug)]
pub(super) struct BufferItem<'a> {
    item: &'a Item<'a>,
    flags: u16,
    buffer: Buffer,
}

impl<'a> BufferItem<'a> {
    /// Parses the first region of an item.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    pub(super) fn parse(item: &'a Item<'a>) -> Result<Self, Error> {
        let format = item.region(0);
        if format.len() < BITMAP {
            return Err(corrupt("invalid change of a buffer"));
        }
        let offset = le::u64_at(format, 8).checked_mul(BLOCK as u64);
        let offset = offset.ok_or_else(|| corrupt("change of a buffer beyond the file system"))?;
        let len = u64::from(le::u16_at(format, 6)) * BLOCK as u64;
        if len > MAX_LEN {
            return Err(corrupt("change of a buffer of more than 64 KiB"));
        }
        Ok(Self { item, flags: le::u16_at(format, 4), buffer: Buffer { offset, len } })
    }

    /// Returns the buffer if this item says that it was freed.
    pub(super) fn cancelled(&self) -> Option<Buffer> {
        (self.flags & CANCEL != 0).then_some(self.buffer)
    }

    /// Adds the changed chunks, unless the buffer was freed or is of no use for a reader.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::OutOfMemory`].
    pub(super) fn add_to(&self, changes: &mut Changes) -> Result<(), Error> {
        let buffer_type = self.flags >> TYPE_SHIFT;
        // Buffers of inodes are logged only for the list of deleted inodes.
        if self.flags & (CANCEL | INODES | QUOTAS) != 0 || UNUSED.contains(&buffer_type) {
            return Ok(());
        }
        let bitmap = self.item.region(0).get(BITMAP..).unwrap_or_default();
        let words = (le::u32_at(self.item.region(0), 16) as usize).min(bitmap.len() / 4);
        let is_logged = |bit: usize| bit / 32 < words && le::u32_at(bitmap, bit / 32 * 4) >> (bit % 32) & 1 != 0;
        // Of the B+trees, only those that map files are read.
        let first = self.item.region(1);
        if buffer_type == BTREE && is_logged(0) && !first.starts_with(b"BMA3") && !first.starts_with(b"BMAP") {
            return Ok(());
        }
        let (mut region, mut bit) = (1, 0);
        while bit < words * 32 {
            if !is_logged(bit) {
                bit += 1;
                continue;
            }
            // A region contains a run of chunks, or a part of one.
            let bytes = self.item.region(region);
            region += 1;
            let run = (bit..words * 32).take_while(|bit| is_logged(*bit)).count().min(bytes.len() / CHUNK);
            if run == 0 {
                return Err(corrupt("change of a buffer without its contents"));
            }
            for (chunk, bytes) in bytes.chunks_exact(CHUNK).take(run).enumerate() {
                let at = ((bit + chunk) * CHUNK) as u64;
                if at + CHUNK as u64 > self.buffer.len {
                    return Err(corrupt("change beyond the end of a buffer"));
                }
                let offset = self.buffer.offset.saturating_add(at);
                changes.add_chunk(self.item.lsn(), self.buffer, offset, array_at(bytes, 0))?;
            }
            bit += run;
        }
        Ok(())
    }
}
