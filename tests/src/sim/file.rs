//! Files of any size that need no memory, and the random numbers of the simulation.

use rtftp_core::{BlockReader, BlockSink, ReadFailed, WriteFailed};

/// A generator of pseudo-random numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Returns a number from 0 to `end` - 1, or 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// Returns `true` with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.draw() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Returns one of the elements.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The length of the mark at both ends of every block, which depends on its offset in the file, in bytes.
pub(super) const MARK: usize = 8;

fn mark(offset: u64) -> [u8; MARK] {
    mixed(!offset).to_le_bytes()
}

/// A file in which every block begins and ends with a mark. The bytes between stay as they are in the buffer, so that a block of any
/// size costs the same.
pub(super) struct Source {
    pub(super) size: u64,
    /// The size of a block, in bytes. A read starts at a block and may cover several.
    pub(super) blksize: usize,
    /// The probability that a read is not loaded.
    pub(super) not_loaded: f64,
    pub(super) rng: Rng,
}

impl BlockReader for Source {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        if self.rng.chance(self.not_loaded) {
            return Ok(None);
        }
        let len = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let offsets = (offset..).step_by(self.blksize);
        offsets.zip(buf[..len].chunks_mut(self.blksize)).for_each(|(offset, block)| write_marks(offset, block));
        Ok(Some(len))
    }
}

fn write_marks(offset: u64, block: &mut [u8]) {
    let len = block.len().min(MARK);
    let end = block.len() - len;
    block[end..].copy_from_slice(&mark(offset + end as u64)[..len]);
    block[..len].copy_from_slice(&mark(offset)[..len]);
}

/// A sink that accepts only the bytes of [`Source`], in order.
pub(super) struct CheckedSink {
    pub(super) size: u64,
    /// The number of bytes that have arrived.
    pub(super) delivered: u64,
}

impl BlockSink for CheckedSink {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        if offset != self.delivered || bytes.len() as u64 > self.size - self.delivered {
            return Err(WriteFailed("not the next bytes of the file"));
        }
        let (mut expected, mut found) = ([0; 2 * MARK], [0; 2 * MARK]);
        if let Some(end) = bytes.len().checked_sub(2 * MARK) {
            expected[..MARK].copy_from_slice(&mark(offset));
            expected[MARK..].copy_from_slice(&mark(offset + (end + MARK) as u64));
            found[..MARK].copy_from_slice(&bytes[..MARK]);
            found[MARK..].copy_from_slice(&bytes[end + MARK..]);
        } else {
            write_marks(offset, &mut expected[..bytes.len()]);
            found[..bytes.len()].copy_from_slice(bytes);
        }
        if expected != found {
            return Err(WriteFailed("bytes of another offset in the file"));
        }
        self.delivered += bytes.len() as u64;
        Ok(())
    }
}
