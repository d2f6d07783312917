//! The parts of inodes that the log changes (Linux, `struct xfs_dinode`).

use std::ops::Range;

use crate::fs::bytes::be;

pub(super) const MAGIC: [u8; 2] = *b"IN";
/// The offsets of the data fork in versions 1 and 2, and in version 3.
const FORK_V2: usize = 100;
const FORK_V3: usize = 176;

/// Returns the range of the data fork in an inode.
pub(super) fn data_fork(inode: &[u8]) -> Range<usize> {
    let start = if inode.get(4) == Some(&3) { FORK_V3 } else { FORK_V2 };
    // In units of eight bytes; 0 if there is no attribute fork.
    let end = match inode.get(82) {
        None | Some(0) => inode.len(),
        Some(offset) => start + usize::from(*offset) * 8,
    };
    start..end.min(inode.len()).max(start.min(inode.len()))
}

/// Returns the data fork of an inode.
pub(super) fn data_fork_mut(inode: &mut [u8]) -> &mut [u8] {
    let range = data_fork(inode);
    inode.get_mut(range).unwrap_or_default()
}

/// Returns the LSN of an inode on the disk; `None` if it has none.
pub(super) fn lsn(inode: &[u8]) -> Option<u64> {
    let lsn = be::u64_at(inode, 112);
    let has_lsn = inode.starts_with(&MAGIC) && inode.get(4) == Some(&3) && lsn != u64::MAX;
    has_lsn.then_some(lsn)
}
