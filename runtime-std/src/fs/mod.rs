//! Reading the partition table and the file systems of a disk without a virtual machine.
//!
//! Everything here only reads, never blocks its thread, and trusts nothing on the disk: any content ends in a result or an
//! [`Error`] within bounded time and memory.
//!
//! A [`BlockDevice`] is a disk. A [`Volume`] is a part of it that holds one file system, read through a cache that is as old as
//! the volume. A [`FileSystem`] finds a file in its volume and returns a [`FileMap`], the location of the file's contents on the
//! disk; these are then read from the device, past the cache. A [`MountedDisk`] combines the file systems of a disk into one
//! directory tree.

mod bytes;
mod driver;
mod error;
mod ext4;
mod fat;
mod file_map;
mod limits;
mod mounted_disk;
pub mod partition;
pub mod resolve;
#[cfg(test)]
mod testing;
mod volume;

use std::{fmt, future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

pub(crate) use self::mounted_disk::MountedEntry;
pub use self::{
    driver::{DRIVERS, Detected, Driver, open, open_with, probe},
    error::{Error, Object, Problem},
    file_map::{Extent, FileIdentity, FileMap, Patch},
    mounted_disk::MountedDisk,
    resolve::ResolveError,
    volume::Volume,
};
pub use crate::buffer::Buffer;

/// A file system of any kind.
pub type BoxedFileSystem = Box<dyn FileSystem>;

/// The boxed future of an operation on a file system.
pub type FsFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The boxed future of a read from a [`BlockDevice`].
pub type ReadFuture<'a> = FsFuture<'a, Buffer>;

/// A disk: bytes that can be read at any offset, with any number of concurrent reads.
pub trait BlockDevice: fmt::Debug + Send + Sync {
    /// Returns the size in bytes.
    fn size(&self) -> u64;

    /// Reads exactly `len` bytes at `offset`. The read starts with the call, before the future is polled, so that several can be
    /// in flight.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also if the range exceeds [`size`](Self::size).
    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_>;

    /// Returns `false` once the device is known to be unreadable; this never reverts to `true`.
    fn is_alive(&self) -> bool {
        true
    }
}

/// A disk in memory.
impl BlockDevice for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..len));
        let bytes =
            bytes.map(|bytes| bytes.to_vec().into()).ok_or_else(|| Error::Io("read beyond the end of the disk".into()));
        Box::pin(async { bytes })
    }
}

/// A file system in a [`Volume`], opened by its [`Driver`].
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Returns the name, such as `ext4` or `FAT32`.
    fn name(&self) -> &'static str;

    /// Returns whether it is mounted read-write elsewhere, or was not unmounted cleanly.
    fn is_in_use(&self) -> bool;

    /// Returns the root directory.
    fn root(&self) -> Node;

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
