//! ext2, ext3 and ext4, read as they would be after a replay of the journal. The checksums of all metadata that is read are verified.
//!
//! [`superblock`] and [`group_descriptor`] locate the [`inode`]s, [`map`] maps their content to the disk, [`directory`] parses
//! directory entries. All blocks are read through the [`block_reader`], which prefers the copies in the [`journal`].

mod block_reader;
mod checksum;
mod directory;
mod directory_index;
mod features;
mod group_descriptor;
mod inline_data;
mod inode;
mod journal;
mod journal_inode;
mod map;
mod superblock;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use self::{
    block_reader::BlockReader,
    directory::Entry,
    directory_index::DirectoryIndexes,
    features::Feature,
    inode::{Inode, corrupt, unsupported},
    journal_inode::FoundJournal,
    superblock::Superblock,
};
use super::{
    BoxedFileSystem, Detected, DirectoryEntry, Driver, Error, FileIdentity, FileMap, FileSystem, FileType, FsFuture,
    Node, Patch, Volume,
    limits::{MAX_DIRECTORY_ENTRIES, MAX_LINK_TARGET},
};

/// The inode of the root directory (`EXT4_ROOT_INO`).
const ROOT_INODE: u32 = 2;

/// An ext2, ext3 or ext4 file system.
#[derive(Debug)]
pub(super) struct Ext4 {
    superblock: Superblock,
    blocks: BlockReader,
    is_in_use: bool,
    warning: Option<String>,
    directories: DirectoryIndexes,
}

/// The driver for ext2, ext3 and ext4.
pub(super) const DRIVER: Driver = Driver {
    name: "ext4",
    superblock: superblock::OFFSET,
    probe: |volume| Box::pin(Ext4::probe(volume)),
    open: |volume| {
        Box::pin(async { Ok(Ext4::open(volume).await?.map(|filesystem| Box::new(filesystem) as BoxedFileSystem)) })
    },
    marks: |volume| Box::pin(superblock::mount_marks(volume)),
};

impl Ext4 {
    /// Opens the file system in a volume; `None` if the volume contains no ext file system.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the file system has unsupported features, which are named, or needs recovery from an unsupported
    /// journal; [`Error::Corrupt`], [`Error::Io`].
    pub(super) async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        let Some(superblock) = Superblock::read(&volume).await? else { return Ok(None) };
        let has_journal = superblock.features.has(Feature::HAS_JOURNAL);
        let needs_recovery = superblock.features.has(Feature::RECOVER);
        let is_in_use = superblock.is_in_use();
        let blocks = BlockReader::new(volume, &superblock)?;
        let mut filesystem =
            Self { superblock, blocks, is_in_use, warning: None, directories: DirectoryIndexes::default() };
        if has_journal && needs_recovery {
            filesystem.recover().await?;
        }
        Ok(Some(filesystem))
    }

    /// Reads the type and the state of the file system in a volume from its superblock, without the journal; `None` if the volume
    /// contains no ext file system.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), except for errors of the journal.
    pub(super) async fn probe(volume: &Volume) -> Result<Option<Detected>, Error> {
        let superblock = Superblock::read(volume).await?;
        Ok(superblock
            .map(|superblock| Detected { name: superblock.features.type_name(), in_use: Some(superblock.is_in_use()) }))
    }

    /// Reads the journal, then the superblock again, which may have a newer copy there.
    async fn recover(&mut self) -> Result<(), Error> {
        let FoundJournal { journal, unusable_inode } =
            journal_inode::read_journal(&self.blocks, &self.superblock).await?;
        self.warning = unusable_inode.map(|error| {
            format!("{error}; used the copy of the journal's map in the superblock, so the newest changes may be missing: run e2fsck")
        });
        self.blocks.set_journal(journal);
        let block_size = u64::from(self.superblock.block_size);
        let (block, offset) = (superblock::OFFSET / block_size, superblock::OFFSET % block_size);
        let superblock = Superblock::parse(&self.blocks.read(block, offset, superblock::LEN).await?)?;
        let superblock = superblock.filter(|recovered| u64::from(recovered.block_size) == block_size);
        self.superblock =
            superblock.ok_or_else(|| Error::corrupt("journal", "contains the superblock of another file system"))?;
        Ok(())
    }

    /// Reads the inode of a directory entry.
    async fn node(&self, number: u32) -> Result<Node, Error> {
        if number < self.superblock.first_inode && number != ROOT_INODE {
            return Err(corrupt(number, "reserved, but has a name"));
        }
        let bytes = group_descriptor::read_inode(&self.blocks, &self.superblock, number).await?;
        let inode = Inode::parse(number, &bytes, self.superblock.checksum_seed)?;
        Ok(Node { id: number.into(), file_type: inode.file_type })
    }

    /// Reads an inode, and checks its type and that its content is readable.
    async fn inode(&self, node: Node, file_type: FileType) -> Result<Inode, Error> {
        let number = u32::try_from(node.id).unwrap_or(u32::MAX);
        let bytes = group_descriptor::read_inode(&self.blocks, &self.superblock, number).await?;
        let inode = Inode::parse(number, &bytes, self.superblock.checksum_seed)?;
        if inode.file_type != file_type {
            return Err(corrupt(number, "its type has changed"));
        }
        inode.check_readable()?;
        Ok(inode)
    }

    /// Calls `visit` with each entry of a directory, until it breaks.
    async fn for_each_entry(
        &self,
        directory: &Inode,
        visit: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let has_dir_index = self.superblock.features.has(Feature::DIR_INDEX);
        directory::for_each_entry(&self.blocks, directory, has_dir_index, visit).await
    }
}

impl FileSystem for Ext4 {
    fn name(&self) -> &'static str {
        self.superblock.features.type_name()
    }

    fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn root(&self) -> Node {
        Node { id: ROOT_INODE.into(), file_type: FileType::Directory }
    }

    /// Looks up a name. In a case-insensitive directory, ASCII letters match in either case.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] also if a case-insensitive directory may contain the name with other non-ASCII letters.
    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>> {
        Box::pin(async move {
            let directory = self.inode(directory, FileType::Directory).await?;
            let is_casefolded = directory.is_casefolded();
            if !is_casefolded && !directory.has_inline_data() {
                let has_dir_index = self.superblock.features.has(Feature::DIR_INDEX);
                let number = self.directories.lookup(&self.blocks, &directory, has_dir_index, name).await?;
                return match number {
                    Some(number) => self.node(number).await.map(Some),
                    None => Ok(None),
                };
            }
            let (mut exact, mut case_insensitive) = (None, None);
            self.for_each_entry(&directory, |entry| {
                if entry.name == name {
                    exact = Some(entry.inode);
                    return ControlFlow::Break(());
                }
                if is_casefolded && entry.name.eq_ignore_ascii_case(name) {
                    case_insensitive = Some(entry.inode);
                }
                ControlFlow::Continue(())
            })
            .await?;
            match exact.or(case_insensitive) {
                Some(number) => self.node(number).await.map(Some),
                None if is_casefolded && !name.is_ascii() => {
                    Err(unsupported(directory.number, "case-insensitive directory: non-ASCII names cannot be compared"))
                }
                None => Ok(None),
            }
        })
    }

    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>> {
        Box::pin(async move {
            let directory = self.inode(directory, FileType::Directory).await?;
            let mut names = Vec::new();
            self.for_each_entry(&directory, |entry| {
                names.push((entry.name.to_vec(), entry.inode));
                if names.len() <= MAX_DIRECTORY_ENTRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .await?;
            if names.len() > MAX_DIRECTORY_ENTRIES {
                return Err(unsupported(directory.number, "directory with too many names"));
            }
            let mut entries = Vec::with_capacity(names.len());
            for (name, number) in names {
                entries.push(DirectoryEntry { name, node: self.node(number).await? });
            }
            Ok(entries)
        })
    }

    /// Reads the target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if the target is empty or longer than 4,096 bytes.
    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let inode = self.inode(link, FileType::Link).await?;
            if !(1..=MAX_LINK_TARGET).contains(&inode.size) {
                return Err(corrupt(inode.number, format!("symbolic link with a target of {} bytes", inode.size)));
            }
            if inode.has_inline_data() {
                return inline_data::content(&inode);
            }
            let len = inode.size as usize;
            if let Some(target) = inode.block.get(..len).filter(|_| len < inode.block.len()) {
                return Ok(target.to_vec());
            }
            let (target, _memory) = map::map(&self.blocks, &inode).await?;
            Ok(target.read(self.blocks.volume().device().as_ref(), 0, len).await?.into_vec())
        })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(async move {
            let inode = self.inode(file, FileType::File).await?;
            let mut file = if inode.has_inline_data() {
                let patch = Patch { file_offset: 0, bytes: inline_data::content(&inode)? };
                FileMap { size: inode.size, patches: vec![patch], ..FileMap::default() }
            } else {
                map::map(&self.blocks, &inode).await?.0
            };
            file.identity = FileIdentity { file_system: self.superblock.uuid, ..inode.identity };
            file.modified = inode.modified();
            Ok(file)
        })
    }
}
