//! The disk of a board.

use std::sync::Arc;

use super::handle::Disk;
use crate::boot_entries::Settings;
use rtftp_core::RequestPath;

/// The disk of a board. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BoardDisk {
    pub(super) disk: Disk,
    /// What differs for this board from the boot entries on the disk.
    pub(super) boot: Arc<Settings>,
}

impl BoardDisk {
    /// Returns the title of the entry of the last boot menu with the kernel at this path; `None` if it is no kernel of the menu.
    pub(crate) fn boot_entry(&self, path: &RequestPath) -> Option<Box<str>> {
        self.disk.boot_entry(path)
    }
}
