//! The interface that a file system implements.

use std::{fmt, future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

use super::{Error, FileMap, MountMarks, Volume};

/// A file system of any kind.
pub type BoxedFileSystem = Box<dyn FileSystem>;

/// The boxed future of an operation on a file system.
pub type FsFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The functions that recognise and open a kind of file system.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    /// The name of the driver.
    pub name: &'static str,
    /// The offset of the superblock in the volume, in bytes.
    pub superblock: u64,
    /// Recognises a file system while reading as little as possible; `None` if the volume holds another one or none.
    ///
    /// Fails like [`open`](Self::open).
    pub probe: for<'a> fn(&'a Volume) -> FsFuture<'a, Option<Detected>>,
    /// Opens the file system in a volume; `None` if the volume holds another one or none.
    ///
    /// Fails with [`Error::Unsupported`] if the file system uses features that are not supported, [`Error::Corrupt`] or
    /// [`Error::Io`].
    pub open: fn(Volume) -> FsFuture<'static, Option<BoxedFileSystem>>,
    /// Reads what the file system records about being mounted; `None` if the volume holds another one or none.
    ///
    /// Fails like [`open`](Self::open).
    pub marks: for<'a> fn(&'a Volume) -> FsFuture<'a, Option<MountMarks>>,
}

/// A file system recognised by [`probe`](super::probe).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detected {
    /// The name, such as `ext4` or `XFS`.
    pub name: &'static str,
    /// Whether it is mounted read-write elsewhere, or was not unmounted cleanly; `None` if unknown.
    pub in_use: Option<bool>,
}

/// A file system in a [`Volume`], opened by its [`Driver`].
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Returns the name, such as `ext4` or `FAT32`.
    fn name(&self) -> &'static str;

    /// Returns whether it is mounted read-write elsewhere, or was not unmounted cleanly.
    fn is_in_use(&self) -> bool;

    /// Returns what the administrator must know although the file system is readable; `None` in general.
    fn warning(&self) -> Option<&str> {
        None
    }

    /// Returns the root directory.
    fn root(&self) -> Node;

    /// Returns the root directory of a subvolume, named by its path below the one that contains all others; `None` if it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file system has no subvolumes, and those of [`lookup`](Self::lookup).
    fn subvolume<'a>(&'a self, path: &'a str) -> FsFuture<'a, Option<Node>> {
        let _ = path;
        Box::pin(async { Err(Error::corrupt(self.name(), "has no subvolumes")) })
    }

    /// Returns the paths of the subvolumes, sorted, for messages: a few hundred, and none of those that the log has moved.
    ///
    /// # Errors
    ///
    /// [`Error`].
    fn subvolumes(&self) -> FsFuture<'_, Vec<Vec<u8>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Looks up a name in a directory; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error`].
    fn lookup<'a>(&'a self, directory: Node, name: &'a [u8]) -> FsFuture<'a, Option<Node>>;

    /// Returns the entries of a directory except `.` and `..`, in the order of the disk.
    ///
    /// # Errors
    ///
    /// [`Error`].
    fn read_directory(&self, directory: Node) -> FsFuture<'_, Vec<DirectoryEntry>>;

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error`].
    fn read_link(&self, link: Node) -> FsFuture<'_, Vec<u8>>;

    /// Returns the size, the identity and the mapping of a regular file.
    ///
    /// # Errors
    ///
    /// [`Error`].
    fn map(&self, file: Node) -> FsFuture<'_, FileMap>;
}

/// A file, directory or link of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The number that identifies it in its file system: an inode number or the offset of a directory entry.
    pub id: u64,
    /// The type.
    pub file_type: FileType,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name, in any encoding.
    pub name: Vec<u8>,
    /// The file, directory or link.
    pub node: Node,
}

/// The type of a [`Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Other,
}

impl FileType {
    /// Returns the type in the mode of an inode, as Unix defines it.
    pub(super) fn from_mode(mode: u16) -> Self {
        match mode & 0xf000 {
            0x8000 => Self::File,
            0x4000 => Self::Directory,
            0xa000 => Self::Link,
            _ => Self::Other,
        }
    }
}
