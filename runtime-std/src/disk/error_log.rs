//! The errors of a disk in the log.

use parking_lot::Mutex;

use super::DiskError;

/// Logs the errors of a disk, without repeating them for each request.
#[derive(Debug)]
pub(super) struct DiskLog {
    /// The name of the `.nbd` file.
    name: String,
    /// The last error of opening the disk since it could be opened.
    opening: Mutex<Option<String>>,
    /// The last error of looking up a file.
    lookup: Mutex<Option<String>>,
}

impl DiskLog {
    pub(super) fn new(name: String) -> Self {
        Self { name, opening: Mutex::default(), lookup: Mutex::default() }
    }

    /// Returns the name of the `.nbd` file.
    pub(super) fn name(&self) -> &str {
        &self.name
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
