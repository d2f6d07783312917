//! Disks as a power cut leaves them.

use std::{fmt, ops::Range};

use crate::noise;

/// What a client of an NBD server did to its disk.
#[derive(Debug, Clone)]
pub enum Operation {
    /// It wrote these bytes; if durable, not only to the cache of the drive.
    Write {
        /// The offset on the disk.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether the write was durable before its reply (FUA).
        is_durable: bool,
    },
    /// All writes before became durable.
    Flush,
}

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The machine was killed: the disk contains all its writes.
    Kill,
    /// The drive lost power, too: of the writes since the last flush, each is kept, lost, or torn at a sector.
    Power,
}

/// How many writes a cut affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutReport {
    /// The number of operations before the cut.
    pub operations: usize,
    /// The number of writes that were lost.
    pub lost: usize,
    /// The number of writes of which only the first sectors were kept.
    pub torn: usize,
}

impl fmt::Display for CutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} operations, {} lost, {} torn", self.operations, self.lost, self.torn)
    }
}

/// A sequence of random numbers that depends only on its seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the sequence.
    pub fn new(seed: u64) -> Self {
        Self(noise(8, seed.wrapping_add(1)).iter().fold(1, |state, byte| state << 8 | u64::from(*byte)) | 1)
    }

    /// Returns the next number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % limit.max(1) as u64) as usize
    }

    /// Returns the next number in a range.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.len())
    }
}

/// Applies operations to a disk as far as they survive a cut after them. The drive writes sectors of `sector` bytes completely.
pub fn apply(disk: &mut [u8], operations: &[Operation], cut: Cut, sector: usize, random: &mut Random) -> CutReport {
    let mut report = CutReport { operations: operations.len(), ..CutReport::default() };
    let flushed = operations.iter().rposition(|operation| matches!(operation, Operation::Flush)).unwrap_or(0);
    for (number, operation) in operations.iter().enumerate() {
        let Operation::Write { offset, bytes, is_durable } = operation else { continue };
        let mut kept = bytes.len();
        if cut == Cut::Power && number > flushed && !is_durable {
            match random.below(20) {
                0..9 => {
                    report.lost += 1;
                    continue;
                }
                9..13 if kept > sector => {
                    kept = random.within(1..kept / sector) * sector;
                    report.torn += 1;
                }
                _ => {}
            }
        }
        let at = *offset as usize;
        disk[at..at + kept].copy_from_slice(&bytes[..kept]);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_since_the_last_flush_are_lost_or_torn() {
        let write = |sector: u64, is_durable| Operation::Write {
            offset: sector * 512,
            bytes: vec![sector as u8 + 1; 2048],
            is_durable,
        };
        let flushed: Vec<_> = (0..8).map(|number| write(number * 4, false)).chain([Operation::Flush]).collect();
        let later = (8..50).map(|number| write(number * 4, number % 7 == 0));
        let operations: Vec<_> = flushed.into_iter().chain(later).collect();
        let image = |cut| {
            let mut disk = vec![0; 50 * 2048];
            let report = apply(&mut disk, &operations, cut, 512, &mut Random::new(1));
            (disk, report)
        };
        let (whole, report) = image(Cut::Kill);
        assert_eq!(report, CutReport { operations: 51, lost: 0, torn: 0 });
        let (cut, report) = image(Cut::Power);
        assert!(report.lost > 5 && report.torn > 2 && report.lost + report.torn < 36, "{report}");
        let differ = |number: &usize| whole[number * 2048..][..2048] != cut[number * 2048..][..2048];
        let differing: Vec<_> = (0..50).filter(differ).collect();
        assert_eq!(differing.len(), report.lost + report.torn);
        assert!(differing.iter().all(|number| *number >= 8 && number % 7 != 0), "{differing:?}");
        assert_eq!(image(Cut::Power), (cut, report), "the same seed, the same disk");
    }
}
