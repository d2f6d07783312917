//! Disks as a power cut leaves them.

use std::{fmt, ops::Range, sync::Arc};

/// What a client of an NBD server did to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The drive lost power, too: of the writes since the last flush, each is kept, lost, or torn.
    Power {
        /// The number of bytes that the drive writes completely or not at all, usually a sector.
        unit: usize,
    },
}

/// How many writes a cut affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutReport {
    /// The number of operations before the cut.
    pub operations: usize,
    /// The number of writes that were lost.
    pub lost: usize,
    /// The number of writes of which only the start was kept.
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
        // Similar seeds must not give similar sequences (splitmix64).
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed | 1)
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

impl Cut {
    /// Returns how many of `len` bytes of a write since the last flush are kept, from its start on.
    pub fn kept(self, len: usize, is_durable: bool, random: &mut Random, report: &mut CutReport) -> usize {
        let Self::Power { unit } = self else { return len };
        if is_durable {
            return len;
        }
        match random.below(20) {
            0..9 => {
                report.lost += 1;
                0
            }
            9..13 if len > unit => {
                report.torn += 1;
                random.within(1..len.div_ceil(unit)) * unit
            }
            _ => len,
        }
    }
}

/// A disk as each of several cuts of the same operations leaves it.
#[derive(Debug)]
pub struct CutDisk<'a> {
    disk: Arc<Vec<u8>>,
    operations: &'a [Operation],
    /// The number of operations that the disk contains.
    applied: usize,
}

impl<'a> CutDisk<'a> {
    /// Creates the disk as it was before these operations.
    pub fn new(disk: Vec<u8>, operations: &'a [Operation]) -> Self {
        Self { disk: Arc::new(disk), operations, applied: 0 }
    }

    /// Calls `read` with the disk that a cut after `end` operations leaves. Cuts must come in the order of their `end`.
    pub fn cut<R>(
        &mut self,
        end: usize,
        cut: Cut,
        random: &mut Random,
        read: impl FnOnce(&Arc<Vec<u8>>, CutReport) -> R,
    ) -> R {
        let flush = |operation: &Operation| matches!(operation, Operation::Flush);
        let flushed = self.operations[..end].iter().rposition(flush).unwrap_or(0);
        assert!(self.applied <= flushed, "cuts must come in order");
        let mut report = CutReport { operations: end, ..CutReport::default() };
        let disk = Arc::make_mut(&mut self.disk);
        for operation in &self.operations[self.applied..flushed] {
            operation.apply(disk);
        }
        self.applied = flushed;
        let mut replaced = Vec::new();
        for operation in &self.operations[flushed..end] {
            let Operation::Write { offset, bytes, is_durable } = operation else { continue };
            let kept = cut.kept(bytes.len(), *is_durable, random, &mut report);
            let range = *offset as usize..*offset as usize + kept;
            replaced.push((range.start, disk[range.clone()].to_vec()));
            disk[range].copy_from_slice(&bytes[..kept]);
        }
        let result = read(&self.disk, report);
        let disk = Arc::make_mut(&mut self.disk);
        for (at, bytes) in replaced.into_iter().rev() {
            disk[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        result
    }
}

impl Operation {
    /// Changes a disk as the operation did.
    pub fn apply(&self, disk: &mut [u8]) {
        if let Self::Write { offset, bytes, .. } = self {
            disk[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
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
        let base = vec![0; 50 * 2048];
        let mut disk = CutDisk::new(base.clone(), &operations);
        let mut image =
            |end, cut| disk.cut(end, cut, &mut Random::new(1), |disk, report| (disk.as_ref().clone(), report));
        assert_eq!(image(9, Cut::Power { unit: 512 }).1, CutReport { operations: 9, lost: 0, torn: 0 });
        let (whole, report) = image(51, Cut::Kill);
        assert_eq!(report, CutReport { operations: 51, lost: 0, torn: 0 });
        assert!(
            operations.iter().fold(base, |mut disk, operation| {
                operation.apply(&mut disk);
                disk
            }) == whole
        );
        let (cut, report) = image(51, Cut::Power { unit: 512 });
        assert!(report.lost > 5 && report.torn > 2 && report.lost + report.torn < 36, "{report}");
        let differ = |number: &usize| whole[number * 2048..][..2048] != cut[number * 2048..][..2048];
        let differing: Vec<_> = (0..50).filter(differ).collect();
        assert_eq!(differing.len(), report.lost + report.torn);
        assert!(differing.iter().all(|number| *number >= 8 && number % 7 != 0), "{differing:?}");
        assert_eq!(image(51, Cut::Power { unit: 512 }), (cut, report), "the same seed, the same disk");
    }
}
