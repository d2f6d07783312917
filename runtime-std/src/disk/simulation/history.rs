//! The states of a disk while its owner upgraded the system there.

use std::{ops::RangeInclusive, path::Path, sync::Arc};

use super::{
    paged_disk::PagedDisk,
    power_cut::{Cut, CutReport, Operation, Random},
    upgrade_recording::{FILES, RECORDED, RecordedFileSystem, Upgrade, UpgradeRecording, contents},
};

/// The size of a sector in bytes.
pub(super) const SECTOR: usize = 512;

/// A recording, and the disk after each of its flushes.
pub(super) struct History {
    pub(super) file_system: RecordedFileSystem,
    pub(super) operations: Arc<[Operation]>,
    upgrades: Vec<Upgrade>,
    /// The number of operations before a flush, and the disk after them.
    flushed: Vec<(usize, PagedDisk)>,
}

impl History {
    /// Reads all recordings.
    pub(super) fn read_all() -> Vec<Self> {
        RECORDED.into_iter().map(Self::read).collect()
    }

    fn read(file_system: RecordedFileSystem) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings");
        let path = directory.join(format!("{}.xz", file_system.name));
        let UpgradeRecording { base, operations, upgrades } = UpgradeRecording::read(&path).expect("a recording");
        let mut disk = PagedDisk::new(&base);
        let mut flushed = vec![(0, disk.clone())];
        for (number, operation) in operations.iter().enumerate() {
            disk.apply(operation);
            if *operation == Operation::Flush {
                flushed.push((number, disk.clone()));
            }
        }
        Self { file_system, operations: operations.into(), upgrades, flushed }
    }

    /// Returns the disk as a cut after this many operations leaves it.
    pub(super) fn cut(&self, end: usize, cut: Cut, random: &mut Random) -> PagedDisk {
        let after = self.flushed.partition_point(|(number, _)| *number < end);
        let (flushed, disk) = &self.flushed[after.saturating_sub(1)];
        let mut disk = disk.clone();
        for operation in &self.operations[*flushed..end] {
            if let Operation::Write { bytes, is_durable, .. } = operation {
                let kept = cut.kept(bytes.len(), *is_durable, random, &mut CutReport::default());
                disk.apply_part(operation, 0..kept);
                // The cache of the drive may also have written the end of it only.
                if kept == 0 && random.below(4) == 0 {
                    disk.apply_part(operation, random.below(bytes.len() / SECTOR) * SECTOR..bytes.len());
                }
            }
        }
        disk
    }

    /// Returns the versions that a file may have that was requested after `before` operations and received after `after`.
    pub(super) fn versions(&self, before: usize, after: usize) -> RangeInclusive<u32> {
        let oldest = self.upgrades.iter().rfind(|upgrade| upgrade.end <= before);
        let newest = self.upgrades.iter().rfind(|upgrade| upgrade.begin < after);
        oldest.map_or(0, |upgrade| upgrade.version)..=newest.map_or(0, |upgrade| upgrade.version)
    }
}

/// The contents of all files in all versions.
pub(super) struct Contents(Vec<[Vec<u8>; FILES.len()]>);

impl Contents {
    pub(super) fn new(histories: &[History]) -> Self {
        let newest = histories.iter().flat_map(|history| &history.upgrades).map(|upgrade| upgrade.version).max();
        Self((0..=newest.unwrap_or(0)).map(|version| FILES.map(|name| contents(name, version))).collect())
    }

    /// Returns the version of a file that has these contents.
    pub(super) fn version(&self, file: usize, bytes: &[u8]) -> Option<u32> {
        self.0.iter().position(|files| files[file] == bytes).map(|version| version as u32)
    }
}
