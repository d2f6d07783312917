//! The time limits of a check.

use std::time::Duration;

/// The time limits of a check.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For opening a disk.
    pub open: Duration,
    /// For one answer of an NBD server or a helper.
    pub answer: Duration,
}
