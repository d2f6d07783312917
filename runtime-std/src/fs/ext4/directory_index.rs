//! Indexes of the directories that were looked up last: in which block each name is.
//!
//! The path of a file may lead through a large directory many times. Each block of the directory is searched for all of its names
//! only once.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;
use smol::lock::Mutex as AsyncMutex;

use super::{
    block_reader::BlockReader,
    directory::{CHUNK, DirectoryContent, entries},
    inode::{Inode, corrupt},
};
use crate::{
    fs::{Error, FileIdentity},
    memory::{Part, Reservation},
};

/// The part of the memory within which indexes grow.
const FOR_SPEED: Part = Part { all: 8, disk: 8 };
/// The maximum number of directories with an index.
const MAX_DIRECTORIES: usize = 8;
/// The maximum number of names in an index.
const MAX_NAMES: usize = 16_384;
/// The maximum number of runs of blocks of a directory whose index is kept.
const MAX_EXTENTS: usize = 1024;

/// The indexes of a file system, the most recently used last.
#[derive(Debug, Default)]
pub(super) struct DirectoryIndexes {
    indexes: Mutex<VecDeque<SharedIndex>>,
    /// Its keys are random: nobody can create names with equal hashes.
    hasher: RandomState,
}

/// An index and the state of the directory that it describes. Locked while the directory is searched.
type SharedIndex = (FileIdentity, Arc<AsyncMutex<Option<DirectoryIndex>>>);

/// The names in the first blocks of a directory.
#[derive(Debug)]
struct DirectoryIndex {
    content: DirectoryContent,
    /// The offset of the first block that has not been searched.
    position: u64,
    /// The hash of each name, and the number of its block.
    names: Vec<(u32, u32)>,
    memory: Reservation,
}

impl DirectoryIndexes {
    /// Looks up a name in a directory without inline data, and returns its inode. `has_dir_index` is the feature of the file system.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if the directory has been changed, [`Error::Unsupported`] if it is too large,
    /// [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn lookup(
        &self,
        blocks: &BlockReader,
        directory: &Inode,
        has_dir_index: bool,
        name: &[u8],
    ) -> Result<Option<u32>, Error> {
        let index = self.get(directory.identity);
        let mut index = index.lock().await;
        let mut search = match index.take() {
            Some(index) => index,
            None => DirectoryIndex::new(blocks, DirectoryContent::open(blocks, directory, has_dir_index).await?)?,
        };
        let found = search.find(blocks, directory.number, name, &self.hasher).await?;
        if search.content.extent_count() <= MAX_EXTENTS {
            *index = Some(search);
        }
        Ok(found)
    }

    /// Returns the index of a directory, and removes the one that has not been used for longest.
    fn get(&self, directory: FileIdentity) -> Arc<AsyncMutex<Option<DirectoryIndex>>> {
        let mut indexes = self.indexes.lock();
        let known = indexes.iter().position(|(known, _)| *known == directory).and_then(|at| indexes.remove(at));
        let (_, index) = known.unwrap_or_default();
        if indexes.len() == MAX_DIRECTORIES {
            indexes.pop_front();
        }
        indexes.push_back((directory, index.clone()));
        index
    }
}

impl DirectoryIndex {
    fn new(blocks: &BlockReader, content: DirectoryContent) -> Result<Self, Error> {
        let memory = blocks.volume().memory().reserve(0)?;
        Ok(Self { content, position: 0, names: Vec::new(), memory })
    }

    /// Returns the inode of a name: searches the blocks that contain a name with its hash, then those that are not in the index.
    async fn find(
        &mut self,
        blocks: &BlockReader,
        directory: u32,
        name: &[u8],
        hasher: &RandomState,
    ) -> Result<Option<u32>, Error> {
        let block_size = u64::from(blocks.block_size);
        let hash = |name: &[u8]| hasher.hash_one(name) as u32;
        let wanted = hash(name);
        for (_, number) in self.names.iter().filter(|(hash, _)| *hash == wanted) {
            let block = self.content.read(blocks, u64::from(*number) * block_size, block_size).await?;
            let mut has_hash = false;
            for entry in entries(directory, &block) {
                let entry = entry?;
                if entry.name == name {
                    return Ok(Some(entry.inode));
                }
                has_hash |= hash(entry.name) == wanted;
            }
            if !has_hash {
                return Err(corrupt(directory, "has changed: the disk is being written"));
            }
        }
        let mut position = self.position;
        loop {
            let chunk = self.content.read(blocks, position, CHUNK).await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            for block in chunk.chunks(block_size as usize) {
                let (number, count) = ((position / block_size) as u32, self.names.len());
                let mut has_room = position == self.position;
                for entry in entries(directory, block) {
                    let entry = entry?;
                    if entry.name == name {
                        // The rest of this block is not in the index.
                        self.names.truncate(count);
                        return Ok(Some(entry.inode));
                    }
                    has_room = has_room && self.push(blocks, (hash(entry.name), number));
                }
                position += block.len() as u64;
                if has_room {
                    self.position = position;
                } else {
                    self.names.truncate(count);
                }
            }
        }
    }

    /// Adds a name. Returns `false` if there is no room.
    fn push(&mut self, blocks: &BlockReader, name: (u32, u32)) -> bool {
        if self.names.len() == MAX_NAMES || blocks.volume().memory().exceeds(FOR_SPEED) {
            return false;
        }
        let has_room = self.memory.make_room(&mut self.names).is_ok();
        if has_room {
            self.names.push(name);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use rtftp_core::{RequestPath, config::disk::DiskConfig};
    use smol::block_on;
    use tempfile::TempDir;

    use super::{
        super::{Ext4, FileSystem},
        *,
    };
    use crate::fs::{
        MountedDisk, Node,
        testing::{Disk, run},
    };

    /// Makes an image of 32 MiB from the files that `create` makes.
    fn image(options: &[&str], create: impl Fn(&Path)) -> Vec<u8> {
        let (root, top) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
        create(root.path());
        let image = top.path().join("image");
        let paths = [root.path(), &image].map(|path| path.display().to_string());
        run("mke2fs", [&["-q", "-N", "9000"], options, &["-d", &paths[0], &paths[1], "32m"]].concat());
        fs::read(image).expect("an image")
    }

    fn long_name(number: usize) -> String {
        format!("{number:x>250}")
    }

    fn lookup(filesystem: &Ext4, name: &str) -> Result<Option<Node>, Error> {
        block_on(filesystem.lookup(filesystem.root(), name.as_bytes()))
    }

    #[test]
    fn finds_all_names_in_any_order_and_reads_each_block_once() {
        const COUNT: usize = 2000;
        for options in [&["-t", "ext4", "-b", "1024"][..], &["-t", "ext2", "-b", "4096"]] {
            let bytes = image(options, |root| {
                (0..COUNT).for_each(|number| fs::write(root.join(long_name(number)), "").expect("written"));
            });
            let disk = Disk::new(bytes);
            let open = || block_on(Ext4::open(disk.volume())).expect("valid").expect("a file system");
            let linear = open();
            let directory = block_on(linear.read_directory(linear.root())).expect("the entries");
            let filesystem = open();
            assert_eq!(lookup(&filesystem, "missing"), Ok(None));
            // 7 is not a divisor of the number.
            for at in (0..directory.len()).map(|index| index * 7 % directory.len()) {
                let entry = directory.get(at).expect("an entry");
                let name = str::from_utf8(&entry.name).expect("ASCII");
                assert_eq!(lookup(&filesystem, name), Ok(Some(entry.node)), "{name}");
            }
            assert_eq!(lookup(&filesystem, "missing"), Ok(None));
            let indexes = filesystem.directories.indexes.lock();
            let (_, index) = indexes.back().expect("an index");
            let names = index.try_lock().expect("not in use").as_ref().map(|index| index.names.len());
            assert_eq!(names, Some(directory.len()));
        }
    }

    #[test]
    fn keeps_a_limited_number_of_directories_and_names() {
        let bytes = image(&["-t", "ext4"], |root| {
            for number in 0..2 * MAX_DIRECTORIES {
                fs::create_dir(root.join(format!("d{number}"))).expect("made");
                fs::write(root.join(format!("d{number}/file")), "").expect("written");
            }
        });
        let filesystem = block_on(Ext4::open(Disk::new(bytes).volume())).expect("valid").expect("a file system");
        for number in (0..2 * MAX_DIRECTORIES).chain(0..3) {
            let directory = lookup(&filesystem, &format!("d{number}")).expect("a valid disk").expect("a directory");
            assert!(block_on(filesystem.lookup(directory, b"file")).expect("a valid disk").is_some());
        }
        assert_eq!(filesystem.directories.indexes.lock().len(), MAX_DIRECTORIES);
    }

    /// Counts the reads of a path through links in a large directory.
    #[test]
    fn links_in_a_large_directory_cost_one_search() {
        const LINKS: usize = 38;
        let link = |number: usize| format!("{number:z>250}");
        let bytes = image(&["-t", "ext4", "-b", "4096"], |root| {
            // In any order: the program that makes the image may sort them.
            for number in 0..LINKS {
                symlink(link(number + 1), root.join(link(number))).expect("linked");
            }
            fs::write(root.join(link(LINKS)), "file").expect("written");
            (0..4500).for_each(|number| fs::write(root.join(long_name(number)), "").expect("written"));
        });
        let disk = Disk::new(bytes);
        let config = r#"{"url": "nbd://h/", "mounts": [{"mountpoint": "/"}], "tftp_root": "/"}"#;
        let config = DiskConfig::parse(config.as_bytes()).expect("a description");
        let mounted = block_on(MountedDisk::open(disk.clone(), &config)).expect("a disk");
        // Behind all names that exist, wherever the links are.
        let missing = RequestPath::parse(b"missing").expect("a path");
        assert!(block_on(mounted.find_file(&missing)).is_err());
        let opened = disk.reads();
        let path = RequestPath::parse(link(0).as_bytes()).expect("a path");
        assert_eq!(block_on(mounted.find_file(&path)).expect("a file").size, 4);
        let reads = disk.reads() - opened;
        println!("{LINKS} links in a directory of 4,500 names: {reads} reads");
        assert!(reads <= 4 * LINKS, "{reads} reads");
    }
}
