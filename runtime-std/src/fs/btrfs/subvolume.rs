//! Subvolumes: their items as they are after a replay of the log.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, RangeInclusive},
};

use super::{
    directory::{self, Entry},
    inode::{Inode, corrupt, unsupported},
    node::{DIR_INDEX, DIR_ITEM, EXTENT_DATA, INODE_ITEM, Key, Owner, Pointer, ROOT_ITEM, ROOT_REF, is_subvolume},
    tree::Trees,
};
use crate::{
    fs::{
        Error,
        bytes::le,
        limits::{MAX_DIRECTORY_ENTRIES, MAX_EXTENTS},
    },
    memory::Reservation,
};

/// The number of the subvolume that contains all others.
pub(super) const TOP: u64 = 5;
/// The size of a root item as the first versions of Linux wrote it, in bytes.
const MIN_ROOT_ITEM: usize = 239;
/// The memory of an entry or item besides its bytes.
const ITEM_MEMORY: usize = 128;

/// A subvolume or snapshot.
#[derive(Debug)]
pub(super) struct Subvolume {
    pub(super) number: u64,
    pub(super) root: Pointer,
    /// The inode of the root directory.
    pub(super) directory: u64,
    pub(super) changes: Changes,
}

/// The changes that the log makes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Inode items.
    pub(super) inodes: BTreeMap<u64, Vec<u8>>,
    /// For each directory, the names that are replaced, or removed.
    pub(super) entries: BTreeMap<u64, BTreeMap<Vec<u8>, Option<Entry>>>,
    /// For each file, what happens to its extents.
    pub(super) extents: BTreeMap<u64, ExtentChanges>,
    /// Checksums of contents, by the address of the first block.
    pub(super) checksums: BTreeMap<u64, Vec<u8>>,
}

/// The changes to the extents of a file.
#[derive(Debug, Default)]
pub(super) struct ExtentChanges {
    /// The extents from this offset on are removed first.
    pub(super) keep: Option<u64>,
    /// The extents that replace others, in this order.
    pub(super) items: Vec<(u64, Vec<u8>)>,
}

impl Subvolume {
    /// Finds a subvolume; `None` if it does not exist, or was deleted.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn find(trees: &Trees, number: u64) -> Result<Option<Self>, Error> {
        let inconsistent = || Error::corrupt(("subvolume", number), "inconsistent");
        if !is_subvolume(number) {
            return Err(inconsistent());
        }
        let mut found = None;
        let all = Key::new(number, ROOT_ITEM, 0)..=Key::new(number, ROOT_ITEM, u64::MAX);
        trees
            .for_each(&trees.root_tree(), all, |_, item| {
                found = Some(item.to_vec());
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        let Some(item) = found else { return Ok(None) };
        let root = root(&item, Owner::Subvolume).ok_or_else(inconsistent)?;
        if root.generation > trees.superblock.generation {
            return Err(inconsistent());
        }
        let is_deleted = le::u32_at(&item, 216) == 0;
        let directory = le::u64_at(&item, 168);
        Ok((!is_deleted).then(|| Self { number, root, directory, changes: Changes::default() }))
    }

    /// Returns the number of the default subvolume.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn default(trees: &Trees) -> Result<u64, Error> {
        const NAME: &[u8] = b"default";
        let directory = trees.superblock.root_directory;
        let item = trees.find(&trees.root_tree(), Key::new(directory, DIR_ITEM, directory::hash(NAME))).await?;
        let entries = directory::entries(item.as_deref().unwrap_or_default(), directory)?;
        let default = entries.iter().find(|(name, _)| *name == NAME).and_then(|(_, entry)| entry.subvolume());
        Ok(default.unwrap_or(TOP))
    }

    /// Returns whether a subvolume is mounted with this name in a directory here: a snapshot has the names of those in its origin, too.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn contains(&self, trees: &Trees, child: u64, parent: u64, name: &[u8]) -> Result<bool, Error> {
        let reference = trees.find(&trees.root_tree(), Key::new(self.number, ROOT_REF, child)).await?;
        Ok(reference.is_some_and(|item| {
            let stored = item.get(18..).and_then(|rest| rest.get(..usize::from(le::u16_at(&item, 16))));
            le::u64_at(&item, 0) == parent && stored == Some(name)
        }))
    }

    /// Returns an inode; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn inode(&self, trees: &Trees, number: u64) -> Result<Option<Inode>, Error> {
        let item = self.inode_item(trees, number).await?;
        item.map(|item| Inode::parse(&item, number, trees.superblock.uuid, self.number)).transpose()
    }

    /// Returns an inode item; `None` if the inode does not exist.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn inode_item(&self, trees: &Trees, number: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.changes.inodes.get(&number) {
            Some(item) => Ok(Some(item.clone())),
            None => trees.find(&self.root, Key::new(number, INODE_ITEM, 0)).await,
        }
    }

    /// Returns the entry of a name in a directory; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn entry(&self, trees: &Trees, directory: u64, name: &[u8]) -> Result<Option<Entry>, Error> {
        if let Some(changed) = self.changes.entries.get(&directory).and_then(|entries| entries.get(name)) {
            return Ok(*changed);
        }
        let item = trees.find(&self.root, Key::new(directory, DIR_ITEM, directory::hash(name))).await?;
        let entries = directory::entries(item.as_deref().unwrap_or_default(), directory)?;
        Ok(entries.iter().find(|(found, _)| *found == name).map(|(_, entry)| *entry))
    }

    /// Returns the names in a directory with their indexes, without the changes of the log.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and [`Error::Unsupported`] if there are too many.
    pub(super) async fn stored_entries(
        &self,
        trees: &Trees,
        directory: u64,
        indexes: RangeInclusive<u64>,
    ) -> Result<(Vec<(u64, Vec<u8>, Entry)>, Reservation), Error> {
        let mut found = Vec::new();
        let mut memory = trees.volume.memory().reserve(0)?;
        let key = |index: u64| Key::new(directory, DIR_INDEX, index);
        trees
            .for_each(&self.root, key(*indexes.start())..=key(*indexes.end()), |key, item| {
                for (name, entry) in directory::entries(item, directory)? {
                    if found.len() == MAX_DIRECTORY_ENTRIES {
                        return Err(unsupported(directory, "directory with too many names"));
                    }
                    memory.resize(memory.bytes() + ITEM_MEMORY + name.len())?;
                    found.push((key.offset, name.to_vec(), entry));
                }
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        Ok((found, memory))
    }

    /// Returns the names in a directory.
    ///
    /// # Errors
    ///
    /// As [`stored_entries`](Self::stored_entries).
    pub(super) async fn entries(&self, trees: &Trees, directory: u64) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
        let (stored, _memory) = self.stored_entries(trees, directory, 0..=u64::MAX).await?;
        let none = BTreeMap::new();
        let changed = self.changes.entries.get(&directory).unwrap_or(&none);
        let mut entries: Vec<_> = stored.into_iter().map(|(_, name, entry)| (name, entry)).collect();
        entries.retain(|(name, _)| !changed.contains_key(name));
        entries.extend(changed.iter().filter_map(|(name, entry)| Some((name.clone(), (*entry)?))));
        Ok(entries)
    }

    /// Returns the extent items of a file, by their offsets in the file, without the changes of the log.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and [`Error::Unsupported`] if there are too many.
    pub(super) async fn stored_extents(
        &self,
        trees: &Trees,
        file: u64,
    ) -> Result<(Vec<(u64, Vec<u8>)>, Reservation), Error> {
        let mut found = Vec::new();
        let mut memory = trees.volume.memory().reserve(0)?;
        let all = Key::new(file, EXTENT_DATA, 0)..=Key::new(file, EXTENT_DATA, u64::MAX);
        trees
            .for_each(&self.root, all, |key, item| {
                if found.len() == MAX_EXTENTS {
                    return Err(unsupported(file, "too fragmented"));
                }
                memory.resize(memory.bytes() + ITEM_MEMORY + item.len())?;
                found.push((key.offset, item.to_vec()));
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        Ok((found, memory))
    }

    /// Returns an inode that a name refers to.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn named_inode(&self, trees: &Trees, number: u64) -> Result<Inode, Error> {
        let inode = self.inode(trees, number).await?;
        inode.ok_or_else(|| corrupt(number, "has a name, but does not exist"))
    }
}

/// Parses the reference to the root of a tree in a root item; `None` if it is invalid.
pub(super) fn root(item: &[u8], owner: Owner) -> Option<Pointer> {
    let level = *item.get(238).filter(|_| item.len() >= MIN_ROOT_ITEM)?;
    let (address, generation) = (le::u64_at(item, 176), le::u64_at(item, 160));
    Some(Pointer { address, generation, level, owner, first: None })
}
