//! What file systems record about being mounted: two looks at a disk show whether its board came up in between.
//!
//! Nothing depends on the clock of the board, which may have none: a mark only differs or not. Measured with Linux 6.1, which had the
//! disks mounted in QEMU, from the mount to the write at the server:
//!
//! | file system | mounted read-only | mounted or remounted read-write | later | unmounted | after a reset |
//! |---|---|---|---|---|---|
//! | ext2, ext3, ext4 | nothing | at once: `s_mtime`, `s_mnt_count`; "needs recovery" (without a journal: `s_state` not clean) | with files, after 5 to 10 s | the flag is reset | the flag is set |
//! | FAT16, FAT32 | nothing | at once: the dirty bit in the boot sector, unless it is set already | with files, after 5 s | the bit is reset | the bit is set, and stays |
//! | XFS | nothing, or the superblock and an unmount record in the log | the same | with files, after up to 30 s: the log | an unmount record in the log | no mark |
//! | btrfs | nothing | nothing, or after 30 s: the generation | with files, after 30 s: the generation | the generation | no mark |
//!
//! `tests/long.sh board-disks` repeats the mounts.

use std::sync::Arc;

use super::{
    BlockDevice, Driver, Error, Volume,
    driver::DRIVERS,
    partition::{Partition, partitions},
    work::{DiskWork, metered},
};
use crate::memory::DiskMemory;

/// The work of one look at a disk, in bytes read.
const LOOK_WORK: u64 = 8 << 20;
/// The number of partitions that are looked at.
const MAX_PARTITIONS: usize = 16;

/// The marks of a file system at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountMarks {
    /// The name, such as `ext4` or `FAT32`.
    pub name: &'static str,
    /// The time and the number of the last read-write mount, as the file system records them; 0 if it does not.
    pub last_mount: [u64; 2],
    /// Whether it is mounted read-write, or was not unmounted cleanly; `false` if it does not record that.
    pub is_in_use: bool,
    /// Differs after a change of its superblock or of the end of its log.
    pub state: u64,
    /// What these marks can show.
    pub shows: Shows,
}

/// What the marks of a file system show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Every read-write mount, at once.
    Mounts,
    /// Writes, some time later.
    Writes,
    /// Nothing, as they are now.
    Nothing,
}

/// What happened to a file system between two looks. The later variants say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that it shows.
    None,
    /// It was written.
    Written,
    /// It was mounted read-write.
    Mounted,
}

impl MountMarks {
    /// Returns what happened since an earlier look.
    pub fn since(&self, before: &Self) -> Change {
        let [[time, count], [time_before, count_before]] = [self.last_mount, before.last_mount];
        // A check of the file system resets the number.
        if time != time_before || count > count_before || self.is_in_use && !before.is_in_use {
            Change::Mounted
        } else if self.state != before.state {
            Change::Written
        } else {
            Change::None
        }
    }
}

/// The marks of all file systems of a disk, also of those that its description does not mount: a board may load its kernel from one
/// partition and mount another.
#[derive(Debug)]
pub struct DiskMarks {
    file_systems: Vec<Marked>,
}

#[derive(Debug)]
struct Marked {
    driver: &'static Driver,
    /// The number of the partition, or `None` for the whole disk.
    partition: Option<u32>,
    start: u64,
    len: u64,
    marks: MountMarks,
}

/// The file systems of a disk that changed, or did not, since an earlier look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskChange {
    /// The greatest change.
    pub change: Change,
    /// The file systems: `ext4 on partition 2 mounted`, or if there is no change `ext4 on partition 2 not mounted read-write`. Empty if
    /// none shows anything.
    pub text: String,
}

impl DiskMarks {
    /// Reads the marks of a disk.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn read(device: Arc<dyn BlockDevice>, memory: DiskMemory, work: &DiskWork) -> Result<Self, Error> {
        metered(work, LOOK_WORK, Self::find(Volume::with_memory(device, memory))).await
    }

    async fn find(disk: Volume) -> Result<Self, Error> {
        let table = partitions(&disk).await?;
        let mut volumes: Vec<_> = vec![];
        volumes.extend(
            table.iter().take(MAX_PARTITIONS).map(|Partition { number, start, len, .. }| (Some(*number), *start, *len)),
        );
        if table.is_empty() {
            volumes.push((None, 0, disk.size()));
        }
        let mut file_systems = vec![];
        for (partition, start, len) in volumes {
            for driver in DRIVERS {
                match (driver.marks)(&disk.slice(start, len)).await {
                    Ok(Some(marks)) => file_systems.push(Marked { driver, partition, start, len, marks }),
                    // An unknown or damaged file system shows nothing.
                    Ok(None) | Err(Error::Corrupt(_) | Error::Unsupported(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Self { file_systems })
    }

    /// Returns what happened to the disk since this look.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::Corrupt`] if a file system cannot be recognised any more.
    pub async fn compare(
        &self,
        device: Arc<dyn BlockDevice>,
        memory: DiskMemory,
        work: &DiskWork,
    ) -> Result<DiskChange, Error> {
        metered(work, LOOK_WORK, self.changes(Volume::with_memory(device, memory))).await
    }

    async fn changes(&self, disk: Volume) -> Result<DiskChange, Error> {
        let mut changes = vec![];
        for before in &self.file_systems {
            let marks = (before.driver.marks)(&disk.slice(before.start, before.len)).await?;
            let marks = marks.ok_or_else(|| Error::corrupt(before.driver.name, "not found any more"))?;
            changes.push((before, marks.since(&before.marks)));
        }
        let change = changes.iter().map(|(_, change)| *change).max().unwrap_or(Change::None);
        let texts = changes.iter().filter(|(_, of_this)| *of_this == change);
        let texts: Vec<String> = texts.filter_map(|(before, change)| before.describe(*change)).collect();
        Ok(DiskChange { change, text: texts.join(", ") })
    }
}

impl Marked {
    /// Describes a change; `None` if there is none and the file system would not show it.
    fn describe(&self, change: Change) -> Option<String> {
        let words = match (change, self.marks.shows) {
            (Change::Mounted, _) => "mounted",
            (Change::Written, _) => "written",
            (Change::None, Shows::Mounts) if self.marks.is_in_use => "not mounted again",
            (Change::None, Shows::Mounts) => "not mounted read-write",
            (Change::None, Shows::Writes) => "not written",
            (Change::None, Shows::Nothing) => return None,
        };
        let name = self.marks.name;
        Some(match self.partition {
            Some(number) => format!("{name} on partition {number} {words}"),
            None => format!("{name} {words}"),
        })
    }
}

#[cfg(test)]
mod tests;
