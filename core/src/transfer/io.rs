//! Where the bytes of a file come from, and where they go.

use core::fmt;

use crate::wire::packet::DATA_HEADER;

/// A file being served: bytes at a position, or "not loaded yet".
///
/// Reads are positioned, so a retransmission simply reads again and no transfer keeps copies of what it sent. A reader may be
/// slow inside (a network, SPI flash): it answers `None`, the driver is told [`NeedData`](crate::Output::NeedData), makes the
/// bytes ready in its own way and polls again.
pub trait BlockReader {
    /// Copies the bytes from `offset` on into `buf` and returns how many; fewer than `buf.len()` means the file ends there.
    ///
    /// `None` means that not all of these bytes are loaded yet. Fewer of them are asked for then; once that is `None` too, the
    /// last call is made again when its bytes are loaded.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] ends the transfer with an ERROR packet: the peer never takes a part for the whole file.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed>;

    /// Does the same with `buf` as packets one after the other, each of them [`DATA_HEADER`] bytes, which may get any contents, and
    /// `block` bytes of the file, the last one fewer or none. Returns how many bytes of the file there are in all.
    ///
    /// A reader that has the bytes in memory saves copying them once more by doing this in its own way.
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

/// Moves the blocks that lie at `start` one after the other, `read` bytes in all, to the front, each behind the room for its header.
fn spread(buf: &mut [u8], start: usize, read: usize, block: usize) {
    let (mut from, mut left, mut to) = (start, read, DATA_HEADER);
    // Where both are the same, the last block, it is in its place.
    while left > 0 && from > to {
        let len = left.min(block);
        let end = from.saturating_add(len);
        if let Some(place) = buf.get_mut(to..end) {
            place.copy_within(place.len().saturating_sub(len).., 0);
        }
        (from, left, to) = (end, left.saturating_sub(len), to.saturating_add(block).saturating_add(DATA_HEADER));
    }
}

/// The bytes cannot be had; the text goes to the peer in an ERROR packet and should be short and give nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReadFailed(pub &'static str);

impl fmt::Display for ReadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ReadFailed {}

/// A file in memory: what firmware links in and what tests serve.
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

/// Where a file being received goes.
pub trait BlockSink {
    /// Takes the bytes at `offset`. They come in order, each of them once; the last of them may be none.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`] ends the transfer with an ERROR packet of code 3.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed>;
}

/// The bytes cannot be kept; the text goes to the peer in an ERROR packet and should be short and give nothing away.
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
    fn blocks_are_read_to_where_packets_have_them() {
        let file: Vec<u8> = (0..100).collect();
        for (len, block) in [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (64, 8), (100, 8), (99, 7), (100, 200)] {
            let mut buf = vec![0xff; len + (len / block + 1) * DATA_HEADER];
            assert_eq!((&file[..]).read_blocks(0, block, &mut buf), Ok(Some(len)));
            let packets = buf.chunks(block + DATA_HEADER).flat_map(|packet| &packet[DATA_HEADER..]);
            assert!(packets.eq(&file[..len]), "{len} bytes in blocks of {block}");
        }
        let mut buf = [0xff; 3 * (8 + DATA_HEADER)];
        assert_eq!((&file[..]).read_blocks(90, 8, &mut buf), Ok(Some(10)), "the file ends");
        assert_eq!((&buf[4..12], &buf[16..18]), (&file[90..98], &file[98..]));
    }

    #[test]
    fn bytes_in_memory_end_where_they_end() {
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
