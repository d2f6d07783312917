//! Disks read by ourselves: the partition table and the file systems of an NBD export, without a virtual machine.
//!
//! Everything here only reads, waits without holding up a thread, and believes nothing that a disk says: whatever is on it ends
//! in an [`Error`], after a bounded time and with bounded memory.
//!
//! A [`Source`] is a disk. A [`Volume`] is the part of it that holds one file system, read through a small cache that lives as
//! long as one look at the disk does. File systems find a [`File`] in their volume, which says where its bytes are; those are then
//! read from the source itself.

mod bytes;
pub mod ext4;
pub mod fat;
mod file;
mod filesystem;
mod mounts;
pub mod partition;
pub(crate) mod resolve;
#[cfg(test)]
mod testing;
mod volume;

use std::{fmt, future::Future, pin::Pin};

pub(crate) use self::mounts::{Entry, name};
pub use self::{
    file::{Extent, File},
    filesystem::{FileSystem, Found},
    mounts::{NoFile, View},
    volume::{Cache, Volume},
};

/// The bytes that a [`Source`] will have read.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Error>> + Send + 'a>>;

/// A disk: bytes that can be read at any place, several readings at a time.
pub trait Source: fmt::Debug + Send + Sync {
    /// How many bytes it has.
    fn size(&self) -> u64;

    /// Reads exactly the `len` bytes from `offset` on. The reading begins with the call, not with the first look at the future, so
    /// that many can be under way together.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also if they are not all below [`size`](Self::size).
    fn read(&self, offset: u64, len: usize) -> Reading<'_>;

    /// Reads as [`read`](Self::read) does. The bytes may come in `spare`, memory that nobody uses any more: new memory would cost
    /// about as much as a copy.
    fn read_into(&self, spare: Vec<u8>, offset: u64, len: usize) -> Reading<'_> {
        drop(spare);
        self.read(offset, len)
    }

    /// Whether it can be read, as far as is known; once `false`, it stays so.
    fn is_alive(&self) -> bool {
        true
    }
}

/// A disk in memory.
impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> Reading<'_> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)?.get(..len));
        let bytes = bytes.map(<[u8]>::to_vec).ok_or_else(|| Error::Io("behind the end of the disk".into()));
        Box::pin(async { bytes })
    }
}

/// Why something could not be read from a disk; the texts are for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The bytes were not to be had: the server, the network, the medium.
    Io(String),
    /// What the disk says contradicts itself: it is damaged, or its owner is writing at this very moment.
    Corrupt(String),
    /// The disk may be fine, but is not of a kind that is read here.
    Unsupported(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(reason) | Self::Corrupt(reason) | Self::Unsupported(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

/// Something in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// What its file system calls it: an inode number, the place of a directory entry.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
}

/// What something in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a FIFO, a socket.
    Other,
}
