//! FAT12, FAT16 and FAT32, read like Linux's vfat.
//!
//! Sources: Microsoft's "FAT: General Overview of On-Disk Format", version 1.03 (fatgen103), and fs/fat of Linux where the two
//! differ. Structures that only matter for writing are ignored: the second FAT, the `FSInfo` sector, the backup boot sector.

mod boot;
mod directory;
mod name;
mod table;

use std::ops::Range;

use self::{
    boot::{Layout, Root},
    directory::{Directory, Entry, Record},
};
use super::{
    BoxedFileSystem, Detected, DirectoryEntry, Driver, Error, Extent, FileIdentity, FileMap, FileSystem, FileType,
    FsFuture, MountMarks, Node, Shows, Volume,
};
use crate::memory::Reservation;

/// The node of the root directory. Other nodes are the offsets of their entries, and no entry is in the boot sector.
const ROOT: u64 = 0;
/// The maximum length of a directory in bytes (fatgen103, "FAT directory structure"; `FAT_MAX_DIR_SIZE` of Linux).
const MAX_DIRECTORY: u64 = 2 << 20;
/// The number of bytes of a directory that are read at once.
const DIRECTORY_CHUNK: u64 = 64 * 1024;

/// The driver for FAT12, FAT16 and FAT32.
pub(super) const DRIVER: Driver = Driver {
    name: "fat",
    superblock: 0,
    probe: |volume| {
        Box::pin(async {
            let fat = Fat::open(volume.clone()).await?;
            Ok(fat.map(|fat| Detected { name: fat.name(), in_use: Some(fat.is_in_use) }))
        })
    },
    open: |volume| Box::pin(async { Ok(Fat::open(volume).await?.map(|fat| Box::new(fat) as BoxedFileSystem)) }),
    marks: |volume| Box::pin(Fat::marks(volume)),
};

/// A FAT12, FAT16 or FAT32 file system.
#[derive(Debug)]
pub(super) struct Fat {
    volume: Volume,
    layout: Layout,
    is_in_use: bool,
}

impl Fat {
    /// Opens the file system in a volume; `None` if the first sector is not a FAT boot sector.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the fields of the boot sector are inconsistent, [`Error::Io`].
    pub(super) async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        let Some(layout) = Layout::read(&volume).await? else { return Ok(None) };
        // Linux and others set a flag in the boot sector while the file system is mounted, Windows clears one in the FAT.
        let is_in_use = layout.is_dirty || !table::is_clean(&volume, &layout).await?;
        Ok(Some(Self { volume, layout, is_in_use }))
    }

    /// Reads the mark of mounts: the dirty bit, which a read-write mount sets at once. After a reset it stays set, and shows nothing.
    async fn marks(volume: &Volume) -> Result<Option<MountMarks>, Error> {
        let Some(fat) = Self::open(volume.clone()).await? else { return Ok(None) };
        Ok(Some(MountMarks {
            name: fat.name(),
            last_mount: [0; 2],
            is_in_use: fat.is_in_use,
            state: u64::from(fat.layout.is_dirty) << 1 | u64::from(fat.is_in_use),
            shows: if fat.is_in_use { Shows::Nothing } else { Shows::Mounts },
        }))
    }

    /// Reads the entries of a directory that are files or directories.
    async fn entries(&self, directory: Node) -> Result<Vec<Entry>, Error> {
        let mut entries = Directory::default();
        for (offset, len) in self.directory_extents(directory).await? {
            for at in (0..len).step_by(DIRECTORY_CHUNK as usize) {
                let bytes = self.volume.read(offset + at, DIRECTORY_CHUNK.min(len - at) as usize).await?;
                if !entries.add(offset + at, &bytes) {
                    return Ok(entries.found);
                }
            }
        }
        Ok(entries.found)
    }

    /// Returns the parts of the volume that hold a directory, as pairs of offset and length in bytes.
    async fn directory_extents(&self, directory: Node) -> Result<Vec<(u64, u64)>, Error> {
        let first = match self.layout.root {
            Root::Fixed { offset, len } if directory.id == ROOT => return Ok(vec![(offset, len)]),
            Root::Chain(first) if directory.id == ROOT => first,
            _ => self.record(directory.id, FileType::Directory).await?.first_cluster(self.layout.width),
        };
        if first == 0 {
            // To Linux, a directory without a cluster is empty (`fat_calc_dir_size`).
            return Ok(Vec::new());
        }
        let max_clusters = MAX_DIRECTORY / self.layout.cluster_size;
        let (runs, _memory) = self.chain(first, max_clusters + 1).await?;
        if runs.iter().map(|run| run.len() as u64).sum::<u64>() > max_clusters {
            return Err(Error::corrupt(("directory at cluster", first), "longer than 2 MiB"));
        }
        Ok(runs.iter().map(|run| self.layout.clusters_at(run)).collect())
    }

    /// Reads the entry at an offset in the volume again, which must still have the same type.
    async fn record(&self, offset: u64, file_type: FileType) -> Result<Record, Error> {
        let record = Record::new(&self.volume.read(offset, directory::RECORD).await?);
        if record.file_type() != Some(file_type) {
            return Err(Error::corrupt(("directory entry at", offset), "has changed: the disk is being written"));
        }
        Ok(record)
    }

    /// Follows a cluster chain to its end, or for at most `max` clusters.
    async fn chain(&self, first: u32, max: u64) -> Result<(Vec<Range<u32>>, Reservation), Error> {
        table::chain(&self.volume, &self.layout, first, max).await
    }
}

impl FileSystem for Fat {
    fn name(&self) -> &'static str {
        self.layout.width.name()
    }

    fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    fn root(&self) -> Node {
        Node { id: ROOT, file_type: FileType::Directory }
    }

    /// Looks up a long or short name. Case and trailing dots are ignored, as on Linux.
    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        Box::pin(async move {
            // All names are valid UTF-8 here.
            let Ok(name) = str::from_utf8(name) else { return Ok(None) };
            let name = name.trim_end_matches('.');
            let entries = self.entries(directory).await?;
            Ok(entries.iter().find(|entry| entry.is_called(name)).map(Entry::node))
        })
    }

    /// Reads the entries of a directory, with the names that Linux shows.
    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>> {
        Box::pin(async move {
            let entries = self.entries(directory).await?;
            let entry = |entry: Entry| DirectoryEntry { name: entry.name().as_bytes().to_vec(), node: entry.node() };
            Ok(entries.into_iter().map(entry).collect())
        })
    }

    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async move { Err(Error::corrupt(("directory entry at", link.id), "FAT has no symbolic links")) })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(async move {
            let record = self.record(file.id, FileType::File).await?;
            let size = u64::from(record.size());
            let first = record.first_cluster(self.layout.width);
            let (runs, mut memory) = self.chain(first, size.div_ceil(self.layout.cluster_size)).await?;
            let identity = FileIdentity {
                file_system: u128::from(self.layout.serial).to_le_bytes(),
                node: file.id,
                generation: first.into(),
                times: record.times(),
                ..FileIdentity::default()
            };
            let mut map = FileMap { size, identity, modified: record.modified(), ..FileMap::default() };
            let mut file_offset = 0;
            for run in runs {
                let (offset, len) = self.layout.clusters_at(&run);
                memory.make_room(&mut map.extents)?;
                map.push(Extent { file_offset, len, disk_offset: self.volume.disk_offset(offset, len)? });
                file_offset += len;
            }
            if file_offset < size {
                let what = format!("a file of {size} bytes has clusters for {file_offset}, or is being written");
                return Err(Error::corrupt(("directory entry at", file.id), what));
            }
            Ok(map)
        })
    }
}

#[cfg(test)]
mod tests;
