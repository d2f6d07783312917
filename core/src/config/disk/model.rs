//! The contents of a description, and their limits.

use core::fmt;

use heapless::{String, Vec};

use super::placeholder::Placeholders;
use crate::config::uri::{MAX_HOST, MAX_TLS_PATH, NbdUri};

/// The largest description, in bytes.
pub const MAX_CONFIG: usize = 16 * 1024;

/// The longest path in a description (a mountpoint, a device, `tftp_root`), in bytes.
pub const MAX_DISK_PATH: usize = 255;

/// The longest `url`, in bytes: any export and any socket fit with every byte percent-encoded, without parameters of TLS.
pub const MAX_URL: usize = 1152;

/// The largest number of mounts in a description.
pub const MAX_MOUNTS: usize = 16;

/// The largest partition number: Linux has up to 256 numbers a disk (`DISK_MAX_PARTS`), and 0 is the whole disk.
pub const MAX_PARTITION: u32 = 255;

/// The longest `label`, in bytes.
pub const MAX_LABEL: usize = 64;

/// The longest `append` of `boot`, in bytes, also after placeholders were replaced.
pub const MAX_APPEND: usize = 1024;

/// The largest number of words in `remove` of `boot`.
pub const MAX_REMOVED: usize = 16;

/// The longest word in `remove`, and the longest identifier in `default` of `boot`, in bytes.
pub const MAX_WORD: usize = 128;

/// The largest `timeout` of `boot`, in seconds.
pub const MAX_TIMEOUT: u16 = 3600;

/// An absolute path on the disk, made of plain names, without a slash at the end unless it is `/`.
pub type DiskPath = String<MAX_DISK_PATH>;

/// A disk, the mounts of its file systems, and the directory that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DiskConfig {
    /// The NBD export of the disk.
    pub url: NbdUri,
    /// The verification of the server and of the client; only for a URL with TLS.
    pub tls: Option<TlsConfig>,
    /// The mounts, in this order. The first mountpoint is `/`; every other one lies below an earlier one.
    pub mounts: Vec<Mount, MAX_MOUNTS>,
    /// The directory that is the root for clients.
    pub tftp_root: DiskPath,
    /// The reader of the disk. `None`: the native reader for file systems that it supports, libguestfs for others.
    pub backend: Option<Backend>,
    /// What differs from the boot entries on the disk.
    pub boot: BootConfig,
    /// The name of the board for people: printable, and not empty.
    pub label: Option<String<MAX_LABEL>>,
    /// The placeholders of the URL that were replaced by values of a board.
    pub placeholders: Placeholders,
}

impl DiskConfig {
    /// Returns whether any server can pass itself off as that of the disk: there is TLS, but no verification.
    #[must_use]
    pub fn accepts_any_server(&self) -> bool {
        let is_verified = self.tls.as_ref().is_some_and(|tls| tls.ca.is_some() || tls.fingerprint.is_some());
        self.url.tls.as_ref().is_some_and(|tls| tls.is_unverified) && !is_verified
    }
}

/// The path of a file with certificates or a key, relative to the directory of the description or absolute.
pub type TlsPath = String<MAX_TLS_PATH>;

/// The object `tls`. What it contains takes precedence over the parameters of the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TlsConfig {
    /// The certificates of the authorities that may have issued that of the server.
    pub ca: Option<TlsPath>,
    /// The certificate and the key of the client.
    pub identity: Option<ClientIdentity>,
    /// The name or the IP address in the certificate of the server, if it is not the host of the URL.
    pub hostname: Option<String<MAX_HOST>>,
    /// The SHA-256 digest of the certificate of the server. Then neither its name nor its issuer nor its dates matter; there is no `ca`.
    pub fingerprint: Option<[u8; 32]>,
}

/// The files by which a client identifies itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ClientIdentity {
    /// The certificate, followed by those of intermediate authorities.
    pub certificate: TlsPath,
    /// Its key.
    pub key: TlsPath,
}

/// What a boot menu that is generated from a disk has different from the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BootConfig {
    /// The text that is added to each command line: printable ASCII, with an even number of quotation marks.
    pub append: String<MAX_APPEND>,
    /// The words that are removed from each command line; `quiet` removes `quiet` and `quiet=1`.
    pub remove: Vec<Word, MAX_REMOVED>,
    /// The default entry.
    pub default: BootDefault,
    /// The time in seconds that the menu is shown, if it is not the usual one.
    pub timeout: Option<u16>,
    /// The placeholders of `append` that were replaced by values of a board.
    pub placeholders: Placeholders,
}

/// A word of a command line, or the identifier of an entry: printable ASCII without blanks.
pub type Word = String<MAX_WORD>;

/// The default entry of a boot menu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BootDefault {
    /// `saved`: the one that the disk names, or else the first one.
    #[default]
    Saved,
    /// `newest`: the first one, which has the highest version.
    Newest,
    /// The one with this identifier; `*` matches any text.
    Id(Word),
}

/// A reader of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Backend {
    /// The daemon itself.
    Native,
    /// libguestfs, in a virtual machine.
    Guestfs,
}

/// A file system and its mountpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mount {
    /// The location of the file system on the disk.
    pub source: MountSource,
    /// The subvolume of btrfs to mount, by its path from the one that contains all others: `/@`. `None`: the default one, or that in
    /// the name of the device.
    pub subvolume: Option<DiskPath>,
    /// The directory on which it is mounted.
    pub mountpoint: DiskPath,
}

/// The location of a file system.
#[expect(clippy::large_enum_variant, reason = "there is no heap for the larger variant")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MountSource {
    /// The whole disk, which has no partitions.
    Disk,
    /// The partition with this number in Linux (2 is `sda2`), from 1 to [`MAX_PARTITION`].
    Partition(u32),
    /// A device name of libguestfs: `/dev/sda`, `/dev/vg/root`, `btrfsvol:/dev/sda2/@`. It is not empty and has no control
    /// characters.
    Device(String<MAX_DISK_PATH>),
}

/// For messages: `the whole disk`, `partition 2` or the name of the device.
impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("the whole disk"),
            Self::Partition(number) => write!(f, "partition {number}"),
            Self::Device(device) => f.write_str(device),
        }
    }
}
