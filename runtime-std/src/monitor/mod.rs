//! What monitoring reads: all boards with their history, and figures of requests, boots, disks and memory.

mod boards;

use std::{sync::Arc, time::Duration};

use smol::unblock;

use crate::{
    clock::within,
    files::{Boards, FileStore},
    history::{
        History,
        snapshot::{Client, Snapshot},
    },
    nbd,
};
pub use crate::{
    disk::DiskUsage,
    histogram::Distribution,
    history::{HistoryMetrics, snapshot::BootTotals},
};

/// The time limit for reading the names of the boards: the root directory may be on a file system that hangs.
const BOARDS_LIMIT: Duration = Duration::from_millis(500);

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

    /// Returns all boards with their history: first the boards that have made requests, then those that have only a description or a
    /// directory.
    pub async fn snapshot(&self) -> Snapshot {
        self.collect(|history, boards| {
            let mut snapshot = history.header();
            boards::for_each(history, boards, |client| snapshot.clients.push(client));
            snapshot
        })
        .await
    }

    /// Adds each board to a value, on a thread that may block; only one board at a time is in memory. Returns a snapshot without the
    /// boards, and the value.
    pub async fn fold<T: Send + 'static>(
        &self,
        mut value: T,
        add: impl Fn(&mut T, &Client) + Send + 'static,
    ) -> (Snapshot, T) {
        self.collect(move |history, boards| {
            let header = history.header();
            boards::for_each(history, boards, |client| add(&mut value, &client));
            (header, value)
        })
        .await
    }

    /// Returns the board with this address, or else with this name, and the time in seconds since 1970.
    pub async fn board(&self, name: &str) -> Option<(f64, Client)> {
        let name = name.to_owned();
        let find = move |history: &History, boards: &Boards| {
            boards::find(history, boards, &name).map(|board| (history.header().now, board))
        };
        self.collect(find).await
    }

    /// Returns the [snapshot](Self::snapshot) as one line of JSON. Only one board at a time is in memory beside the text.
    pub async fn json(&self) -> Vec<u8> {
        self.collect(|history, boards| {
            let mut document = history.document();
            boards::for_each(history, boards, |client| document.add(&client));
            document.finish()
        })
        .await
    }

    /// Returns the same with only the board of this address or name, if there is one.
    pub async fn json_of(&self, name: &str) -> Vec<u8> {
        let name = name.to_owned();
        let find = move |history: &History, boards: &Boards| {
            let mut document = history.document();
            boards::find(history, boards, &name).iter().for_each(|board| document.add(board));
            document.finish()
        };
        self.collect(find).await
    }

    /// Reads which boards there are, and collects something of them on a thread that may block.
    async fn collect<T: Send + 'static>(&self, collect: impl FnOnce(&History, &Boards) -> T + Send + 'static) -> T {
        let entries = within(BOARDS_LIMIT, self.files.entries()).await.and_then(Result::ok);
        let hostnames = within(BOARDS_LIMIT, self.files.hostnames()).await.unwrap_or_default();
        let (history, files) = (self.history.clone(), self.files.clone());
        unblock(move || collect(&history, &files.boards(entries.as_deref(), hostnames))).await
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
