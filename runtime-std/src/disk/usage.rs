//! How many disks there are, in which states, and their memory.

use super::error_log::DiskState;

/// The numbers of disks by their states, and the memory for what is read from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Disks that are connected.
    pub connected: usize,
    /// Disks that are not connected and have no known problem.
    pub idle: usize,
    /// Disks that could not be opened, and descriptions that are not valid.
    pub failed: usize,
    /// Bytes in use.
    pub memory: usize,
    /// The limit of these bytes.
    pub max_memory: usize,
}

impl DiskUsage {
    /// Counts a disk.
    pub(super) fn count(&mut self, state: DiskState) {
        *match state {
            DiskState::Connected => &mut self.connected,
            DiskState::Idle => &mut self.idle,
            DiskState::Failed(_) => &mut self.failed,
        } += 1;
    }
}
