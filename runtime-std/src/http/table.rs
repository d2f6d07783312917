//! The table of open connections, with its limits.
//!
//! At a limit, a new connection replaces the one that has made no progress for the longest time: it waits for a request, has an
//! incomplete one, or its client does not read. So nobody can occupy all places by doing nothing.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::channel::{Receiver, Sender, bounded};

use crate::network::network;

/// The time without progress after which a connection may be replaced.
const MIN_IDLE: Duration = Duration::from_millis(500);

/// The limits on the number of connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of all clients.
    pub(super) total: usize,
    /// Of one client: an IPv4 address, or the first 64 bits of an IPv6 address.
    pub(super) per_client: usize,
}

/// The open connections. A clone is a handle to the same table.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// By number, in the order in which they were opened.
    entries: BTreeMap<u64, Entry>,
    /// The number of connections opened so far.
    opened: u64,
}

/// A connection. Removing it from the table closes the connection.
#[derive(Debug)]
struct Entry {
    client: IpAddr,
    /// The time of the last progress.
    progress: Instant,
    _stop: Sender<()>,
}

/// The place of a connection in the table.
#[derive(Debug)]
pub(super) struct Place {
    table: Connections,
    number: u64,
    stopped: Receiver<()>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Adds a connection; replaces another one if necessary. Returns `None` if all of them are making progress.
    pub(super) fn add(&self, client: IpAddr) -> Option<Place> {
        let client = network(client);
        let mut open = self.open.lock();
        let entries = &mut open.entries;
        let count = entries.values().filter(|entry| entry.client == client).count();
        if count >= self.limits.per_client {
            remove_idle(entries, |entry| entry.client == client)?;
        } else if entries.len() >= self.limits.total {
            remove_idle(entries, |_| true)?;
        }
        open.opened += 1;
        let (number, (stop, stopped)) = (open.opened, bounded(1));
        open.entries.insert(number, Entry { client, progress: Instant::now(), _stop: stop });
        Some(Place { table: self.clone(), number, stopped })
    }

    /// Returns whether no connection is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.lock().entries.is_empty()
    }

    /// Closes all connections that make no progress.
    pub(super) fn close_idle(&self) {
        self.open.lock().entries.retain(|_, entry| !is_idle(entry));
    }
}

impl Place {
    /// Completes when the connection must be closed.
    pub(super) async fn stopped(&self) {
        // Nothing is sent: the channel is closed.
        let _ = self.stopped.recv().await;
    }

    /// Records progress.
    pub(super) fn note_progress(&self) {
        if let Some(entry) = self.table.open.lock().entries.get_mut(&self.number) {
            entry.progress = Instant::now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.open.lock().entries.remove(&self.number);
    }
}

fn is_idle(entry: &Entry) -> bool {
    entry.progress.elapsed() >= MIN_IDLE
}

/// Removes the candidate that has made no progress for the longest time. Returns `None` if there is none.
fn remove_idle(entries: &mut BTreeMap<u64, Entry>, is_candidate: impl Fn(&Entry) -> bool) -> Option<Entry> {
    let candidates = entries.iter().filter(|(_, entry)| is_candidate(entry) && is_idle(entry));
    let number = *candidates.min_by_key(|(_, entry)| entry.progress)?.0;
    entries.remove(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(total: usize, per_client: usize) -> Connections {
        Connections::new(Limits { total, per_client })
    }

    fn client(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Lets the time pass after which a connection is idle.
    fn age(table: &Connections) {
        for entry in table.open.lock().entries.values_mut() {
            entry.progress -= 2 * MIN_IDLE;
        }
    }

    #[test]
    fn replaces_the_connection_without_progress_for_the_longest_time() {
        let table = table(2, 2);
        let first = table.add(client("10.0.0.1")).expect("a place");
        let second = table.add(client("10.0.0.2")).expect("a place");
        assert!(table.add(client("10.0.0.3")).is_none(), "both make progress");
        age(&table);
        first.note_progress();
        age(&table);
        let third = table.add(client("10.0.0.3")).expect("a place");
        assert_eq!((first.stopped.is_closed(), second.stopped.is_closed()), (false, true));
        drop(second);
        assert_eq!(table.open.lock().entries.len(), 2, "the place of a replaced connection is not its own any more");
        drop((first, third));
        assert!(table.is_empty());
    }

    #[test]
    fn limits_each_client() {
        let table = table(9, 2);
        for (same, other) in
            [("10.0.0.1", "10.0.0.2"), ("::ffff:10.0.0.3", "10.0.0.4"), ("2001:db8::1", "2001:db8:0:1::1")]
        {
            let places = [same, same].map(|ip| table.add(client(ip)).expect("a place"));
            assert!(table.add(client(same)).is_none());
            assert!(table.add(client(other)).is_some(), "another client has places of its own");
            age(&table);
            let _replacing = table.add(client(same)).expect("the place of an idle connection");
            assert!(places[0].stopped.is_closed());
        }
        let _first = table.add(client("2001:db8:0:2::1")).expect("a place");
        let _second = table.add(client("2001:db8:0:2:9::")).expect("a place");
        assert!(table.add(client("2001:db8:0:2:7::")).is_none(), "a network of 64 bits counts as one client");
    }

    #[test]
    fn closes_idle_connections() {
        let table = table(2, 2);
        let [idle, busy] = [1, 2].map(|_| table.add(client("10.0.0.1")).expect("a place"));
        age(&table);
        busy.note_progress();
        table.close_idle();
        assert_eq!((idle.stopped.is_closed(), busy.stopped.is_closed()), (true, false));
    }
}
