//! Limits on the memory and the work that reading a disk costs, whatever is on it.
//!
//! Time is limited by `work`, by the callers and by the timeout of each read.

/// The maximum length in bytes of one read of a structure of a file system.
pub(super) const MAX_STRUCTURE: usize = 1 << 20;
/// The maximum number of extents of a file.
pub(super) const MAX_EXTENTS: usize = 65_536;
/// The maximum number of entries in a directory.
pub(super) const MAX_DIRECTORY_ENTRIES: usize = 1 << 18;
/// The maximum length of the target of a symbolic link in bytes (`PATH_MAX` of Linux).
pub(super) const MAX_LINK_TARGET: u64 = 4096;
/// The maximum number of symbolic links in the resolution of one path (`MAXSYMLINKS` of Linux).
pub(super) const MAX_SYMLINKS: u64 = 40;

/// The work of resolving a path and mapping its file, in bytes read. A directory of 100,000 entries has some megabytes.
pub(super) const PATH_WORK: u64 = 256 << 20;
/// The work of opening the file systems of a disk, in bytes read: replaying a full journal of 1 GiB, read twice, and more.
pub(super) const OPEN_WORK: u64 = 4 << 30;
/// The maximum number of names in the resolution of one path, including those in the targets of links.
pub(super) const MAX_NAMES: u64 = 4096;

/// A number of steps that a walk over structures on a disk may take, so that it ends even if they form a loop.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    pub(super) fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// Spends `steps`; returns `false` if fewer are left.
    #[must_use]
    pub(super) fn spend(&mut self, steps: u64) -> bool {
        let left = self.left.checked_sub(steps);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_spent_once() {
        let mut budget = Budget::new(3);
        assert!(budget.spend(2) && budget.spend(1) && budget.spend(0) && !budget.spend(1));
        let mut budget = Budget::new(3);
        assert!(!budget.spend(4) && !budget.spend(1), "a budget that is exceeded stays exhausted");
    }
}
