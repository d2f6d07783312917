//! btrfs on one device, read as it would be after a replay of the log tree. The checksums of all metadata that is read are verified.
//!
//! The [`superblock`] locates the trees, whose [`node`]s the [`chunks`] locate on the device. Each [`subvolume`] is a [`tree`] of
//! items; [`replay`] changes them as the log says. [`map`] maps files to the disk.

mod checksum;
mod chunks;
mod data_checksums;
mod directory;
mod inode;
mod map;
mod node;
mod replay;
mod subvolume;
mod subvolume_paths;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use self::{
    directory::Entry,
    inode::{Inode, corrupt, unsupported},
    subvolume::Subvolume,
    subvolume_paths::subvolume_paths,
    superblock::Superblock,
    tree::Trees,
};
use super::{
    BoxedFileSystem, Detected, DirectoryEntry, Driver, Error, FileMap, FileSystem, FileType, FsFuture, MountMarks,
    Node, Shows, Volume, limits::MAX_LINK_TARGET,
};
use crate::memory::Reservation;

const NAME: &str = "btrfs";
/// The number of attempts to read a file system that is being written.
const ATTEMPTS: usize = 4;
/// The number of bits of a [`Node::id`] for the inode; the others are the index of the subvolume.
const INODE_BITS: u32 = 48;
/// The maximum number of subvolumes that are known at the same time.
const MAX_SUBVOLUMES: usize = 4096;
/// The memory of a known subvolume without changes, in bytes.
const SUBVOLUME_MEMORY: usize = 512;
/// The inode that stands for an empty directory (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`).
const EMPTY: u64 = 2;

/// The driver for btrfs.
pub(super) const DRIVER: Driver = Driver {
    name: NAME,
    superblock: superblock::OFFSET,
    probe: |volume| {
        Box::pin(async {
            let Some(bytes) = Superblock::read_bytes(volume).await? else { return Ok(None) };
            let superblock = Superblock::parse(&bytes, volume.size())?;
            let in_use = |superblock: Superblock| (superblock.log_root.0 != 0).then_some(true);
            Ok(superblock.map(|superblock| Detected { name: NAME, in_use: in_use(superblock) }))
        })
    },
    open: |volume| {
        Box::pin(async { Ok(Btrfs::open(volume).await?.map(|filesystem| Box::new(filesystem) as BoxedFileSystem)) })
    },
    marks: |volume| Box::pin(marks(volume)),
};

/// Reads the mark of writes: the superblock, which has the number of the last commit.
async fn marks(volume: &Volume) -> Result<Option<MountMarks>, Error> {
    let Some(bytes) = Superblock::read_bytes(volume).await? else { return Ok(None) };
    let marks = |_| MountMarks {
        name: NAME,
        last_mount: [0; 2],
        is_in_use: false,
        state: crc32c::crc32c(&bytes).into(),
        shows: Shows::Writes,
    };
    Ok(Superblock::parse(&bytes, volume.size())?.map(marks))
}

/// A btrfs file system.
#[derive(Debug)]
pub(super) struct Btrfs {
    trees: Trees,
    subvolumes: Mutex<Known>,
    root: Node,
    warning: Option<String>,
}

/// The subvolumes that are known.
#[derive(Debug)]
struct Known {
    /// By their indexes in [`Node::id`].
    by_index: Vec<Arc<Subvolume>>,
    /// Their indexes, by number.
    indexes: BTreeMap<u64, usize>,
    memory: Reservation,
}

impl Btrfs {
    /// Opens the file system in a volume; `None` if the volume contains no btrfs.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the file system has unsupported features, which are named; [`Error::Corrupt`],
    /// [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        let Some(mut bytes) = Superblock::read_bytes(&volume).await? else { return Ok(None) };
        let mut current = volume.clone();
        for _ in 1..ATTEMPTS {
            let failed = match Self::open_at(current, &bytes).await {
                Err(error @ Error::Corrupt(_)) => error,
                opened => return opened,
            };
            let now = Superblock::read_bytes(&volume).await?.unwrap_or_default();
            if now == bytes {
                return Err(failed);
            }
            // The owner has written a newer state meanwhile.
            bytes = now;
            current = volume.without_cache();
        }
        Self::open_at(current, &bytes).await
    }

    /// Opens the state of the file system that a superblock describes.
    async fn open_at(volume: Volume, superblock: &[u8]) -> Result<Option<Self>, Error> {
        let Some(superblock) = Superblock::parse(superblock, volume.size())? else { return Ok(None) };
        let trees = Trees::open(volume, superblock).await?;
        let (replayed, memory) = replay::replay(&trees).await?;
        let mut known = Known { by_index: Vec::new(), indexes: BTreeMap::new(), memory };
        for subvolume in replayed.into_values() {
            known.add(subvolume)?;
        }
        let root = Node { id: 0, file_type: FileType::Directory };
        let warning = warning(trees.superblock.device_count);
        let mut filesystem = Self { trees, subvolumes: Mutex::new(known), root, warning };
        let default = Subvolume::default(&filesystem.trees).await?;
        let root = filesystem.root_of(default).await?;
        filesystem.root = root.ok_or_else(|| Error::corrupt(("subvolume", default), "the default, but not found"))?;
        Ok(Some(filesystem))
    }

    /// Returns the root directory of a subvolume; `None` if it does not exist.
    async fn root_of(&self, number: u64) -> Result<Option<Node>, Error> {
        let known = self.subvolumes.lock().indexes.get(&number).copied();
        let index = match known {
            Some(index) => index,
            None => match Subvolume::find(&self.trees, number).await? {
                Some(subvolume) => self.subvolumes.lock().add(subvolume)?,
                None => return Ok(None),
            },
        };
        let directory = self.subvolumes.lock().by_index[index].directory;
        node(index, directory, FileType::Directory).map(Some)
    }

    /// Returns the subvolume and the inode of a node, and the index of the subvolume.
    async fn inode(&self, node: Node, file_type: FileType) -> Result<(Arc<Subvolume>, Inode, usize), Error> {
        let (index, number) = ((node.id >> INODE_BITS) as usize, node.id & ((1 << INODE_BITS) - 1));
        let subvolume = self.subvolumes.lock().by_index.get(index).cloned();
        let subvolume = subvolume.ok_or_else(|| corrupt(number, "in an unknown subvolume"))?;
        let inode = subvolume.named_inode(&self.trees, number).await?;
        if inode.file_type != file_type {
            return Err(corrupt(number, "its type differs from that of its name"));
        }
        Ok((subvolume, inode, index))
    }

    /// Returns whether a node is the root directory of its subvolume.
    fn is_root(&self, node: Node) -> bool {
        let (index, number) = ((node.id >> INODE_BITS) as usize, node.id & ((1 << INODE_BITS) - 1));
        self.subvolumes.lock().by_index.get(index).is_some_and(|subvolume| subvolume.directory == number)
    }

    /// Returns the node that a name in a directory refers to.
    async fn node(
        &self,
        (subvolume, directory, index): (&Subvolume, u64, usize),
        name: &[u8],
        entry: Entry,
    ) -> Result<Node, Error> {
        let Some(child) = entry.subvolume() else { return node(index, entry.location.object, entry.file_type) };
        if subvolume.contains(&self.trees, child, directory, name).await?
            && let Some(root) = self.root_of(child).await?
        {
            return Ok(root);
        }
        node(index, EMPTY, FileType::Directory)
    }
}

impl Known {
    /// Adds a subvolume and returns its index.
    fn add(&mut self, subvolume: Subvolume) -> Result<usize, Error> {
        let index = self.by_index.len();
        if index == MAX_SUBVOLUMES {
            return Err(Error::unsupported("file system", "too many subvolumes"));
        }
        self.memory.resize(self.memory.bytes() + SUBVOLUME_MEMORY)?;
        self.indexes.insert(subvolume.number, index);
        self.by_index.push(Arc::new(subvolume));
        Ok(index)
    }
}

/// Returns the warning about a file system on several devices.
fn warning(devices: u64) -> Option<String> {
    let text = || {
        format!(
            "btrfs on {devices} devices, of which only this one is read: if it was missing in a mount (`degraded`), its files are old"
        )
    };
    (devices > 1).then(text)
}

/// Creates the node of an inode.
fn node(index: usize, inode: u64, file_type: FileType) -> Result<Node, Error> {
    match inode >> INODE_BITS {
        0 => Ok(Node { id: (index as u64) << INODE_BITS | inode, file_type }),
        _ => Err(unsupported(inode, "number of more than 48 bits")),
    }
}

/// Returns whether a node is an empty directory in place of a subvolume.
fn is_empty(node: Node) -> bool {
    node.id & ((1 << INODE_BITS) - 1) == EMPTY
}

impl FileSystem for Btrfs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_use(&self) -> bool {
        self.trees.superblock.log_root.0 != 0
    }

    fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn root(&self) -> Node {
        self.root
    }

    fn subvolume<'a>(&'a self, path: &'a str) -> FsFuture<'a, Option<Node>> {
        Box::pin(async move {
            let Some(mut found) = self.root_of(subvolume::TOP).await? else { return Ok(None) };
            for name in path.split('/').filter(|name| !name.is_empty()) {
                match self.lookup(found, name.as_bytes()).await? {
                    Some(node) if node.file_type == FileType::Directory => found = node,
                    _ => return Ok(None),
                }
            }
            Ok(self.is_root(found).then_some(found))
        })
    }

    fn subvolumes(&self) -> FsFuture<'_, Vec<Vec<u8>>> {
        Box::pin(subvolume_paths(&self.trees))
    }

    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        Box::pin(async move {
            if is_empty(directory) {
                return Ok(None);
            }
            let (subvolume, inode, index) = self.inode(directory, FileType::Directory).await?;
            match subvolume.entry(&self.trees, inode.number, name).await? {
                Some(entry) => self.node((&subvolume, inode.number, index), name, entry).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>> {
        Box::pin(async move {
            if is_empty(directory) {
                return Ok(Vec::new());
            }
            let (subvolume, inode, index) = self.inode(directory, FileType::Directory).await?;
            let mut entries = Vec::new();
            for (name, entry) in subvolume.entries(&self.trees, inode.number).await? {
                let node = self.node((&subvolume, inode.number, index), &name, entry).await?;
                entries.push(DirectoryEntry { name, node });
            }
            Ok(entries)
        })
    }

    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let (subvolume, inode, _) = self.inode(link, FileType::Link).await?;
            if !(1..=MAX_LINK_TARGET).contains(&inode.size) {
                return Err(corrupt(inode.number, format!("symbolic link with a target of {} bytes", inode.size)));
            }
            map::link_target(&self.trees, &subvolume, &inode).await
        })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(async move {
            let (subvolume, inode, _) = self.inode(file, FileType::File).await?;
            map::map(&self.trees, &subvolume, &inode).await
        })
    }
}
