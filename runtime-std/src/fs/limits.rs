//! Limits on the work and the memory that a file system may cost, whatever is on the disk.

/// The maximum number of extents of a file. A file with more of them is not worth the memory.
pub(super) const MAX_EXTENTS: usize = 65_536;
