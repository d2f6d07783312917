//! XFS of versions 4 and 5, read as it would be after a replay of the log. The checksums of all metadata that is read are verified,
//! except of what the log has changed: its own checksums cover these changes.
//!
//! The [`superblock`] locates the [`inode`]s, [`map`] maps their content to the disk, [`directory`] parses directories. All
//! structures are read through the [`block_reader`], which applies the changes in the [`log`].

mod block_reader;
mod checksum;
mod directory;
mod features;
mod inode;
mod inode_layout;
mod link;
mod log;
mod map;
mod superblock;
#[cfg(test)]
mod tests;

use self::{
    block_reader::BlockReader,
    inode::{Inode, corrupt, unsupported},
    log::Log,
    superblock::Superblock,
};
use super::{
    BoxedFileSystem, Detected, DirectoryEntry, Driver, Error, FileMap, FileSystem, FileType, FsFuture, MountMarks,
    Node, Shows, Volume, limits::MAX_DIRECTORY_ENTRIES,
};

const NAME: &str = "XFS";

/// The driver for XFS.
pub(super) const DRIVER: Driver = Driver {
    name: NAME,
    superblock: 0,
    probe: |volume| {
        Box::pin(async {
            let superblock = Superblock::read(volume).await?;
            Ok(superblock.map(|_| Detected { name: NAME, in_use: None }))
        })
    },
    open: |volume| {
        Box::pin(async { Ok(Xfs::open(volume).await?.map(|filesystem| Box::new(filesystem) as BoxedFileSystem)) })
    },
    marks: |volume| Box::pin(marks(volume)),
};

/// Reads the marks of writes: the superblock, and the end of the log.
async fn marks(volume: &Volume) -> Result<Option<MountMarks>, Error> {
    let Some(superblock) = Superblock::read(volume).await? else { return Ok(None) };
    let sector = volume.read(0, superblock.sector_size as usize).await?;
    let log_end = log::end_lsn(volume, &superblock).await?;
    let state = u64::from(crc32c::crc32c(&[&sector[..], &log_end.to_le_bytes()].concat()));
    Ok(Some(MountMarks { name: NAME, last_mount: [0; 2], is_in_use: false, state, shows: Shows::Writes }))
}

/// An XFS file system.
#[derive(Debug)]
pub(super) struct Xfs {
    blocks: BlockReader,
    is_in_use: bool,
}

impl Xfs {
    /// Opens the file system in a volume; `None` if the volume contains no XFS.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the file system has unsupported features, which are named, or a log that only Linux can replay;
    /// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        let Some(superblock) = Superblock::read(&volume).await? else { return Ok(None) };
        let log = Log::read(&volume, &superblock).await?;
        Self::with_log(volume, superblock, log).await.map(Some)
    }

    /// Opens the file system with the changes in its log, which may contain a newer superblock.
    async fn with_log(volume: Volume, superblock: Superblock, log: Log) -> Result<Self, Error> {
        let is_in_use = !log.is_clean;
        let mut blocks = BlockReader::new(volume, superblock, log);
        let sector = blocks.read(0, blocks.superblock.sector_size as usize).await?;
        let recovered = Superblock::parse(&sector.bytes)?;
        let recovered = recovered.filter(|recovered| recovered.has_geometry_of(&blocks.superblock));
        let recovered = recovered.filter(|recovered| recovered.len() <= blocks.volume().size());
        blocks.superblock =
            recovered.ok_or_else(|| Error::corrupt("log", "contains the superblock of another file system"))?;
        Ok(Self { blocks, is_in_use })
    }

    /// Reads an inode, and checks its type and that its content is readable.
    async fn inode(&self, node: Node, file_type: FileType) -> Result<Inode, Error> {
        let inode = Inode::read(&self.blocks, node.id).await?;
        if inode.file_type != file_type {
            return Err(corrupt(inode.number, "its type has changed"));
        }
        inode.check_readable()?;
        Ok(inode)
    }

    /// Returns the node of a directory entry; reads its inode if the entry has no type.
    async fn node(&self, (number, file_type): directory::Found) -> Result<Node, Error> {
        let file_type = match file_type {
            Some(file_type) => file_type,
            None => Inode::read(&self.blocks, number).await?.file_type,
        };
        Ok(Node { id: number, file_type })
    }
}

impl FileSystem for Xfs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    fn root(&self) -> Node {
        Node { id: self.blocks.superblock.root_inode, file_type: FileType::Directory }
    }

    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        Box::pin(async move {
            let directory = self.inode(directory, FileType::Directory).await?;
            match directory::lookup(&self.blocks, &directory, name).await? {
                Some(found) => self.node(found).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>> {
        Box::pin(async move {
            let directory = self.inode(directory, FileType::Directory).await?;
            let mut found = Vec::new();
            directory::for_each_entry(&self.blocks, &directory, |entry| {
                if found.len() == MAX_DIRECTORY_ENTRIES {
                    return Err(unsupported(directory.number, "directory with too many names"));
                }
                found.push((entry.name.to_vec(), (entry.inode, entry.file_type)));
                Ok(())
            })
            .await?;
            let mut entries = Vec::with_capacity(found.len());
            for (name, found) in found {
                entries.push(DirectoryEntry { name, node: self.node(found).await? });
            }
            Ok(entries)
        })
    }

    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let link = self.inode(link, FileType::Link).await?;
            link::target(&self.blocks, &link).await
        })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(async move {
            let file = self.inode(file, FileType::File).await?;
            Ok(map::map(&self.blocks, &file, 0..file.size).await?.0)
        })
    }
}
