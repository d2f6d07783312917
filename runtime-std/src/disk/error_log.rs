//! The errors of a disk in the log, and its present state.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::DiskError;

/// The state of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskState {
    /// Connected to its NBD server, or to a helper.
    Connected,
    /// Not connected, and no problem is known: it connects when it is needed.
    Idle,
    /// The last attempt to open it failed, for this reason; or its description is not valid.
    Failed(String),
}

/// Logs the errors of a disk, without repeating them for each request.
#[derive(Debug)]
pub(super) struct DiskLog {
    /// The name of the `.nbd` file.
    name: String,
    is_connected: AtomicBool,
    /// The last error of opening the disk since it could be opened.
    opening: Mutex<Option<String>>,
    /// The last error of looking up a file.
    lookup: Mutex<Option<String>>,
}

impl DiskLog {
    pub(super) fn new(name: String) -> Self {
        Self { name, is_connected: AtomicBool::new(false), opening: Mutex::default(), lookup: Mutex::default() }
    }

    /// Returns the name of the `.nbd` file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the state of the disk.
    pub(super) fn state(&self) -> DiskState {
        match &*self.opening.lock() {
            Some(reason) => DiskState::Failed(reason.clone()),
            None if self.is_connected.load(Relaxed) => DiskState::Connected,
            None => DiskState::Idle,
        }
    }

    /// Notes whether the disk is connected.
    pub(super) fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Relaxed);
    }

    /// Logs why the disk cannot be opened, unless that repeats the last error.
    pub(super) fn opening_failed(&self, error: &DiskError) {
        self.log(&self.opening, error);
    }

    /// Notes that the disk can be opened: the next error is logged again.
    pub(super) fn opened(&self) {
        *self.opening.lock() = None;
    }

    /// Logs why files of the disk cannot be found, unless that repeats the last error.
    pub(super) fn lookup_failed(&self, error: &DiskError) {
        self.log(&self.lookup, error);
    }

    fn log(&self, last: &Mutex<Option<String>>, error: &DiskError) {
        let reason = error.to_string();
        let is_new = last.lock().replace(reason.clone()).is_none_or(|last| last != reason);
        if is_new {
            log::error!("{}: {reason}", self.name);
        }
    }
}
