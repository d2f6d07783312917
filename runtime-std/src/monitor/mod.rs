//! What monitoring reads: the history of boots, and figures of requests, boots, disks and memory.

use std::sync::Arc;

pub use crate::{
    disk::DiskUsage,
    histogram::Distribution,
    history::{HistoryMetrics, snapshot::BootTotals},
};
use crate::{files::FileStore, history::History, nbd};

/// Reads the state of a server. A clone is a handle to the same server.
#[derive(Debug, Clone)]
pub struct Monitor {
    history: History,
    files: Arc<FileStore>,
    max_transfers: usize,
}

/// Figures since the start of the server, beside the totals of the history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Requests and boots.
    pub history: HistoryMetrics,
    /// The times from sending read requests to NBD servers to the ends of their replies.
    pub nbd_reads: Distribution,
    /// The disks, and the memory for them.
    pub disks: DiskUsage,
    /// The maximum number of transfers at the same time.
    pub max_transfers: usize,
}

impl Monitor {
    /// Creates the monitor of a server with this history and these files.
    pub(crate) fn new(history: History, files: Arc<FileStore>, max_transfers: usize) -> Self {
        Self { history, files, max_transfers }
    }

    /// Returns the history of boots.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the figures of now. Call it on a thread that may work for a few milliseconds: there may be 10,000 disks.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            history: self.history.metrics(),
            nbd_reads: nbd::READ_LATENCY.read(),
            disks: self.files.disk_usage(),
            max_transfers: self.max_transfers,
        }
    }
}
