//! Reading the partition table and the file systems of a disk without a virtual machine.
//!
//! Everything here only reads, never blocks its thread, and trusts nothing on the disk: any content ends in a result or an
//! [`Error`] within bounded time and memory.
//!
//! A [`BlockDevice`] is a disk. A [`Volume`] is a part of it that holds one file system, read through a cache that is as old as
//! the volume. A [`FileSystem`] finds a file in its volume and returns a [`FileMap`], the location of the file's contents on the
//! disk; these are then read from the device, past the cache. A [`MountedDisk`] combines the file systems of a disk into one
//! directory tree.

mod block_checksums;
mod block_device;
mod btrfs;
mod bytes;
mod checksum;
mod compression;
mod disk_marks;
mod driver;
mod error;
mod ext4;
mod fat;
mod file_map;
mod filesystem;
mod limits;
mod mount_marks;
mod mounted_disk;
pub mod partition;
pub mod resolve;
mod signatures;
#[cfg(test)]
mod testing;
mod turns;
mod volume;
mod work;
mod xfs;

pub(crate) use self::mounted_disk::MountedEntry;
pub use self::{
    block_checksums::BlockChecksums,
    block_device::{BlockDevice, ReadFuture},
    compression::{Codec, Compressed},
    disk_marks::{DiskChange, DiskMarks},
    driver::{DRIVERS, open, open_with, probe},
    error::{Error, Object, Problem},
    file_map::{CompressedExtent, Extent, FileIdentity, FileMap, Patch},
    filesystem::{BoxedFileSystem, Detected, DirectoryEntry, Driver, FileSystem, FileType, FsFuture, Node},
    mount_marks::{Change, MountMarks, Shows},
    mounted_disk::{MountedDisk, SharedFileMap},
    resolve::ResolveError,
    turns::{DiskWork, Turns},
    volume::Volume,
};
pub use crate::buffer::Buffer;
