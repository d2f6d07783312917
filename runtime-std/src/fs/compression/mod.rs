//! Compressed extents of files: decoded when they are read, within bounds that are known before.

mod lzo;

use std::panic::{AssertUnwindSafe, catch_unwind};

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags},
};
use ruzstd::{
    decoding::{BlockDecodingStrategy, FrameDecoder},
    io::Read,
};

/// The maximum window of a zstd frame in bytes: the length of the longest extent.
const MAX_WINDOW: u64 = 128 << 10;

/// The algorithm of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// zlib (RFC 1950).
    Zlib,
    /// LZO1X in segments, as in btrfs.
    Lzo,
    /// One frame of zstd (RFC 8878).
    Zstd,
}

/// The form of a compressed extent. All lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// The algorithm.
    pub codec: Codec,
    /// The length on the disk.
    pub len: usize,
    /// The length of the contents.
    pub decoded: usize,
    /// The length of a sector, and of the contents of a segment of [`Codec::Lzo`].
    pub sector: usize,
}

impl Compressed {
    /// Decodes an extent; `None` if it is invalid, or has more than `decoded` bytes or a sector less.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut decoded = vec![0; self.decoded];
        let len = match self.codec {
            Codec::Zlib => inflate(bytes, &mut decoded)?,
            Codec::Lzo => lzo::decode_segments(bytes, self.sector, &mut decoded)?,
            // The decoder is complex, and its input hostile: a panic, which would end the process, is an error of the extent.
            Codec::Zstd => catch_unwind(AssertUnwindSafe(|| decode_zstd(bytes, &mut decoded))).ok()??,
        };
        // The end of a file is not stored up to the end of its sector, which has zeros there.
        (decoded.len() - len < self.sector).then_some(decoded)
    }
}

/// Decodes zlib, and returns the length. What follows its end is ignored.
fn inflate(bytes: &[u8], decoded: &mut [u8]) -> Option<usize> {
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut decoder = Box::<DecompressorOxide>::default();
    let (status, _, len) = decompress(&mut decoder, bytes, decoded, 0, flags);
    (status == TINFLStatus::Done).then_some(len)
}

/// Decodes a frame of zstd, and returns the length. What follows its end is ignored.
fn decode_zstd(mut bytes: &[u8], decoded: &mut [u8]) -> Option<usize> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_WINDOW);
    decoder.reset(&mut bytes).ok()?;
    let mut len = 0;
    // A block has at most 128 KiB, of which little more than a window remains in the decoder.
    while !decoder.is_finished() {
        decoder.decode_blocks(&mut bytes, BlockDecodingStrategy::UptoBlocks(1)).ok()?;
        len += decoder.read(decoded.get_mut(len..)?).ok()?;
        if decoder.can_collect() > 0 {
            return None;
        }
    }
    Some(len)
}

#[cfg(test)]
mod tests;
