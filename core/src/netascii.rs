//! Netascii: every line ends with CR LF, and any other CR becomes CR NUL (RFC 1350 section 1, RFC 764).

use heapless::Deque;

use crate::transfer::io::{BlockReader, ReadFailed};

/// The largest window for a netascii transfer, in blocks.
pub const MAX_WINDOWSIZE: u16 = 64;

/// The number of read positions kept: those of a window.
const KEPT_POSITIONS: usize = 64;

/// The number of bytes of the file that are converted at once.
const CHUNK: usize = 256;

/// Converts a file to netascii. The size of the result is unknown until its end is read.
///
/// The position of a block in the file depends on all the text before it. So the positions of the last [`MAX_WINDOWSIZE`] reads
/// are kept; a read before them starts at the beginning of the file.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Netascii<R> {
    reader: R,
    /// The end of the last read.
    end: Position,
    /// The starts of the last reads.
    #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
    starts: Deque<Position, KEPT_POSITIONS>,
}

/// The same position in the netascii text and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Position {
    /// Its offset in the netascii text, in bytes.
    text: u64,
    /// Its offset in the file, in bytes.
    file: u64,
    /// The second byte of a pair, if the first one is just before the position.
    second: Option<u8>,
}

impl<R> Netascii<R> {
    /// Converts the file of `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, end: Position::default(), starts: Deque::new() }
    }

    /// Returns the reader of the file.
    #[must_use]
    pub fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// Returns the last known position up to `offset` in the netascii text.
    fn position_before(&self, offset: u64) -> Position {
        let known = self.starts.iter().chain([&self.end]).filter(|position| position.text <= offset);
        known.max_by_key(|position| position.text).copied().unwrap_or_default()
    }
}

impl<R: BlockReader> Netascii<R> {
    /// Passes `len` bytes of netascii from `position` on to `take`, or fewer at the end of the file.
    ///
    /// Returns the position after them, or `None` if the file is not loaded there.
    fn read(
        &mut self,
        mut position: Position,
        len: u64,
        mut take: impl FnMut(u8),
    ) -> Result<Option<Position>, ReadFailed> {
        let end = position.text.saturating_add(len);
        let mut chunk = [0; CHUNK];
        while position.text < end {
            if let Some(second) = position.second.take() {
                take(second);
                position.text = position.text.saturating_add(1);
                continue;
            }
            // No more than needed: every byte of the file becomes at least one byte of netascii.
            let most = usize::try_from(end.saturating_sub(position.text)).unwrap_or(CHUNK).min(CHUNK);
            let Some(loaded) = self.reader.read_at(position.file, chunk.get_mut(..most).unwrap_or_default())? else {
                return Ok(None);
            };
            if loaded == 0 {
                break;
            }
            for &byte in chunk.get(..loaded).unwrap_or_default() {
                if position.second.is_some() || position.text >= end {
                    break;
                }
                let (first, second) = match byte {
                    b'\n' => (b'\r', Some(b'\n')),
                    b'\r' => (b'\r', Some(0)),
                    byte => (byte, None),
                };
                take(first);
                position =
                    Position { text: position.text.saturating_add(1), file: position.file.saturating_add(1), second };
            }
        }
        Ok(Some(position))
    }
}

impl<R: BlockReader> BlockReader for Netascii<R> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let known = self.position_before(offset);
        let Some(start) = self.read(known, offset.saturating_sub(known.text), |_| {})? else { return Ok(None) };
        let mut slots = buf.iter_mut();
        let mut len = 0usize;
        let most = u64::try_from(slots.len()).unwrap_or(u64::MAX);
        let read = self.read(start, most, |byte| {
            if let Some(slot) = slots.next() {
                *slot = byte;
                len = len.saturating_add(1);
            }
        })?;
        let Some(end) = read else { return Ok(None) };
        if !self.starts.iter().any(|position| *position == start) {
            if self.starts.is_full() {
                self.starts.pop_front();
            }
            let _ = self.starts.push_back(start);
        }
        self.end = end;
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    /// Reads the whole file in blocks of `size` bytes.
    fn blocks(file: &[u8], size: usize) -> Vec<u8> {
        let mut reader = Netascii::new(file);
        let mut all = vec![];
        let mut block = vec![0; size];
        loop {
            let len = reader.read_at(all.len() as u64, &mut block).expect("readable").expect("loaded");
            all.extend_from_slice(&block[..len]);
            if len < size {
                return all;
            }
        }
    }

    #[test]
    fn converts_line_ends_and_other_carriage_returns() {
        for (file, netascii) in [
            (&b""[..], &b""[..]),
            (b"one\ntwo\n", b"one\r\ntwo\r\n"),
            (b"no end", b"no end"),
            (b"dos\r\n", b"dos\r\0\r\n"),
            (b"\r", b"\r\0"),
            (b"\n\n\n", b"\r\n\r\n\r\n"),
            (b"\0\xff\n", b"\0\xff\r\n"),
        ] {
            for size in [1, 2, 3, 8, 512] {
                assert_eq!(blocks(file, size), netascii, "{} in {size}", file.escape_ascii());
            }
        }
        let long = b"\n".repeat(1000);
        assert_eq!(blocks(&long, 512), b"\r\n".repeat(1000));
    }

    #[test]
    fn reads_any_block_again() {
        let file = b"a\nbc\r\rdef\n\n".repeat(200);
        let netascii = blocks(&file, 512);
        let mut reader = Netascii::new(&file[..]);
        let mut block = [0; 16];
        // Forwards, one window back, from the start, past the end.
        for number in (0..100).chain(36..100).chain([0, 1, 150, 3, 5000]) {
            let len = reader.read_at(number * 16, &mut block).expect("readable").expect("loaded");
            let expected = netascii.get(number as usize * 16..).unwrap_or_default();
            assert_eq!(&block[..len], &expected[..expected.len().min(16)], "block {number}");
        }
    }

    #[test]
    fn returns_none_for_bytes_that_are_not_loaded() {
        struct Loaded<'a>(&'a [u8], usize);
        impl BlockReader for Loaded<'_> {
            fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
                if offset as usize + buf.len() > self.1 { Ok(None) } else { self.0.read_at(offset, buf) }
            }
        }
        let mut reader = Netascii::new(Loaded(b"one\ntwo\nthree\n", 4));
        let mut block = [0; 8];
        assert_eq!(reader.read_at(0, &mut block), Ok(None));
        reader.reader().1 = 100;
        assert_eq!(reader.read_at(0, &mut block), Ok(Some(8)));
        assert_eq!(&block, b"one\r\ntwo");
    }
}
