//! Positions in the log, and errors that concern it.

use crate::fs::Error;

/// A position in the log, which is also a log sequence number (LSN): the number of times that the log has wrapped, and a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) cycle: u32,
    pub(super) block: u32,
}

impl Position {
    pub(super) fn from_lsn(lsn: u64) -> Self {
        Self { cycle: (lsn >> 32) as u32, block: lsn as u32 }
    }

    pub(super) fn lsn(self) -> u64 {
        u64::from(self.cycle) << 32 | u64::from(self.block)
    }
}

/// Creates an [`Error::Corrupt`] for the log.
pub(super) fn corrupt(what: &'static str) -> Error {
    Error::corrupt("log", what)
}
