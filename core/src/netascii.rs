//! Text as netascii carries it: every line ends in CR LF, and a CR that ends no line is CR NUL (RFC 1350 section 1, RFC 764).

use heapless::Deque;

use crate::transfer::io::{BlockReader, ReadFailed};

/// The largest window that netascii is sent in, in blocks.
pub const MAX_WINDOWSIZE: u16 = 64;

/// How many reads are remembered: those of a window.
const REMEMBERED: usize = 64;

/// How much of the file is looked at once, in bytes.
const CHUNK: usize = 256;

/// A file, read as netascii. How long that is shows only at its end.
///
/// Where a block begins in the file depends on all the text before it, so the places of the last [`MAX_WINDOWSIZE`] reads are
/// remembered; a read before them begins at the start of the file again.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Netascii<R> {
    reader: R,
    /// Where the last read ended.
    here: Place,
    /// Where the last reads began.
    #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
    places: Deque<Place, REMEMBERED>,
}

/// The same place in both forms of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
struct Place {
    /// Bytes of netascii before it.
    sent: u64,
    /// Bytes of the file before it.
    read: u64,
    /// The second byte of a pair whose first one was the last before it.
    second: Option<u8>,
}

impl<R> Netascii<R> {
    /// Reads `reader` as netascii.
    pub fn new(reader: R) -> Self {
        Self { reader, here: Place::default(), places: Deque::new() }
    }

    /// The file itself.
    pub fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The last known place that is not behind `offset`.
    fn place_before(&self, offset: u64) -> Place {
        let known = self.places.iter().chain([&self.here]).filter(|place| place.sent <= offset);
        known.max_by_key(|place| place.sent).copied().unwrap_or_default()
    }
}

impl<R: BlockReader> Netascii<R> {
    /// Hands `len` bytes of netascii from `place` on to `take`, one by one, or as many as there are.
    ///
    /// Returns where that ends, or `None` when the file is not loaded there.
    fn read(&mut self, mut place: Place, len: u64, mut take: impl FnMut(u8)) -> Result<Option<Place>, ReadFailed> {
        let end = place.sent.saturating_add(len);
        let mut chunk = [0; CHUNK];
        while place.sent < end {
            if let Some(second) = place.second.take() {
                take(second);
                place.sent = place.sent.saturating_add(1);
                continue;
            }
            // No more than needed: every byte of the file makes one of netascii at least.
            let wanted = usize::try_from(end.saturating_sub(place.sent)).unwrap_or(CHUNK).min(CHUNK);
            let Some(loaded) = self.reader.read_at(place.read, chunk.get_mut(..wanted).unwrap_or_default())? else {
                return Ok(None);
            };
            if loaded == 0 {
                break;
            }
            for &byte in chunk.get(..loaded).unwrap_or_default() {
                if place.second.is_some() || place.sent >= end {
                    break;
                }
                let (first, second) = match byte {
                    b'\n' => (b'\r', Some(b'\n')),
                    b'\r' => (b'\r', Some(0)),
                    byte => (byte, None),
                };
                take(first);
                place = Place { sent: place.sent.saturating_add(1), read: place.read.saturating_add(1), second };
            }
        }
        Ok(Some(place))
    }
}

impl<R: BlockReader> BlockReader for Netascii<R> {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let known = self.place_before(offset);
        let Some(start) = self.read(known, offset.saturating_sub(known.sent), |_| {})? else { return Ok(None) };
        let mut slots = buf.iter_mut();
        let mut len = 0usize;
        let wanted = u64::try_from(slots.len()).unwrap_or(u64::MAX);
        let read = self.read(start, wanted, |byte| {
            if let Some(slot) = slots.next() {
                *slot = byte;
                len = len.saturating_add(1);
            }
        })?;
        let Some(end) = read else { return Ok(None) };
        if !self.places.iter().any(|place| *place == start) {
            if self.places.is_full() {
                self.places.pop_front();
            }
            let _ = self.places.push_back(start);
        }
        self.here = end;
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    /// The whole file in blocks of `size`.
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
    fn lines_end_in_cr_lf_and_other_crs_in_nul() {
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
    fn any_block_can_be_read_again() {
        let file = b"a\nbc\r\rdef\n\n".repeat(200);
        let netascii = blocks(&file, 512);
        let mut reader = Netascii::new(&file[..]);
        let mut block = [0; 16];
        // Forwards, a window back, from the start, past the end.
        for number in (0..100).chain(36..100).chain([0, 1, 150, 3, 5000]) {
            let len = reader.read_at(number * 16, &mut block).expect("readable").expect("loaded");
            let expected = netascii.get(number as usize * 16..).unwrap_or_default();
            assert_eq!(&block[..len], &expected[..expected.len().min(16)], "block {number}");
        }
    }

    #[test]
    fn what_is_not_loaded_is_waited_for() {
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
