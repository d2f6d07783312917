//! The checksums of the contents of a file, with which they are compared when they are read.

use std::sync::Arc;

use smol::future::yield_now;

use super::{BlockDevice, Buffer, Error, ReadFuture, checksum::Checksum};

/// The maximum length of a checksum in memory, in bytes: of a longer one, the first bytes suffice to detect damage.
const MAX_SUM: usize = 8;
/// The number of blocks after which other tasks run.
const BLOCKS_AT_ONCE: usize = 64;

/// The checksums of blocks of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockChecksums {
    checksum: Checksum,
    /// The size of a block in bytes.
    block: usize,
    /// The blocks that have checksums; in the order of the disk once all are added.
    runs: Vec<Run>,
    /// The checksums of all runs.
    sums: Vec<u8>,
}

/// Contiguous blocks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The offset on the disk in bytes.
    start: u64,
    /// The offset of its end.
    end: u64,
    /// The offset of another copy of the blocks.
    copy: Option<u64>,
    /// The offset of the first checksum.
    sums: usize,
}

impl BlockChecksums {
    /// Returns no checksums yet, of blocks of this size.
    pub(super) fn new(checksum: Checksum, block: usize) -> Self {
        Self { checksum, block, runs: Vec::new(), sums: Vec::new() }
    }

    /// Returns the size of a block in bytes: reads must begin and end at blocks.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Returns the length of each checksum in memory.
    pub(super) fn sum_len(&self) -> usize {
        self.checksum.len().min(MAX_SUM)
    }

    /// Adds the checksums of contiguous blocks, one after the other.
    pub(super) fn add(&mut self, start: u64, copy: Option<u64>, sums: &[u8]) {
        let (stored, all) = (self.sum_len(), sums.chunks_exact(self.checksum.len()));
        let len = (all.len() * self.block) as u64;
        match self.runs.last_mut() {
            Some(last)
                if last.end == start && last.copy.map(|copy| copy.saturating_add(last.end - last.start)) == copy =>
            {
                last.end += len;
            }
            _ => self.runs.push(Run { start, end: start.saturating_add(len), copy, sums: self.sums.len() }),
        }
        self.sums.extend(all.flat_map(|sum| &sum[..stored]));
    }

    /// Compares blocks that were read from a place on the disk with their checksums. Reads those that differ from the other copy.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a block differs in all copies, and those of the disk.
    pub(super) async fn verify(&self, device: &dyn BlockDevice, start: u64, bytes: &mut [u8]) -> Result<(), Error> {
        for (index, block) in bytes.chunks_exact_mut(self.block).enumerate() {
            let at = start.saturating_add((index * self.block) as u64);
            let Some((run, sum)) = self.sum(at) else { continue };
            if !self.checksum.matches(block, sum) {
                let copy = run.copy.ok_or_else(mismatch)?.saturating_add(at - run.start);
                let other = device.read(copy, self.block).await?;
                if other.len() != block.len() || !self.checksum.matches(&other, sum) {
                    return Err(mismatch());
                }
                block.copy_from_slice(&other);
            }
            if index % BLOCKS_AT_ONCE == BLOCKS_AT_ONCE - 1 {
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Returns the checksum of the block at an offset of the disk, and its run.
    fn sum(&self, at: u64) -> Option<(&Run, &[u8])> {
        let after = self.runs.partition_point(|run| run.start <= at);
        let run = self.runs.get(after.checked_sub(1)?).filter(|run| at < run.end)?;
        let number = (at - run.start) / self.block as u64;
        let sum = run.sums + usize::try_from(number).ok()? * self.sum_len();
        Some((run, self.sums.get(sum..sum + self.sum_len())?))
    }

    /// Returns all that were added; `None` if there are none.
    pub(super) fn finish(mut self) -> Option<Arc<Self>> {
        self.runs.sort_unstable_by_key(|run| run.start);
        self.runs.shrink_to_fit();
        self.sums.shrink_to_fit();
        (!self.runs.is_empty()).then(|| Arc::new(self))
    }

    /// Returns the memory in use, in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.runs.capacity() * size_of::<Run>() + self.sums.capacity()
    }
}

/// A read of the blocks that contain a part of an extent.
pub(super) struct BlockRead<'a> {
    pub(super) device: &'a dyn BlockDevice,
    pub(super) checksums: Option<&'a BlockChecksums>,
    /// The offset of the first block on the disk.
    pub(super) disk_offset: u64,
    pub(super) blocks: ReadFuture<'a>,
    /// The offset of the part in the blocks, and its length.
    pub(super) wanted: (usize, usize),
}

impl BlockRead<'_> {
    /// Waits for the blocks, verifies them, and returns the part.
    ///
    /// # Errors
    ///
    /// As [`verify`](BlockChecksums::verify).
    pub(super) async fn finish(self) -> Result<Buffer, Error> {
        let mut blocks = self.blocks.await?;
        let (start, len) = self.wanted;
        if let Some(checksums) = self.checksums {
            checksums.verify(self.device, self.disk_offset, &mut blocks).await?;
            blocks.crop(start, len);
        }
        Ok(blocks)
    }
}

fn mismatch() -> Error {
    Error::corrupt("file", "checksum mismatch: damaged, or being written")
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    const BLOCK: usize = 512;

    /// Returns the checksums of the blocks of some bytes.
    fn sums(bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(BLOCK).flat_map(|block| crc32c::crc32c(block).to_le_bytes()).collect()
    }

    #[test]
    fn damaged_blocks_are_read_from_the_other_copy() {
        let contents: Vec<u8> = (0..8 * BLOCK).map(|at| (at / 7) as u8).collect();
        let mut disk = vec![0; 32 * BLOCK];
        disk[..8 * BLOCK].copy_from_slice(&contents);
        disk[16 * BLOCK..24 * BLOCK].copy_from_slice(&contents);
        let mut checksums = BlockChecksums::new(Checksum::Crc32c, BLOCK);
        // The first block has no checksum, the last two have no copy.
        checksums.add(BLOCK as u64, Some(17 * BLOCK as u64), &sums(&contents[BLOCK..4 * BLOCK]));
        checksums.add(4 * BLOCK as u64, Some(20 * BLOCK as u64), &sums(&contents[4 * BLOCK..6 * BLOCK]));
        checksums.add(6 * BLOCK as u64, None, &sums(&contents[6 * BLOCK..]));
        assert_eq!(checksums.runs.len(), 2, "contiguous blocks are one run");
        let read = |disk: &Vec<u8>, start: usize| {
            let mut bytes = disk[start * BLOCK..8 * BLOCK].to_vec();
            block_on(checksums.verify(disk, (start * BLOCK) as u64, &mut bytes)).map(|()| bytes)
        };
        disk[3 * BLOCK] ^= 1;
        disk[5 * BLOCK + 7] ^= 1;
        for start in 0..8 {
            assert_eq!(read(&disk, start).as_deref(), Ok(&contents[start * BLOCK..]));
        }
        disk[19 * BLOCK] ^= 1;
        let error = read(&disk, 2).expect_err("both copies are damaged");
        assert_eq!(error.to_string(), "file: checksum mismatch: damaged, or being written");
        assert_eq!(read(&disk, 4).as_deref(), Ok(&contents[4 * BLOCK..]));
        disk[7 * BLOCK] ^= 1;
        assert!(read(&disk, 4).is_err(), "no copy");
    }

    #[test]
    fn long_checksums_are_compared_in_part() {
        let contents = [vec![1; BLOCK], vec![2; BLOCK]].concat();
        for checksum in [Checksum::XxHash64, Checksum::Sha256, Checksum::Blake2b] {
            let sum = |block: &[u8]| match checksum {
                Checksum::XxHash64 => twox_hash::XxHash64::oneshot(0, block).to_le_bytes().to_vec(),
                Checksum::Sha256 => ring::digest::digest(&ring::digest::SHA256, block).as_ref().to_vec(),
                _ => <blake2::Blake2b256 as blake2::Digest>::digest(block).to_vec(),
            };
            let mut checksums = BlockChecksums::new(checksum, BLOCK);
            checksums.add(0, None, &contents.chunks(BLOCK).flat_map(sum).collect::<Vec<_>>());
            assert_eq!(checksums.sums.len(), 16, "{checksum:?}");
            let mut bytes = contents.clone();
            assert_eq!(block_on(checksums.verify(&vec![], 0, &mut bytes)), Ok(()), "{checksum:?}");
            bytes[BLOCK] = 1;
            assert!(block_on(checksums.verify(&vec![], 0, &mut bytes)).is_err(), "{checksum:?}");
        }
    }
}
