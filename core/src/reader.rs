//! Where the bytes of a file come from, and where they go.

use core::fmt;

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
    use super::*;

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
