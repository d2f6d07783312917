//! The disk of a board.

use std::sync::Arc;

use rtftp_core::{RequestPath, config::disk::DiskConfig};

use super::handle::Disk;
use crate::boot_entries::Settings;

/// The disk of a board. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BoardDisk {
    pub(super) disk: Disk,
    /// What differs for this board from the boot entries on the disk; `None` if nothing does, as for most of thousands of boards.
    boot: Option<Arc<Settings>>,
}

impl BoardDisk {
    pub(super) fn new(disk: Disk, config: &DiskConfig) -> Self {
        let boot = Settings::from(&config.boot);
        Self { disk, boot: (boot != Settings::default()).then(|| Arc::new(boot)) }
    }

    /// Returns what differs for this board from the boot entries on the disk.
    pub(super) fn boot(&self) -> Settings {
        self.boot.as_deref().cloned().unwrap_or_default()
    }

    /// Returns the title of the entry of the last boot menu with the kernel at this path; `None` if it is no kernel of the menu.
    pub(crate) fn boot_entry(&self, path: &RequestPath) -> Option<Box<str>> {
        self.disk.boot_entry(path)
    }
}
