//! Changes of inodes (`struct xfs_inode_log_format`).

use super::{
    changes::{Age, Changes, Fork},
    position::corrupt,
    transaction::Item,
};
use crate::fs::{Error, bytes::le, xfs::superblock::Superblock};

/// The type of the item.
pub(super) const TYPE: u16 = 0x123b;
/// The length of the first region that a 32-bit system writes, in bytes. Its number of the inode is four bytes further ahead.
const LEN_32: usize = 52;
/// The lengths of the core of an inode of version 3, and of an older one.
const CORE_V3: usize = 176;
const CORE_V2: usize = 96;

// The parts of an inode that are logged (`ilf_fields`).
const DATA: u32 = 0x2;
const EXTENTS: u32 = 0x4;
const ROOT: u32 = 0x8;

/// The flags of `di_flags2` for times and numbers of extents with more bits.
const BIGTIME: u64 = 1 << 3;
const NREXT64: u64 = 1 << 4;

/// Adds a changed inode.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::OutOfMemory`].
pub(super) fn add_to(changes: &mut Changes, item: &Item<'_>, superblock: &Superblock) -> Result<(), Error> {
    let (format, core) = (item.region(0), item.region(1));
    let number = le::u64_at(format, if format.len() == LEN_32 { 12 } else { 16 });
    let offset = superblock.inode_offset(number).ok_or_else(|| corrupt("change of an inode beyond the file system"))?;
    let is_v5 = superblock.features.is_v5;
    if core.len() < if is_v5 { CORE_V3 } else { CORE_V2 } || !core.starts_with(b"NI") {
        return Err(corrupt("invalid change of an inode"));
    }
    let age = if is_v5 { Age::Lsn(item.lsn()) } else { Age::Flushes(le::u16_at(core, 30)) };
    let fork = item.region(2);
    let fork = match le::u32_at(format, 4) & (DATA | EXTENTS | ROOT) {
        0 => None,
        _ if fork.len() > superblock.inode_size() => return Err(corrupt("change beyond the end of an inode")),
        ROOT => Some(Fork::Root(fork.into())),
        DATA | EXTENTS => Some(Fork::Plain(fork.into())),
        _ => return Err(corrupt("change of an inode with two data forks")),
    };
    changes.add_inode(offset, age, core_on_disk(core, is_v5, item.lsn()), fork)
}

/// Returns the core as it is on the disk: in the log, its fields have the byte order of the system that wrote them.
fn core_on_disk(logged: &[u8], is_v5: bool, lsn: u64) -> Box<[u8]> {
    let flags2 = if is_v5 { le::u64_at(logged, 120) } else { 0 };
    let mut core = logged[..if is_v5 { CORE_V3 } else { CORE_V2 }].to_vec();
    let mut swap = |at: usize, len: usize| {
        if let Some(field) = core.get_mut(at..at + len) {
            field.reverse();
        }
    };
    // Mode, user, group, links, projects.
    for (at, len) in [(0, 2), (2, 2), (6, 2), (8, 4), (12, 4), (16, 4), (20, 2), (22, 2)] {
        swap(at, len);
    }
    // The number of extents, or a counter in version 4.
    let (at, len) = if is_v5 { (24, 8) } else { (30, 2) };
    swap(at, len);
    let times = [32, 40, 48, 144];
    for at in times {
        match flags2 & BIGTIME {
            0 => [at, at + 4].into_iter().for_each(|at| swap(at, 4)),
            _ => swap(at, 8),
        }
    }
    // Size, blocks, extent size.
    for (at, len) in [(56, 8), (64, 8), (72, 4), (76, 4)] {
        swap(at, len);
    }
    if flags2 & NREXT64 == 0 {
        swap(80, 2);
    }
    // Flags, generation; change count, flags, extent size, number.
    for (at, len) in [(84, 4), (88, 2), (90, 2), (92, 4), (104, 8), (120, 8), (128, 4), (152, 8)] {
        swap(at, len);
    }
    if let Some(field) = core.get_mut(112..120) {
        field.copy_from_slice(&lsn.to_be_bytes());
    }
    core.into()
}
