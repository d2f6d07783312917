//! Replays the log tree in memory: the files that were fsynced since the last commit (Linux, `fs/btrfs/tree-log.c`).
//!
//! Each subvolume has a tree of its own in the log. As in Linux, its inodes and the ranges of its directories come first, then the
//! entries of directories, then references and extents.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::{
    data_checksums::CHECKSUMS,
    directory::{self, Entry},
    inode::{GENERATION, Inode, SIZE},
    node::{
        DIR_INDEX, DIR_LOG_INDEX, EXTENT_CSUM, EXTENT_DATA, INODE_EXTREF, INODE_ITEM, INODE_REF, Key, Owner, Pointer,
        ROOT_ITEM,
    },
    subvolume::{Subvolume, root},
    tree::Trees,
};
use crate::{
    fs::{Error, FileType, bytes::le, work},
    memory::Reservation,
};

/// The number of the log root tree and of the trees of the log.
const LOG_TREE: u64 = u64::MAX - 5;
/// The memory of an item, and of the changes that it makes, besides its bytes.
const ITEM_MEMORY: usize = 512;
/// The maximum number of items in the log of all subvolumes. Linux commits long before.
const MAX_ITEMS: usize = 1 << 20;

/// The items of the log of a subvolume.
type Items = BTreeMap<Key, Vec<u8>>;

/// The subvolumes that the log changes, by number, and the memory of the changes.
pub(super) type Replayed = (BTreeMap<u64, Subvolume>, Reservation);

/// Replays the log.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if the log is too large, [`Error::TooMuchWork`], [`Error::OutOfMemory`],
/// [`Error::Io`].
pub(super) async fn replay(trees: &Trees) -> Result<Replayed, Error> {
    let mut subvolumes = BTreeMap::new();
    let mut memory = trees.volume.memory().reserve(0)?;
    let (address, level) = trees.superblock.log_root;
    if address == 0 {
        return Ok((subvolumes, memory));
    }
    // The log belongs to the commit that was not completed.
    let generation = trees.superblock.generation + 1;
    let log = Pointer { address, generation, level, owner: Owner::Tree(LOG_TREE), first: None };
    let mut roots = Vec::new();
    let all = Key::new(LOG_TREE, ROOT_ITEM, 0)..=Key::new(LOG_TREE, ROOT_ITEM, u64::MAX);
    let mut visit = |key: Key, item: &[u8]| {
        let root = root(item, Owner::Tree(LOG_TREE)).filter(|root| root.generation == generation);
        memory.resize(memory.bytes() + ITEM_MEMORY)?;
        roots.push((key.offset, root.ok_or_else(|| corrupt("invalid root"))?));
        Ok(ControlFlow::Continue(()))
    };
    trees.for_each(&log, all, &mut visit).await?;
    let mut left = MAX_ITEMS;
    for (number, root) in roots {
        // The log of a subvolume that was deleted meanwhile has no effect.
        let Some(subvolume) = Subvolume::find(trees, number).await? else { continue };
        let log = read(trees, &root, &mut left, &mut memory).await?;
        let mut replay = Replay { trees, subvolume, log, ignored: BTreeSet::new(), added: BTreeMap::new() };
        replay.inodes().await?;
        replay.directory_entries().await?;
        replay.references_and_extents().await?;
        let checksums = replay.items(&[EXTENT_CSUM]).into_iter().filter(|(key, _)| key.object == CHECKSUMS);
        replay.subvolume.changes.checksums = checksums.map(|(key, item)| (key.offset, item)).collect();
        subvolumes.insert(number, replay.subvolume);
    }
    Ok((subvolumes, memory))
}

/// Reads the items of a tree of the log that have an effect on what is read.
async fn read(trees: &Trees, root: &Pointer, left: &mut usize, memory: &mut Reservation) -> Result<Items, Error> {
    let mut items = Items::new();
    let all = Key::new(0, 0, 0)..=Key::new(u64::MAX, u8::MAX, u64::MAX);
    let visit = |key: Key, item: &[u8]| {
        if matches!(
            key.item_type,
            INODE_ITEM | INODE_REF | INODE_EXTREF | EXTENT_CSUM | EXTENT_DATA | DIR_INDEX | DIR_LOG_INDEX
        ) {
            *left = left.checked_sub(1).ok_or_else(|| Error::unsupported("log tree", "too large"))?;
            memory.resize(memory.bytes() + ITEM_MEMORY + 2 * item.len())?;
            items.insert(key, item.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    };
    trees.for_each(root, all, visit).await?;
    Ok(items)
}

/// The replay of the log of one subvolume.
struct Replay<'t> {
    trees: &'t Trees,
    subvolume: Subvolume,
    log: Items,
    /// The inodes that were deleted while they were open.
    ignored: BTreeSet<u64>,
    /// The names that were added to directories before references, by inode and directory.
    added: BTreeMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Replay<'_> {
    /// Returns the items of some types, in order.
    fn items(&self, types: &[u8]) -> Vec<(Key, Vec<u8>)> {
        let items = self.log.iter().filter(|(key, _)| types.contains(&key.item_type));
        items.filter(|(key, _)| !self.ignored.contains(&key.object)).map(|(key, item)| (*key, item.clone())).collect()
    }

    /// Replaces inodes, removes names from directories and extents beyond the ends of files.
    async fn inodes(&mut self) -> Result<(), Error> {
        let superblock = &self.trees.superblock;
        for (Key { object: number, .. }, mut item) in self.items(&[INODE_ITEM]) {
            let logged = Inode::parse(&item, number, superblock.uuid, self.subvolume.number)?;
            if logged.links == 0 {
                self.ignored.insert(number);
                continue;
            }
            if logged.file_type == FileType::Directory {
                self.remove_entries(number).await?;
            }
            if logged.generation == 0 {
                item[GENERATION..GENERATION + 8].copy_from_slice(&(superblock.generation + 1).to_le_bytes());
            }
            if let Some(mut stored) = self.subvolume.inode_item(self.trees, number).await? {
                let stored_inode = Inode::parse(&stored, number, superblock.uuid, self.subvolume.number)?;
                let are_both = |file_type| [logged.file_type, stored_inode.file_type] == [file_type; 2];
                if logged.generation == 0 {
                    // Only its existence was logged, and its size if it was fsynced before.
                    if are_both(FileType::File) && logged.size != 0 {
                        stored[SIZE..SIZE + 8].copy_from_slice(&logged.size.to_le_bytes());
                    }
                    item = stored;
                } else if are_both(FileType::Directory) {
                    item[SIZE..SIZE + 8].copy_from_slice(&stored_inode.size.to_le_bytes());
                }
            }
            if logged.file_type == FileType::File {
                let size = le::u64_at(&item, SIZE);
                let keep = size.checked_next_multiple_of(superblock.sector_size.into());
                self.subvolume.changes.extents.entry(number).or_default().keep = keep;
            }
            self.subvolume.changes.inodes.insert(number, item);
        }
        Ok(())
    }

    /// Removes the names from a directory that were there in the ranges of indexes that were logged, and are not in the log.
    async fn remove_entries(&mut self, directory: u64) -> Result<(), Error> {
        let key = |index: u64| Key::new(directory, DIR_LOG_INDEX, index);
        let ranges: Vec<_> =
            self.log.range(key(0)..=key(u64::MAX)).map(|(key, item)| (key.offset, le::u64_at(item, 0))).collect();
        for (start, end) in ranges.into_iter().filter(|(start, end)| start <= end) {
            let (stored, _memory) = self.subvolume.stored_entries(self.trees, directory, start..=end).await?;
            for (index, name, _) in stored {
                let logged = self.log.get(&Key::new(directory, DIR_INDEX, index)).map_or(&[][..], Vec::as_slice);
                if !directory::entries(logged, directory)?.iter().any(|(logged, _)| *logged == name) {
                    self.set_entry(directory, &name, None);
                }
            }
        }
        Ok(())
    }

    /// Adds names of inodes that are not in the log, or whose references in the log do not contain them.
    async fn directory_entries(&mut self) -> Result<(), Error> {
        for (Key { object: directory, .. }, item) in self.items(&[DIR_INDEX]) {
            for (name, entry) in directory::entries(&item, directory)? {
                let stored = self.subvolume.entry(self.trees, directory, name).await?;
                if stored == Some(entry) {
                    continue;
                }
                // Linux does not add the entry of a subvolume, nor remove another one with its name.
                let Some(number) = entry.inode() else { continue };
                if self.subvolume.inode_item(self.trees, number).await?.is_none() {
                    continue;
                }
                let is_referenced = self.logged_names(number, directory).await?.contains(name);
                if !is_referenced {
                    self.set_entry(directory, name, Some(entry));
                    self.added.entry((number, directory)).or_default().push(name.to_vec());
                } else if stored.is_some() {
                    self.set_entry(directory, name, None);
                }
            }
        }
        Ok(())
    }

    /// Gives inodes the names that the log has for them, takes away their others, and replaces extents.
    async fn references_and_extents(&mut self) -> Result<(), Error> {
        for (key, item) in self.items(&[INODE_REF, INODE_EXTREF, EXTENT_DATA]) {
            if key.item_type == EXTENT_DATA {
                let extents = self.subvolume.changes.extents.entry(key.object).or_default();
                extents.items.push((key.offset, item));
                continue;
            }
            let mut directories = BTreeSet::new();
            for (directory, name) in directory::references(key, &item)? {
                // The root directory refers to itself.
                if directory == key.object || self.subvolume.inode_item(self.trees, directory).await?.is_none() {
                    continue;
                }
                directories.insert(directory);
                let stored = self.subvolume.entry(self.trees, directory, name).await?;
                if stored.and_then(|entry| entry.inode()) != Some(key.object) {
                    let inode = self.subvolume.inode(self.trees, key.object).await?;
                    let inode = inode.ok_or_else(|| corrupt("a name of an inode that does not exist"))?;
                    self.set_entry(directory, name, Some(Entry::of_inode(key.object, inode.file_type)));
                }
            }
            for directory in directories {
                self.remove_other_names(key.object, directory).await?;
            }
        }
        Ok(())
    }

    /// Removes those names of an inode in a directory that the log has no references for: after a rename, it may contain the old entry.
    async fn remove_other_names(&mut self, number: u64, directory: u64) -> Result<(), Error> {
        let logged = self.logged_names(number, directory).await?;
        let mut stored = self.added.remove(&(number, directory)).unwrap_or_default();
        let all = Key::new(number, INODE_REF, 0)..=Key::new(number, INODE_EXTREF, u64::MAX);
        let visit = |key: Key, item: &[u8]| {
            let names = directory::references(key, item)?.into_iter().filter(|(parent, _)| *parent == directory);
            stored.extend(names.map(|(_, name)| name.to_vec()));
            Ok(ControlFlow::Continue(()))
        };
        self.trees.for_each(&self.subvolume.root, all, visit).await?;
        for name in stored.iter().filter(|name| !logged.contains(*name)) {
            let entry = self.subvolume.entry(self.trees, directory, name).await?;
            if entry.and_then(|entry| entry.inode()) == Some(number) {
                self.set_entry(directory, name, None);
            }
        }
        Ok(())
    }

    /// Returns the names that the log has for an inode in a directory.
    async fn logged_names(&self, number: u64, directory: u64) -> Result<BTreeSet<Vec<u8>>, Error> {
        let mut names = BTreeSet::new();
        let items = self.log.range(Key::new(number, INODE_REF, 0)..=Key::new(number, INODE_EXTREF, u64::MAX));
        for (key, item) in items {
            work::count_read(item.len()).await?;
            let references = directory::references(*key, item)?.into_iter();
            names.extend(references.filter(|(parent, _)| *parent == directory).map(|(_, name)| name.to_vec()));
        }
        Ok(names)
    }

    fn set_entry(&mut self, directory: u64, name: &[u8], entry: Option<Entry>) {
        self.subvolume.changes.entries.entry(directory).or_default().insert(name.to_vec(), entry);
    }
}

fn corrupt(what: &'static str) -> Error {
    Error::corrupt("log tree", what)
}
