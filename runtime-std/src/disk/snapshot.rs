//! Snapshots of a disk, and the files opened in them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rtftp_core::RequestPath;

use super::{DiskError, chunks::Layout};
use crate::{
    clock,
    fs::{BlockDevice, MountedDisk, ResolveError, SharedFileMap},
    guestfs::{HelperError, SharedAppliance, SharedFile},
};

/// The file systems of a disk, mounted through either backend.
#[derive(Debug)]
pub(crate) enum Contents {
    Native(MountedDisk),
    Guestfs(SharedAppliance),
}

/// An open file of a disk, which keeps its backend. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum DiskFile {
    Native { device: Arc<dyn BlockDevice>, map: Arc<SharedFileMap> },
    Guestfs(Arc<SharedFile>),
}

/// The disk of a client as it is served for the duration of one boot.
#[derive(Debug)]
pub(super) struct Snapshot {
    contents: Contents,
    taken: Instant,
    /// The time of the last request, or of the end of the last transfer.
    last_used: Mutex<Instant>,
}

impl Snapshot {
    pub(super) fn new(contents: Contents) -> Self {
        let now = clock::instant();
        Self { contents, taken: now, last_used: Mutex::new(now) }
    }

    /// Returns the mounted file systems.
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Opens a regular file.
    pub(super) async fn open(&self, path: &RequestPath) -> Result<DiskFile, DiskError> {
        match &self.contents {
            Contents::Native(disk) => match disk.find_file(path).await {
                Ok(map) => Ok(DiskFile::Native { device: disk.device().clone(), map }),
                Err(ResolveError::NotFound) => Err(DiskError::NotFound),
                Err(ResolveError::FileSystem(error)) => Err(error.into()),
                Err(error) => Err(DiskError::Forbidden(error.to_string())),
            },
            Contents::Guestfs(appliance) => match appliance.open(path).await {
                Ok(file) => Ok(DiskFile::Guestfs(file.into())),
                Err(HelperError::NotFound) => Err(DiskError::NotFound),
                Err(HelperError::Forbidden(reason)) => Err(DiskError::Forbidden(reason)),
                Err(error) => Err(DiskError::Appliance(error)),
            },
        }
    }

    /// Returns whether the connection works, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        match &self.contents {
            Contents::Native(disk) => disk.device().is_alive(),
            Contents::Guestfs(appliance) => appliance.is_alive(),
        }
    }

    /// Returns whether the disk is being written by a client, as far as is known.
    pub(super) fn is_in_use(&self) -> bool {
        match &self.contents {
            Contents::Native(disk) => !disk.in_use().is_empty(),
            Contents::Guestfs(_) => false,
        }
    }

    /// Returns the time at which it was taken.
    pub(super) fn taken(&self) -> Instant {
        self.taken
    }

    /// Returns the age.
    pub(super) fn age(&self) -> Duration {
        clock::elapsed(self.taken)
    }

    /// Records a use.
    pub(super) fn touch(&self) {
        *self.last_used.lock() = clock::instant();
    }

    /// Returns the time of the last use.
    pub(super) fn last_used(&self) -> Instant {
        *self.last_used.lock()
    }
}

impl DiskFile {
    /// Returns the size in bytes at the time it was opened.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Native { map, .. } => map.size,
            Self::Guestfs(file) => file.size(),
        }
    }

    /// Frees the buffers that are kept for later reads of the disk.
    pub(super) fn free_buffers(&self) {
        if let Self::Native { device, .. } = self {
            device.free_buffers();
        }
    }

    /// Returns what a read takes besides the bytes that it returns.
    pub(super) fn layout(&self) -> Layout {
        match self {
            Self::Native { map, .. } => {
                let is_fragmented = map.extents.len() + map.compressed.len() > 1;
                Layout { is_fragmented, decoding: map.decoding_memory() }
            }
            Self::Guestfs(_) => Layout::default(),
        }
    }

    /// Returns the file with the contents of `other`, which is the same one, unchanged: its map need not be kept twice.
    pub(super) fn with_map_of(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Native { device, .. }, Self::Native { map, .. }) => Self::Native { device, map: map.clone() },
            (file, _) => file,
        }
    }

    /// Compares with `other`, opened by the same path in a later snapshot. Never [`Same`](Comparison::Same) with libguestfs, which
    /// shows a file as it was when the appliance first read it.
    pub(super) fn compare(&self, other: &Self) -> Comparison {
        match (self, other) {
            (Self::Native { map, .. }, Self::Native { map: other, .. }) if ***map == ***other => Comparison::Same,
            (Self::Native { map, .. }, Self::Native { map: other, .. }) if map.has_location_of(other) => {
                Comparison::OtherAttributes
            }
            _ => Comparison::Changed,
        }
    }
}

/// The result of comparing two states of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The contents are the same.
    Same,
    /// The contents are the same unless somebody has overwritten them and restored the modification time.
    OtherAttributes,
    /// The contents may differ.
    Changed,
}
