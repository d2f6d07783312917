//! What the file systems in all partitions of a disk record about being mounted, and how that changes.

use std::sync::Arc;

use super::{
    BlockDevice, Change, Driver, Error, MountMarks, Shows, Volume,
    driver::DRIVERS,
    partition::{Partition, partitions},
    turns::DiskWork,
    work::metered,
};
use crate::memory::DiskMemory;

/// The work of reading the marks of a disk once, in bytes read.
const READ_WORK: u64 = 8 << 20;
/// The number of partitions that are read.
const MAX_PARTITIONS: usize = 16;

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

/// The file systems of a disk that changed, or did not, since its marks were read before.
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
        metered(work, READ_WORK, Self::find(Volume::with_memory(device, memory))).await
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

    /// Reads the marks again, and returns what happened to the disk meanwhile.
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
        metered(work, READ_WORK, self.changes(Volume::with_memory(device, memory))).await
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
