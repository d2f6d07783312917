//! The file systems of the disks.

use rtftp_tests::{BTRFS_MODULES, FileSystem};

/// How a file system is created and mounted.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) new: fn(&'static [&'static str]) -> FileSystem<'static>,
    /// The kernel modules of the owner.
    pub(crate) modules: &'static [&'static str],
    /// The options of `mount` to read it, and to read it without its log.
    pub(crate) mount: &'static [&'static str],
    pub(crate) without_log: &'static [&'static str],
}

const XFS: Kind = Kind {
    name: "xfs",
    new: FileSystem::Xfs,
    modules: &["xfs"],
    mount: &["-t", "xfs", "-o", "noatime,nouuid"],
    without_log: &["-t", "xfs", "-o", "ro,nouuid,norecovery"],
};

const BTRFS: Kind = Kind {
    name: "btrfs",
    new: FileSystem::Btrfs,
    modules: &BTRFS_MODULES,
    mount: &["-t", "btrfs", "-o", "noatime"],
    without_log: &["-t", "btrfs", "-o", "ro,rescue=nologreplay"],
};

/// A file system and what its owner does.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static Kind,
    /// The options of `mkfs`, and those of the owner's `mount`.
    pub(crate) mkfs: &'static [&'static str],
    pub(crate) mount: &'static str,
    /// The path of the default subvolume, with a slash before each name.
    pub(crate) subvolume: &'static str,
    /// The size of a sector of the drive in bytes.
    pub(crate) sector: usize,
    /// The number of directories that are written to concurrently.
    pub(crate) writers: u32,
}

const ANY_XFS: Variant = Variant { kind: &XFS, ..ANY_BTRFS };
const ANY_BTRFS: Variant =
    Variant { name: "default", kind: &BTRFS, mkfs: &[], mount: "noatime", subvolume: "", sector: 512, writers: 1 };

/// XFS with a log that is used again and again.
pub(crate) const XFS_SMALL_LOG: Variant = Variant { name: "small-log", mkfs: &["-l", "size=1400b"], ..ANY_XFS };

/// XFS as Linux created it until 2013. Newer kernels may not support it.
pub(crate) const XFS_VERSION_4: Variant =
    Variant { name: "version-4", mkfs: &["-m", "crc=0", "-l", "size=1400b"], ..ANY_XFS };

#[rustfmt::skip]
pub(crate) const XFS_VARIANTS: [Variant; 8] = [
    ANY_XFS,
    XFS_SMALL_LOG,
    Variant {
        name: "old-features",
        mkfs: &["-m", "finobt=1,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0", "-l", "size=4m"],
        ..ANY_XFS
    },
    Variant { name: "rmapbt", mkfs: &["-m", "rmapbt=1", "-l", "size=3100b"], mount: "logbsize=256k", ..ANY_XFS },
    Variant { name: "1k-blocks", mkfs: &["-b", "size=1024", "-l", "size=3600b"], mount: "logbsize=64k", ..ANY_XFS },
    Variant {
        name: "64k-directories", mount: "logbsize=128k",
        mkfs: &["-i", "nrext64=1", "-n", "size=65536", "-l", "size=2400b,su=64k"],
        ..ANY_XFS
    },
    Variant { name: "4k-sectors", mkfs: &["-s", "size=4096", "-l", "size=1300b"], sector: 4096, ..ANY_XFS },
    Variant { name: "four-writers", mkfs: &["-m", "rmapbt=1", "-l", "size=3100b"], writers: 4, ..ANY_XFS },
];

/// btrfs with compression and a short commit interval.
pub(crate) const BTRFS_ZSTD: Variant =
    Variant { name: "xxhash-zstd", mkfs: &["--csum", "xxhash"], mount: "compress=zstd,commit=5", ..ANY_BTRFS };

#[rustfmt::skip]
pub(crate) const BTRFS_VARIANTS: [Variant; 8] = [
    ANY_BTRFS,
    BTRFS_ZSTD,
    Variant {
        name: "mixed-blake2-lzo", mkfs: &["--mixed", "--csum", "blake2"], mount: "compress=lzo,commit=3", ..ANY_BTRFS
    },
    Variant {
        name: "single-zlib", mount: "compress=zlib,commit=8",
        mkfs: &["-m", "single", "-n", "4096", "-O", "^no-holes"],
        ..ANY_BTRFS
    },
    Variant { name: "sha256-every-second", mkfs: &["--csum", "sha256"], mount: "commit=1", ..ANY_BTRFS },
    Variant {
        name: "two-copies-every-hour", mkfs: &["-m", "dup", "-d", "dup", "-n", "65536"], mount: "commit=3600",
        ..ANY_BTRFS
    },
    // As openSUSE installs it.
    Variant { name: "snapshot", subvolume: "/@/.snapshots/1/snapshot", mount: "compress=zstd", ..ANY_BTRFS },
    Variant { name: "four-writers", writers: 4, ..ANY_BTRFS },
];
