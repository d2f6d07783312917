//! The source and the destination of a file's bytes.

use core::fmt;

use crate::wire::packet::DATA_HEADER;

/// A file to be sent.
///
/// Reads have an offset, so a retransmission reads again and no transfer keeps copies of what it sent. A slow reader (a network,
/// SPI flash) returns `None` for bytes that are not loaded. The driver then gets [`NeedData`](crate::Output::NeedData), loads
/// them and polls again.
pub trait BlockReader {
    /// Copies the bytes from `offset` on into `buf` and returns their number; fewer than `buf.len()` mean the end of the file.
    ///
    /// Returns `None` if not all of these bytes are loaded. The caller then asks for fewer bytes; when those are not loaded
    /// either, it repeats the last call after they are.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] ends the transfer with an ERROR packet, so the peer never takes a part for the whole file.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed>;

    /// Reads like [`read_at`](Self::read_at) into a sequence of packets. Each packet in `buf` has [`DATA_HEADER`] bytes, whose
    /// contents do not matter, and `block` bytes of the file; the last packet may have fewer bytes, or none. Returns the number of
    /// bytes of the file in all packets.
    ///
    /// A reader that has the bytes in memory can implement this to copy them only once.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    fn read_blocks(&mut self, offset: u64, block: usize, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let headers = buf.len().div_ceil(block.saturating_add(DATA_HEADER)).saturating_mul(DATA_HEADER);
        let read = self.read_at(offset, buf.get_mut(headers..).unwrap_or_default())?;
        Ok(read.inspect(|&read| spread(buf, headers, read, block)))
    }
}

/// Moves contiguous blocks to their packets: `read` bytes from `start` on go to the front, each block behind a header.
fn spread(buf: &mut [u8], start: usize, read: usize, block: usize) {
    let (mut from, mut left, mut to) = (start, read, DATA_HEADER);
    // The last block is in place already.
    while left > 0 && from > to {
        let len = left.min(block);
        let end = from.saturating_add(len);
        if let Some(range) = buf.get_mut(to..end) {
            range.copy_within(range.len().saturating_sub(len).., 0);
        }
        (from, left, to) = (end, left.saturating_sub(len), to.saturating_add(block).saturating_add(DATA_HEADER));
    }
}

/// The bytes cannot be read. The text goes to the peer in an ERROR packet: keep it short and reveal nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReadFailed(pub &'static str);

impl ReadFailed {
    /// The file is no longer the version that was opened.
    pub const CHANGED: Self = Self("the file changed during the transfer");
    /// Its storage reports an error.
    pub const UNREADABLE: Self = Self("the file cannot be read");
}

impl fmt::Display for ReadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ReadFailed {}

/// A file in memory.
impl BlockReader for &[u8] {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(Some(len))
    }
}

/// A destination for a file that is received.
pub trait BlockSink {
    /// Stores the bytes at `offset`. Calls come in order and each byte comes once; the last call may have no bytes.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`] ends the transfer with an ERROR packet of code 3.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed>;
}

/// The bytes cannot be stored. The text goes to the peer in an ERROR packet: keep it short and reveal nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct WriteFailed(pub &'static str);

impl fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for WriteFailed {}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    #[test]
    fn read_blocks_places_blocks_behind_headers() {
        let file: Vec<u8> = (0..100).collect();
        for (len, block) in [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (64, 8), (100, 8), (99, 7), (100, 200)] {
            let mut buf = vec![0xff; len + (len / block + 1) * DATA_HEADER];
            assert_eq!((&file[..]).read_blocks(0, block, &mut buf), Ok(Some(len)));
            let packets = buf.chunks(block + DATA_HEADER).flat_map(|packet| &packet[DATA_HEADER..]);
            assert!(packets.eq(&file[..len]), "{len} bytes in blocks of {block}");
        }
        let mut buf = [0xff; 3 * (8 + DATA_HEADER)];
        assert_eq!((&file[..]).read_blocks(90, 8, &mut buf), Ok(Some(10)), "the end of the file");
        assert_eq!((&buf[4..12], &buf[16..18]), (&file[90..98], &file[98..]));
    }

    #[test]
    fn slice_reader_returns_short_reads_at_the_end() {
        let mut file = &b"abcdef"[..];
        let mut buf = [0; 4];
        assert_eq!(file.read_at(0, &mut buf), Ok(Some(4)));
        assert_eq!(&buf, b"abcd");
        assert_eq!(file.read_at(4, &mut buf), Ok(Some(2)));
        assert_eq!(&buf[..2], b"ef");
        assert_eq!(file.read_at(6, &mut buf), Ok(Some(0)));
        assert_eq!(file.read_at(u64::MAX, &mut buf), Ok(Some(0)));
    }
}
