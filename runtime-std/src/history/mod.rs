//! The boot timeline: for each client what its last boots asked for, what they got, and where they stopped.

mod request;
pub mod snapshot;
mod store;
mod subscribers;
mod summary;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rtftp_core::{Instant, Sender};
use smol::channel::Receiver;

pub(crate) use self::request::Sending;
pub use self::summary::span;
use self::{
    request::File,
    snapshot::{Client, Snapshot, State, Totals, Wall},
    store::Record,
    subscribers::Followers,
};
use crate::{clock, files::store::Origin};

/// The record of a server's boots. Clones are the same record.
///
/// It is bounded, whoever sends what: the last four boots of at most a thousand clients, some 32,000 requests in all.
#[derive(Debug, Clone)]
pub struct Boots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    record: Mutex<Record>,
    counters: Counters,
    followers: Followers,
}

/// What [`Totals`] are made of.
#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    /// By [`State`], what has ended.
    ended: [AtomicU64; 6],
    bytes: AtomicU64,
    retransmitted: AtomicU64,
    copies: AtomicU64,
}

impl Boots {
    /// An empty record.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            started: clock::now(),
            record: Mutex::default(),
            counters: Counters::default(),
            followers: Followers::new(),
        }))
    }

    /// The whole record. It may be a few megabytes, and is not to be made where others wait for the thread.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.head();
        snapshot.clients = self.clients().collect();
        snapshot
    }

    /// The whole record as JSON, with a newline at the end, made client by client: the memory it takes is that of the text.
    pub fn json(&self) -> Vec<u8> {
        let head = serde_json::to_vec(&self.head()).unwrap_or_default();
        // Of the two brackets and the brace that it ends with, the list is between the first and the second.
        let mut json = head.strip_suffix(b"]}").unwrap_or_default().to_vec();
        for (nth, client) in self.clients().enumerate() {
            if nth > 0 {
                json.push(b',');
            }
            // Cannot fail: memory takes everything, and there is nothing in it that JSON has no form for.
            let _ = serde_json::to_writer(&mut json, &client);
        }
        json.extend_from_slice(b"]}\n");
        json
    }

    /// The numbers alone, which cost nothing to give.
    pub fn totals(&self) -> Totals {
        let Counters { requests, ended, bytes, retransmitted, copies } = &self.0.counters;
        let ended = |state: State| ended[state as usize].load(Relaxed);
        let over = [State::Complete, State::Probe, State::Missing, State::Refused, State::Failed].map(ended);
        let requests = requests.load(Relaxed);
        Totals {
            requests,
            complete: ended(State::Complete),
            probes: ended(State::Probe),
            missing: ended(State::Missing),
            refused: ended(State::Refused),
            failed: ended(State::Failed),
            bytes: bytes.load(Relaxed),
            retransmitted: retransmitted.load(Relaxed),
            copies: copies.load(Relaxed),
            running: requests.saturating_sub(over.iter().sum()),
        }
    }

    /// How many clients there are in the record.
    pub fn known(&self) -> usize {
        self.record().known()
    }

    /// From now on, an [`Event`](snapshot::Event) as a line of JSON for every request that is over. The channel is closed when it
    /// is not emptied in time; `None` when too many follow already. Of requests whose client never answered, which anybody can
    /// send, it tells no more than some a second.
    pub fn follow(&self) -> Option<Receiver<Arc<str>>> {
        self.0.followers.follow()
    }

    /// How many follow.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        self.0.followers.count()
    }

    /// Notes a request, which is over when the entry is dropped at the latest.
    pub(crate) fn asked(&self, client: IpAddr, name: &[u8]) -> Entry {
        self.0.counters.requests.fetch_add(1, Relaxed);
        let file = self.record().asked(client, name, clock::now());
        Entry { boots: self.clone(), client, file }
    }

    /// Notes that a client has repeated the request that is being answered.
    pub(crate) fn repeated(&self, client: IpAddr, name: &[u8]) {
        self.0.counters.copies.fetch_add(1, Relaxed);
        self.record().repeated(client, name, clock::now());
    }

    /// A snapshot without its clients, which costs nothing to make.
    pub fn head(&self) -> Snapshot {
        let wall = Wall::now();
        Snapshot {
            now: wall.of(wall.instant()),
            version: env!("CARGO_PKG_VERSION").into(),
            started: wall.of(self.0.started),
            totals: self.totals(),
            clients: vec![],
        }
    }

    /// The clients, the one heard last first. The record is locked for one at a time.
    fn clients(&self) -> impl Iterator<Item = Client> {
        let clients = self.record().clients();
        clients.into_iter().filter_map(|client| self.record().snapshot(client, Wall::now()))
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Entry {
    boots: Boots,
    client: IpAddr,
    file: Arc<File>,
}

impl Entry {
    /// Which root the file is from, or which one it is not to be had of.
    pub(crate) fn from(&self, origin: Origin) {
        self.file.from(origin);
    }

    /// The file is open and is being sent.
    pub(crate) fn sent_as(&self, sending: Sending) {
        self.file.sent_as(clock::now(), sending);
    }

    /// A datagram of the client has been taken in.
    pub(crate) fn heard(&self, now: Instant, sender: &Sender) {
        self.file.heard(now);
        self.reached(now, sender);
    }

    /// How far the transfer is.
    pub(crate) fn reached(&self, now: Instant, sender: &Sender) {
        self.file.reached(now, sender.acknowledged(), sender.retransmitted());
    }

    /// It is over. A request ends once: of several ends the first counts.
    pub(crate) fn end(&self, state: State, why: Option<&str>) {
        if !self.file.end(clock::now(), state, why) {
            return;
        }
        let Shared { counters, followers, .. } = &*self.boots.0;
        let (bytes, retransmitted) = self.file.sent();
        counters.ended[state as usize].fetch_add(1, Relaxed);
        counters.bytes.fetch_add(bytes, Relaxed);
        counters.retransmitted.fetch_add(retransmitted, Relaxed);
        followers.tell(self.file.last_heard().is_some(), || self.file.event(self.client, Wall::now()));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(State::Failed, Some("ended by the server"));
    }
}

#[cfg(test)]
mod tests;
