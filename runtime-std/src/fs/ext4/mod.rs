//! ext2, ext3 and ext4.
//!
//! A file system that was not unmounted is read as it would be after its journal was replayed; what has a checksum is verified.

mod blocks;
mod checksum;
mod directory;
mod features;
mod group;
mod inline;
mod inode;
mod journal;
mod map;
mod recovery;
mod superblock;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use self::{
    blocks::Blocks,
    directory::Entry,
    features::Feature,
    inode::{Inode, corrupt, unsupported},
    superblock::Superblock,
};
use super::{
    BoxedFileSystem, Detected, DirectoryEntry, Driver, Error, FileIdentity, FileMap, FileSystem, FileType, FsFuture,
    Node, Patch, Volume,
    limits::{MAX_DIRECTORY_ENTRIES, MAX_LINK_TARGET},
};

/// The inode of the top directory.
const ROOT: u32 = 2;

/// An ext2, ext3 or ext4 file system, as it would be after its journal is replayed.
#[derive(Debug)]
pub(super) struct Ext {
    superblock: Superblock,
    blocks: Blocks,
    is_in_use: bool,
}

/// The driver for ext2, ext3, ext4.
pub(super) const DRIVER: Driver = Driver {
    name: "ext4",
    probe: |volume| Box::pin(Ext::probe(volume)),
    open: |volume| {
        Box::pin(async { Ok(Ext::open(volume).await?.map(|filesystem| Box::new(filesystem) as BoxedFileSystem)) })
    },
};

impl Ext {
    /// Looks at the file system in a volume; `None` if it holds another, or none at all.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if it has features that are not known here, which the text names, or a journal that must be replayed
    /// and cannot be; [`Error::Corrupt`], [`Error::Io`].
    pub(super) async fn open(volume: Volume) -> Result<Option<Self>, Error> {
        let Some(superblock) = Superblock::read(&volume).await? else { return Ok(None) };
        let has_journal = superblock.features.has(Feature::HAS_JOURNAL);
        let needs_recovery = superblock.features.has(Feature::NEEDS_RECOVERY);
        let is_in_use = superblock.is_in_use();
        let blocks = Blocks::new(volume, &superblock)?;
        let mut ext = Self { superblock, blocks, is_in_use };
        if has_journal && needs_recovery {
            ext.recover().await?;
        }
        Ok(Some(ext))
    }

    /// Tells what the file system in a volume is called and whether it is in use, from its superblock alone: nothing is replayed.
    /// `None` if the volume holds another, or none at all.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for what is wrong with the journal.
    pub(super) async fn probe(volume: &Volume) -> Result<Option<Detected>, Error> {
        let superblock = Superblock::read(volume).await?;
        Ok(superblock
            .map(|superblock| Detected { name: superblock.features.name(), in_use: Some(superblock.is_in_use()) }))
    }

    /// Reads the journal, and the superblock as it is with it.
    async fn recover(&mut self) -> Result<(), Error> {
        self.blocks.journal = recovery::load(&self.blocks, &self.superblock).await?;
        let size = u64::from(self.superblock.block_size);
        let (block, from) = (superblock::PLACE / size, superblock::PLACE % size);
        let superblock = Superblock::parse(&self.blocks.read(block, from, superblock::LEN).await?)?;
        let superblock = superblock.filter(|now| u64::from(now.block_size) == size);
        self.superblock =
            superblock.ok_or_else(|| Error::corrupt("journal", "contains the superblock of another file system"))?;
        Ok(())
    }

    /// What an inode is that a name leads to.
    async fn node(&self, number: u32) -> Result<Node, Error> {
        if number < self.superblock.first_inode && number != ROOT {
            return Err(corrupt(number, "reserved, but has a name"));
        }
        let bytes = group::read_inode(&self.blocks, &self.superblock, number).await?;
        let inode = Inode::parse(number, &bytes, self.superblock.seed)?;
        Ok(Node { id: number.into(), file_type: inode.file_type })
    }

    /// An inode that must be of a kind, and whose content can be read.
    async fn inode(&self, node: Node, file_type: FileType) -> Result<Inode, Error> {
        let number = u32::try_from(node.id).unwrap_or(u32::MAX);
        let bytes = group::read_inode(&self.blocks, &self.superblock, number).await?;
        let inode = Inode::parse(number, &bytes, self.superblock.seed)?;
        if inode.file_type != file_type {
            return Err(corrupt(number, "its type has changed"));
        }
        inode.check_readable()?;
        Ok(inode)
    }

    /// Calls back for every name in a directory, until it has enough.
    async fn walk(&self, directory: &Inode, each: impl FnMut(Entry<'_>) -> ControlFlow<()>) -> Result<(), Error> {
        let may_be_indexed = self.superblock.features.has(Feature::DIR_INDEX);
        directory::walk(&self.blocks, directory, may_be_indexed, each).await
    }
}

impl FileSystem for Ext {
    fn name(&self) -> &'static str {
        self.superblock.features.name()
    }

    fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    fn root(&self) -> Node {
        Node { id: ROOT.into(), file_type: FileType::Directory }
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
            let (mut exact, mut similar) = (None, None);
            self.walk(&directory, |entry| {
                if entry.name == name {
                    exact = Some(entry.inode);
                    return ControlFlow::Break(());
                }
                if is_casefolded && entry.name.eq_ignore_ascii_case(name) {
                    similar = Some(entry.inode);
                }
                ControlFlow::Continue(())
            })
            .await?;
            match exact.or(similar) {
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
            self.walk(&directory, |entry| {
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
            if inode.is_inline() {
                return inline::content(&inode);
            }
            let len = inode.size as usize;
            if let Some(target) = inode.block.get(..len).filter(|_| len < inode.block.len()) {
                return Ok(target.to_vec());
            }
            let target = map::map(&self.blocks, &inode).await?;
            target.read(self.blocks.volume().device().as_ref(), 0, len).await
        })
    }

    fn map(&self, file: Node) -> FsFuture<'_, FileMap> {
        Box::pin(async move {
            let inode = self.inode(file, FileType::File).await?;
            let mut file = if inode.is_inline() {
                let patch = Patch { file_offset: 0, bytes: inline::content(&inode)? };
                FileMap { size: inode.size, patches: vec![patch], ..FileMap::default() }
            } else {
                map::map(&self.blocks, &inode).await?
            };
            file.identity = FileIdentity { file_system: self.superblock.uuid, ..inode.identity };
            Ok(file)
        })
    }
}
