//! The kinds of file systems, and which of their calls may wait.

use std::{io, os::fd::AsFd};

use rustix::{fs::fstatfs, io::ReadWriteFlags};

/// The properties of a file system that decide how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Whether its calls wait for local disks at most, never for a network or another process.
    pub(crate) is_local: bool,
    /// Whether every change of a directory changes the directory's ctime.
    pub(crate) stamps_directories: bool,
    /// Whether `RWF_NOWAIT` is rejected, and not needed: all files are in memory.
    is_tmpfs: bool,
}

/// Magic numbers of `statfs` (see statfs(2) and the kernel's `magic.h`).
const TMPFS: u32 = 0x0102_1994;
/// File systems on local disks and in memory that change the ctime of a directory with each entry.
const LOCAL: [u32; 13] = [
    TMPFS,
    0x8584_58f6, // ramfs
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
    0x2405_1905, // ubifs
    // Read-only.
    0x7371_7368, // squashfs
    0xe0f5_e1e2, // erofs
    0x9660,      // iso9660
    0x1501_3346, // udf
];
/// Local file systems whose directory times cannot be trusted: the root directory of FAT has none.
const LOCAL_WITHOUT_STAMPS: [u32; 3] = [
    0x4d44,      // vfat
    0x2011_bab0, // exfat
    0x7366_746e, // ntfs3
];
/// Layers of overlayfs may be on file systems of any kind, so its calls may wait.
const OVERLAYFS: u32 = 0x794c_7630;

impl Kind {
    /// Determines the kind of the file system that contains a file. Blocks if the file system is not local.
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        // The kernel's type is signed on some architectures; a magic number has 32 bits.
        Ok(Self::from_magic(fstatfs(file)?.f_type as u32))
    }

    fn from_magic(magic: u32) -> Self {
        let is_local = LOCAL.contains(&magic);
        Self {
            is_local: is_local || LOCAL_WITHOUT_STAMPS.contains(&magic),
            stamps_directories: is_local || magic == OVERLAYFS,
            is_tmpfs: magic == TMPFS,
        }
    }

    /// Returns the flags of preadv2(2) that read a file without waiting for a disk.
    pub(crate) fn nonblocking_read_flags(self) -> ReadWriteFlags {
        if self.is_tmpfs { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_file_systems_never_wait() {
        for (magic, is_local, stamps_directories) in [
            (0xef53, true, true),
            (TMPFS, true, true),
            (0x4d44, true, false),
            (OVERLAYFS, false, true),
            (0x6573_5546, false, false), // FUSE
            (0x6969, false, false),      // NFS
            (0xff53_4d42, false, false), // CIFS
            (0x0102_1997, false, false), // 9p
            (0, false, false),
        ] {
            let kind = Kind::from_magic(magic);
            assert_eq!((kind.is_local, kind.stamps_directories), (is_local, stamps_directories), "{magic:#x}");
        }
    }

    #[test]
    fn recognises_tmpfs() {
        let directory = std::fs::File::open("/dev/shm").expect("a tmpfs");
        let kind = Kind::of(&directory).expect("a kind");
        assert!(kind.is_local && kind.nonblocking_read_flags().is_empty());
    }
}
