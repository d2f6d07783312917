//! The blocks of a file: where each one lies, and the DATA packets that carry them.

use core::ops::Range;

use crate::{
    transfer::{
        io::{BlockReader, ReadFailed},
        output::Transmit,
    },
    wire::{
        block::Rollover,
        packet::{DATA_HEADER, data_header},
    },
};

/// The smallest send buffer, in bytes: it takes every packet of a transfer without options.
pub(super) const MIN_BUFFER: usize = 516;

pub(super) const BUFFER_TOO_SMALL: ReadFailed = ReadFailed("the send buffer is too small");

/// A file as numbered blocks, the first of them 1.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Blocks {
    /// The size of every block but the last, in bytes.
    pub(super) blksize: u16,
    /// The size of the file in bytes, once it is known.
    pub(super) size: Option<u64>,
    pub(super) rollover: Rollover,
}

impl Blocks {
    /// Returns the length of every DATA packet but the last, in bytes.
    pub(super) fn packet_len(&self) -> usize {
        usize::from(self.blksize).saturating_add(DATA_HEADER)
    }

    /// Returns the least send buffer for this transfer, in bytes.
    pub(super) fn min_buffer(&self) -> usize {
        self.packet_len().max(MIN_BUFFER)
    }

    /// Returns the offset of a block in the file, in bytes.
    pub(super) fn offset(&self, block: u64) -> u64 {
        block.saturating_sub(1).saturating_mul(self.blksize.into())
    }

    /// Returns the last block: shorter than the others, empty if the size is a multiple of the block size (RFC 1350 section 6).
    pub(super) fn last(&self) -> Option<u64> {
        Some(self.size?.checked_div(self.blksize.into())?.saturating_add(1))
    }

    /// Writes the DATA packets of `blocks` into `buf`, as many as fit and are loaded. Returns their number, or `None` if not
    /// even the first is loaded.
    ///
    /// The first short read of a file of unknown size fixes the size.
    pub(super) fn write_packets(
        &mut self,
        file: &mut impl BlockReader,
        blocks: Range<u64>,
        buf: &mut [u8],
    ) -> Result<Option<(usize, Transmit)>, ReadFailed> {
        if buf.len() < self.min_buffer() {
            return Err(BUFFER_TOO_SMALL);
        }
        let first = blocks.start;
        let packet_len = self.packet_len();
        let room = buf.len().checked_div(packet_len).unwrap_or(0);
        let mut count = usize::try_from(blocks.end.saturating_sub(first)).unwrap_or(room).min(room);
        let read = loop {
            match self.read(file, first, count, buf)? {
                Some(read) => break read,
                None if count <= 1 => return Ok(None),
                None => count >>= 1,
            }
        };
        let whole = read.checked_div(self.blksize.into()).unwrap_or(0);
        if whole < count && self.size.is_none() {
            self.size = Some(self.offset(first).saturating_add(u64::try_from(read).unwrap_or(0)));
        }
        // The last block of the file is shorter than the others, or empty.
        let count = whole.saturating_add(1).min(count);
        for (block, packet) in (first..).zip(buf.chunks_mut(packet_len)).take(count) {
            *packet.first_chunk_mut().ok_or(BUFFER_TOO_SMALL)? = data_header(self.rollover.number_of(block));
        }
        let len = read.saturating_add(headers_len(count));
        Ok(Some((count, Transmit { len, segment: packet_len.min(len) })))
    }

    /// Reads `count` blocks into the packets in `buf`, without their headers. Returns the number of bytes of the file, or `None`
    /// if they are not loaded.
    pub(super) fn read(
        &self,
        file: &mut impl BlockReader,
        first: u64,
        count: usize,
        buf: &mut [u8],
    ) -> Result<Option<usize>, ReadFailed> {
        let offset = self.offset(first);
        let blksize = usize::from(self.blksize);
        let most = count.saturating_mul(blksize);
        let left = self.size.map_or(u64::MAX, |size| size.saturating_sub(offset));
        let expected = usize::try_from(left).unwrap_or(most).min(most);
        let packets = buf.get_mut(..headers_len(count).saturating_add(expected)).ok_or(BUFFER_TOO_SMALL)?;
        match file.read_blocks(offset, blksize, packets)? {
            // Fewer bytes than the client was promised must not look like the end of the file.
            Some(read) if read < expected && self.size.is_some() => Err(ReadFailed::CHANGED),
            loaded => Ok(loaded),
        }
    }
}

/// Returns the length of the headers of `count` DATA packets, in bytes.
fn headers_len(count: usize) -> usize {
    count.saturating_mul(DATA_HEADER)
}
