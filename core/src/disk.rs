//! The description of a client's disk: what an `.nbd` file says.

use heapless::{String, Vec};

use crate::uri::NbdUri;

/// The longest path in a description (a mountpoint, a device, `tftp_root`), in bytes.
pub const MAX_DISK_PATH: usize = 255;

/// The largest number of mounts in a description.
pub const MAX_MOUNTS: usize = 16;

/// A path on the disk: absolute, made of plain names, without a slash at the end unless it is `/` itself.
pub type DiskPath = String<MAX_DISK_PATH>;

/// A disk, what of it is mounted where, and which directory of it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DiskConfig {
    /// The NBD export that is the disk.
    pub url: NbdUri,
    /// What is mounted, in this order; the first mountpoint is `/`, and every other one lies below an earlier one.
    pub mounts: Vec<Mount, MAX_MOUNTS>,
    /// The directory that clients see as their root.
    pub tftp_root: DiskPath,
}

/// One file system and the directory it is mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mount {
    /// Where the file system is on the disk.
    pub source: MountSource,
    /// The directory it is mounted on.
    pub mountpoint: DiskPath,
}

/// Where a file system is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MountSource {
    /// In the partition that Linux gives this number (2 is `sda2`), from 1 on.
    Partition(u32),
    /// Behind a name that libguestfs can mount: `/dev/sda`, `/dev/vg/root`, `btrfsvol:/dev/sda2/@`.
    Device(DiskPath),
}
