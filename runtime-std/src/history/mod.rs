//! The boot history: for each client the requests of its last boots, their outcomes and their progress.

mod boot;
mod boot_metrics;
mod counters;
mod document;
mod earlier;
mod journal;
mod request;
mod request_metrics;
pub mod snapshot;
mod store;
mod subscribers;
mod summary;
mod wall_clock;

use std::{
    fmt,
    net::IpAddr,
    path::Path,
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, MutexGuard};
use rtftp_core::Instant;
use smol::channel::Receiver;

use self::{
    counters::Counters,
    earlier::Described,
    journal::Journal,
    request::Record,
    snapshot::{BootTotals, Client, Mount, MountState, Protocol, Snapshot, State, Totals},
    store::Store,
    subscribers::Subscribers,
    wall_clock::WallClock,
};
pub(crate) use self::{document::Document, request::TransferStart};
pub use self::{
    journal::{PastBoot, boots_since},
    summary::format_duration,
};
use crate::{clock, histogram::Distribution};

/// The boot history of a server. A clone is a handle to the same history.
///
/// Its size is bounded whatever arrives: the last four boots of at most 1024 clients, and 32,768 requests in all; then the last requests
/// of at most 65,536 boards that the owner has described.
#[derive(Debug, Clone)]
pub struct History(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    store: Arc<Mutex<Store>>,
    counters: Counters,
    subscribers: Subscribers,
    journal: OnceLock<Journal>,
}

/// Figures of the requests and boots since the start of the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryMetrics {
    /// The sizes of delivered files in bytes.
    pub file_sizes: Distribution,
    /// The times from requests to the first acknowledged data, of local files.
    pub first_data_local: Distribution,
    /// The same of files on disks.
    pub first_data_disk: Distribution,
    /// The boots that have ended.
    pub boots: BootTotals,
    /// The durations of boots in which a file was delivered, from the first request to the client's last packet.
    pub boot_durations: Distribution,
}

impl History {
    /// Creates an empty history.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::of_boards(|_| false)
    }

    /// Creates an empty history for a server that has a directory or a description of these addresses.
    pub(crate) fn of_boards(is_described: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            started: clock::now(),
            store: Arc::new(Mutex::new(Store::new(Described::new(is_described)))),
            counters: Counters::default(),
            subscribers: Subscribers::new(),
            journal: OnceLock::new(),
        }))
    }

    /// Starts to record finished requests in a directory, and to read those of earlier runs there, both on a thread of its own.
    pub(crate) fn start_journal(&self, directory: &Path) {
        match Journal::start(directory, self.0.store.clone()) {
            Ok(journal) => drop(self.0.journal.set(journal)),
            Err(error) => log::warn!("history {}: boots are not recorded: {error}", directory.display()),
        }
    }

    /// Waits until the finished requests are recorded. Returns `false` if that takes too long.
    pub(crate) async fn flush_journal(&self) -> bool {
        match self.0.journal.get() {
            Some(journal) => journal.flush().await,
            None => true,
        }
    }

    /// Returns the whole history, up to a few megabytes. Call it on a thread that may block.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.header();
        snapshot.clients = self.clients().collect();
        snapshot
    }

    /// Starts a JSON document with the header of the history, to which clients are added.
    pub(crate) fn document(&self) -> Document {
        Document::new(&self.header())
    }

    /// Returns a snapshot with an empty list of clients, in constant time.
    pub fn header(&self) -> Snapshot {
        let now = WallClock::now();
        Snapshot {
            now: now.to_unix(now.instant()),
            version: env!("CARGO_PKG_VERSION").into(),
            started: now.to_unix(self.0.started),
            totals: self.totals(),
            clients: vec![],
        }
    }

    /// Returns the totals since the start, in constant time.
    pub fn totals(&self) -> Totals {
        self.0.counters.totals()
    }

    /// Returns figures of requests and boots.
    pub fn metrics(&self) -> HistoryMetrics {
        let requests = self.0.counters.metrics();
        let mut store = self.store();
        let boots = store.count_ended_boots(clock::now());
        HistoryMetrics {
            file_sizes: requests.file_sizes.read(),
            first_data_local: requests.first_data_local.read(),
            first_data_disk: requests.first_data_disk.read(),
            boots: boots.totals(),
            boot_durations: boots.durations(),
        }
    }

    /// Returns whether boards that made requests are no longer in the history, because it was full.
    pub(crate) fn has_evicted(&self) -> bool {
        self.store().has_evicted()
    }

    /// Returns the number of clients in the history.
    pub fn client_count(&self) -> usize {
        self.store().client_count()
    }

    /// Subscribes to finished requests: each is sent as one line of JSON, an [`Event`](snapshot::Event).
    ///
    /// The channel is closed when the subscriber reads too slowly. Of requests whose client never answered, only some are sent
    /// each second, since anyone can send such requests. Returns `None` if there are too many subscribers already.
    pub fn subscribe(&self) -> Option<Receiver<Arc<str>>> {
        self.0.subscribers.subscribe()
    }

    /// Returns the number of subscribers.
    #[cfg(test)]
    pub(crate) fn subscriber_count(&self) -> usize {
        self.0.subscribers.count()
    }

    /// Records a TFTP request, and returns the handle that its outcome is reported to.
    pub(crate) fn record_request(&self, client: IpAddr, file_name: &[u8]) -> RequestRecord {
        self.record(client, Protocol::Tftp, file_name)
    }

    /// Records an HTTP request, and returns the handle that its outcome is reported to.
    pub(crate) fn record_http_request(&self, client: IpAddr, file_name: &[u8]) -> RequestRecord {
        self.record(client, Protocol::Http, file_name)
    }

    fn record(&self, client: IpAddr, protocol: Protocol, file_name: &[u8]) -> RequestRecord {
        self.0.counters.count_request();
        let record = self.store().record_request(client, protocol, file_name, clock::now());
        RequestRecord { history: self.clone(), client, record }
    }

    /// Records that a client has repeated a request that is being answered.
    pub(crate) fn record_copy(&self, client: IpAddr, file_name: &[u8]) {
        self.0.counters.count_copy();
        self.store().record_copy(client, file_name, clock::now());
    }

    /// Returns the clients: those with boots in detail, the most recently seen first, and then the others. Locks the store for one
    /// client at a time.
    pub(crate) fn clients(&self) -> impl Iterator<Item = Client> {
        let clients = self.store().clients();
        clients.into_iter().filter_map(|client| self.store().snapshot(client, WallClock::now()))
    }

    /// Returns a client, or `None` if it has made no request.
    pub(crate) fn client(&self, ip: IpAddr) -> Option<Client> {
        self.store().snapshot(ip, WallClock::now())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock()
    }
}

/// A handle to the record of a request that is being answered. Dropping it finishes the request as failed.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    history: History,
    client: IpAddr,
    record: Arc<Record>,
}

impl RequestRecord {
    /// Records the root in which the file was found, or could not be read.
    pub(crate) fn set_origin(&self, origin: impl fmt::Display) {
        self.record.set_origin(origin);
    }

    /// Records the title of the boot entry whose kernel the file is.
    pub(crate) fn set_boot_entry(&self, title: &str) {
        self.record.set_boot_entry(title);
    }

    /// Records that the file is open and its transfer starts.
    pub(crate) fn start_transfer(&self, start: TransferStart) {
        self.record.start_transfer(clock::now(), start);
    }

    /// Records a datagram from the client, and the progress of the transfer: bytes acknowledged and packets retransmitted.
    pub(crate) fn note_activity(&self, now: Instant, acknowledged: u64, retransmitted: u64) {
        self.record.note_activity(now);
        self.note_progress(now, acknowledged, retransmitted);
    }

    /// Records the progress of the transfer: bytes acknowledged and packets retransmitted.
    pub(crate) fn note_progress(&self, now: Instant, acknowledged: u64, retransmitted: u64) {
        if self.record.note_progress(now, acknowledged, retransmitted) {
            self.history.0.counters.metrics().first_data(&self.record, now);
        }
    }

    /// Returns the number of acknowledged bytes.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.record.acknowledged()
    }

    /// Returns the time of the boot's first request.
    pub(crate) fn boot_began(&self) -> Instant {
        self.record.boot_began()
    }

    /// Records what the disk has shown since the end of the request, which was for a file on it.
    /// Has no effect if more is known already.
    pub(crate) fn set_mount(&self, mount: Mount) {
        let (client, began) = (self.client, self.boot_began());
        if !self.history.store().set_mount(client, began, mount.clone()) {
            return;
        }
        let level = if mount.state == MountState::Unknown { log::Level::Debug } else { log::Level::Info };
        log::log!(level, "{client} after {}: {}", self.record.name(), mount.text);
        if let Some(journal) = self.history.0.journal.get() {
            journal.record_mount(client, began, mount);
        }
    }

    /// Returns what the disk has shown after the boot.
    #[cfg(test)]
    pub(crate) fn mount(&self) -> Option<Mount> {
        self.history.store().mount(self.client, self.boot_began())
    }

    /// Finishes the request of a client that never answered, if it is a copy of one whose file the client has received: the copy was
    /// sent while the server was busy, and arrived after the end of that transfer. It counts as failed, but not in its boot, which would
    /// seem to have failed. Returns `false` otherwise.
    pub(crate) fn finish_copy(&self) -> bool {
        let is_copy = !self.record.is_verified() && self.history.store().remove_copy(self.client, &self.record);
        if is_copy && self.record.finish(clock::now(), State::Failed, None) {
            let counters = &self.history.0.counters;
            counters.count_finished(State::Failed, &self.record);
            counters.count_copy();
        }
        is_copy
    }

    /// Finishes the request. Only the first call has an effect.
    pub(crate) fn finish(&self, state: State, reason: Option<&str>) {
        if !self.record.finish(clock::now(), state, reason) {
            return;
        }
        let Shared { counters, subscribers, journal, .. } = &*self.history.0;
        counters.count_finished(state, &self.record);
        subscribers.publish(self.record.is_verified(), || self.record.event(self.client, WallClock::now()));
        if let Some(journal) = journal.get() {
            journal.record(self.client, &self.record);
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.finish(State::Failed, Some("ended by the server"));
    }
}

#[cfg(test)]
mod tests;
