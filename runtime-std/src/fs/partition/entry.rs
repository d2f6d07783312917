//! A partition, as both kinds of tables describe it.

use crate::fs::Volume;

/// The usual size of a sector in bytes. NBD exports have sectors of this size unless a client requests another.
pub(in crate::fs) const SECTOR: u64 = 512;
/// The sizes of sectors that a table may have been made for, in the order in which they are tried. Linux uses the size of the
/// device, which an NBD client chooses.
pub(super) const UNITS: [u64; 4] = [SECTOR, 4096, 1024, 2048];
/// The highest partition number in Linux: `DISK_MAX_PARTS` - 1.
pub(super) const MAX_NUMBER: u32 = 255;

/// A partition as Linux would show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// The number, such as the `1` of `sda1`.
    pub number: u32,
    /// The offset on the disk in bytes.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
    /// The contents that its type announces.
    pub contents: Contents,
    /// The size in bytes of the sectors that the table was made for.
    pub sector: u64,
}

/// The contents that the type of a partition announces. It only decides between several file systems in one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contents {
    /// A file system of Linux.
    Linux,
    /// FAT.
    Fat,
    /// Anything.
    #[default]
    Unknown,
}

impl Contents {
    /// Returns the contents that a type of an MBR announces.
    pub(super) fn of_mbr_type(partition_type: u8) -> Self {
        match partition_type {
            0x83 => Self::Linux,
            0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e | 0xef => Self::Fat,
            _ => Self::Unknown,
        }
    }

    /// Returns the contents that a type of a GPT announces.
    pub(super) fn of_gpt_type(partition_type: &[u8; 16]) -> Self {
        // 0FC63DAF-8483-4772-8E79-3D69D8477DE4, and C12A7328-F81F-11D2-BA4B-00A0C93EC93B of UEFI. The first three fields are
        // little-endian.
        const LINUX: [u8; 16] = *b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4";
        const EFI_SYSTEM: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
        match *partition_type {
            LINUX => Self::Linux,
            EFI_SYSTEM => Self::Fat,
            _ => Self::Unknown,
        }
    }
}

impl Partition {
    /// Creates a partition at a sector with a length in sectors of `unit` bytes, like `blk_add_partition` in
    /// block/partitions/core.c: `None` if it starts beyond the end of the disk, truncated if it ends there.
    pub(super) fn new(
        disk: &Volume,
        number: u32,
        (start, len): (u64, u64),
        unit: u64,
        contents: Contents,
    ) -> Option<Self> {
        let len = len.min(sectors(disk, unit).checked_sub(start)?);
        (len != 0).then(|| Self { number, start: start * unit, len: len * unit, contents, sector: unit })
    }
}

/// Returns the number of whole sectors of `unit` bytes of a disk.
pub(super) fn sectors(disk: &Volume, unit: u64) -> u64 {
    disk.size() / unit
}
