//! FAT12, FAT16 and FAT32, as Linux's vfat shows them.
//!
//! Sources: Microsoft's "FAT: General Overview of On-Disk Format", version 1.03 (fatgen103), and fs/fat of Linux where the two
//! differ. What only matters to those who write is not looked at: the second FAT, the `FSInfo` sector, the backup boot sector.

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
    BoxedFileSystem, Detected, Driver, Error, Extent, FileIdentity, FileMap, FileSystem, FileType, FsFuture, Node,
    Volume,
};

/// What the root directory is called; an entry is called by its place, and no entry is where the boot sector is.
const ROOT: u64 = 0;
/// How long a directory may be, in bytes (fatgen103, "FAT directory structure"; `FAT_MAX_DIR_SIZE` of Linux).
const LONGEST_DIRECTORY: u64 = 2 << 20;
/// How much of a directory is read at once, in bytes.
const PIECE: u64 = 64 * 1024;

/// A FAT12, FAT16 or FAT32 file system.
#[derive(Debug)]
pub(super) struct Fat {
    volume: Volume,
    layout: Layout,
    in_use: bool,
}

impl Fat {
    /// Opens the file system of a volume; `None` if its first sector is not the boot sector of one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is one whose numbers do not fit together, [`Error::Io`].
    pub(super) async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        let Some(layout) = Layout::read(&volume).await? else { return Ok(None) };
        let in_use = layout.is_marked || !table::is_clean(&volume, &layout).await?;
        Ok(Some(Self { volume, layout, in_use }))
    }

    /// The root directory.
    pub(super) fn root(&self) -> Node {
        Node { id: ROOT, file_type: FileType::Directory }
    }

    /// Finds a name in a directory, by its long name or by its short one, regardless of case; dots at its end do not count.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(super) async fn lookup(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Error> {
        // Everything here has a name in UTF-8.
        let Ok(name) = str::from_utf8(name) else { return Ok(None) };
        let name = name.trim_end_matches('.');
        let entries = self.entries(directory).await?;
        Ok(entries.iter().find(|entry| entry.is_called(name)).map(Entry::node))
    }

    /// Gives what is in a directory, by the names that `ls` shows, in the order of the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(super) async fn read_directory(&self, directory: Node) -> Result<Vec<(Vec<u8>, Node)>, Error> {
        let entries = self.entries(directory).await?;
        Ok(entries.into_iter().map(|entry| (entry.name().as_bytes().to_vec(), entry.node())).collect())
    }

    /// Tells where the bytes of a file are, and by what it can be told from what comes after it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the clusters of the file are fewer than its size needs, or if they are no proper chain;
    /// [`Error::Unsupported`] if they are in too many pieces; [`Error::Io`].
    pub(super) async fn map(&self, file: Node) -> Result<FileMap, Error> {
        let record = self.record(file.id, FileType::File).await?;
        let size = u64::from(record.size());
        let first = record.first_cluster(self.layout.kind);
        let runs = self.chain(first, size.div_ceil(self.layout.cluster)).await?;
        let identity = FileIdentity {
            file_system: u128::from(self.layout.serial).to_le_bytes(),
            node: file.id,
            generation: first.into(),
            times: record.times(),
            ..FileIdentity::default()
        };
        let mut found = FileMap { size, identity, ..FileMap::default() };
        let mut start = 0;
        for run in runs {
            let (place, len) = self.layout.place(&run);
            found.push(Extent { file_offset: start, len, disk_offset: self.volume.disk_offset(place, len)? });
            start += len;
        }
        if start < size {
            return Err(Error::corrupt(
                ("directory entry at", file.id),
                format!("a file of {size} bytes has clusters for {start}, or is being written"),
            ));
        }
        Ok(found)
    }

    /// Whether it is mounted by somebody who may write to it, or was not unmounted properly.
    ///
    /// Linux and others say so in the boot sector as long as they have it mounted, Windows in the FAT.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// What kind it is: "FAT12", "FAT16" or "FAT32".
    pub(super) fn name(&self) -> &'static str {
        self.layout.kind.name()
    }

    /// The entries of a directory that stand for a file or a directory, up to the one that says that no more come.
    async fn entries(&self, directory: Node) -> Result<Vec<Entry>, Error> {
        let mut entries = Directory::default();
        for (place, len) in self.extents(directory).await? {
            for at in (0..len).step_by(PIECE as usize) {
                let bytes = self.volume.read(place + at, PIECE.min(len - at) as usize).await?;
                if !entries.add(place + at, &bytes) {
                    return Ok(entries.found);
                }
            }
        }
        Ok(entries.found)
    }

    /// Where a directory is in the volume: pieces of it as place and length.
    async fn extents(&self, directory: Node) -> Result<Vec<(u64, u64)>, Error> {
        let first = match self.layout.root {
            Root::Fixed { place, len } if directory.id == ROOT => return Ok(vec![(place, len)]),
            Root::Chain(first) if directory.id == ROOT => first,
            _ => self.record(directory.id, FileType::Directory).await?.first_cluster(self.layout.kind),
        };
        if first == 0 {
            // Linux takes a directory without a cluster for an empty one (`fat_calc_dir_size`).
            return Ok(Vec::new());
        }
        let most = LONGEST_DIRECTORY / self.layout.cluster;
        let runs = self.chain(first, most + 1).await?;
        if runs.iter().map(|run| run.len() as u64).sum::<u64>() > most {
            return Err(Error::corrupt(("directory at cluster", first), "longer than 2 MiB"));
        }
        Ok(runs.iter().map(|run| self.layout.place(run)).collect())
    }

    /// The entry at a place, which was of a certain kind when it was found.
    async fn record(&self, place: u64, kind: FileType) -> Result<Record, Error> {
        let record = Record::new(&self.volume.read(place, directory::RECORD).await?);
        match record.kind() {
            Some(found) if found == kind => Ok(record),
            _ => Err(Error::corrupt(("directory entry at", place), "has changed: the disk is being written")),
        }
    }

    /// The first `most` clusters of a chain, or all of it if it is shorter.
    async fn chain(&self, first: u32, most: u64) -> Result<Vec<Range<u32>>, Error> {
        table::chain(&self.volume, &self.layout, first, most).await
    }
}

/// The driver for FAT12, FAT16, FAT32.
pub(super) const DRIVER: Driver = Driver {
    name: "fat",
    probe: |volume| {
        Box::pin(async {
            Ok(Fat::open(volume.clone()).await?.map(|fat| Detected { name: fat.name(), in_use: Some(fat.in_use) }))
        })
    },
    open: |volume| {
        Box::pin(async { Ok(Fat::open(volume).await?.map(|filesystem| Box::new(filesystem) as BoxedFileSystem)) })
    },
};

impl FileSystem for Fat {
    fn name(&self) -> &'static str {
        self.name()
    }

    fn is_in_use(&self) -> bool {
        self.is_in_use()
    }

    fn root(&self) -> Node {
        self.root()
    }

    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        Box::pin(self.lookup(directory, name))
    }

    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<(Vec<u8>, Node)>> {
        Box::pin(self.read_directory(directory))
    }

    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async move { Err(Error::corrupt(("directory entry at", link.id), "FAT has no symbolic links")) })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(self.map(file))
    }
}

#[cfg(test)]
mod tests;
