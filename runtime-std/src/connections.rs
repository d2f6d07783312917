//! The open connections of a server: limited in number, and none of them can keep others out.
//!
//! A connection is busy while it serves a request. At a limit, a new connection replaces one that is not busy, or that is but has
//! made no progress for a while, because its client does not read. So nobody can occupy all places by doing nothing.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use smol::channel::{Receiver, Sender, bounded};

/// The time without progress after which a busy connection may be replaced.
const MIN_STALL: Duration = Duration::from_millis(500);

/// A limit on the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The limit for all peers.
    Total,
    /// The limit for each peer.
    PerPeer,
}

/// The open connections, each with its peer. A clone is a handle to the same ones.
#[derive(Debug)]
pub struct Connections<P> {
    total: usize,
    per_peer: usize,
    open: Arc<Mutex<Open<P>>>,
}

#[derive(Debug)]
struct Open<P> {
    /// By number, in the order in which they were opened.
    entries: BTreeMap<u64, Entry<P>>,
    /// The number of each peer's connections.
    counts: BTreeMap<P, usize>,
    /// The number of connections opened so far.
    opened: u64,
}

/// A connection. Removing it closes the connection.
#[derive(Debug)]
struct Entry<P> {
    peer: P,
    is_busy: bool,
    /// The time of the last progress.
    progress: Instant,
    _stop: Sender<()>,
}

/// The place of a connection. Dropping it frees the place.
#[derive(Debug)]
pub struct Place<P: Ord> {
    open: Arc<Mutex<Open<P>>>,
    number: u64,
    stopped: Receiver<()>,
}

impl<P: Clone + Ord> Connections<P> {
    /// Limits the number of connections, and the number of those from the same peer.
    pub fn new(total: usize, per_peer: usize) -> Self {
        Self {
            total,
            per_peer,
            open: Arc::new(Mutex::new(Open { entries: BTreeMap::new(), counts: BTreeMap::new(), opened: 0 })),
        }
    }

    /// Adds a connection. At the limit for its peer, replaces the connection of this peer without progress for the longest time; at
    /// the limit for all, one of the peer with the most connections. Returns no place if all of them are making progress, and the
    /// limit that was reached.
    pub fn add(&self, peer: P) -> (Option<Place<P>>, Option<Limit>) {
        let mut open = self.open.lock();
        let limit = if open.count(&peer) >= self.per_peer {
            Some(Limit::PerPeer)
        } else if open.entries.len() >= self.total {
            Some(Limit::Total)
        } else {
            None
        };
        let replaced = match limit {
            None => None,
            Some(Limit::PerPeer) => open.longest_idle(|other| usize::from(*other == peer)),
            Some(Limit::Total) => open.longest_idle(|other| open.count(other)),
        };
        match (limit, replaced) {
            (None, _) => {}
            (Some(_), Some(number)) => open.remove(number),
            (Some(_), None) => return (None, limit),
        }
        open.opened += 1;
        let (number, (stop, stopped)) = (open.opened, bounded(1));
        *open.counts.entry(peer.clone()).or_default() += 1;
        open.entries.insert(number, Entry { peer, is_busy: false, progress: Instant::now(), _stop: stop });
        (Some(Place { open: self.open.clone(), number, stopped }), limit)
    }

    /// Returns whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of open connections.
    pub fn len(&self) -> usize {
        self.open.lock().entries.len()
    }

    /// Closes all connections that wait for a request. Those that serve one may go on, however slowly.
    pub fn close_idle(&self) {
        let mut open = self.open.lock();
        let idle = open.entries.iter().filter(|(_, entry)| !entry.is_busy).map(|(number, _)| *number);
        idle.collect::<Vec<_>>().into_iter().for_each(|number| open.remove(number));
    }
}

impl<P> Clone for Connections<P> {
    fn clone(&self) -> Self {
        Self { total: self.total, per_peer: self.per_peer, open: self.open.clone() }
    }
}

impl<P: Ord> Open<P> {
    /// Returns the number of connections of a peer.
    fn count(&self, peer: &P) -> usize {
        self.counts.get(peer).copied().unwrap_or(0)
    }

    fn remove(&mut self, number: u64) {
        let Some(Entry { peer, .. }) = self.entries.remove(&number) else { return };
        if let Some(count) = self.counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&peer);
            }
        }
    }

    /// Returns the number of the idle connection whose peer has the highest rank, without progress for the longest time. Rank 0 is
    /// left out.
    fn longest_idle(&self, rank: impl Fn(&P) -> usize) -> Option<u64> {
        let now = Instant::now();
        let idle = self.entries.iter().filter(|(_, entry)| entry.is_idle(now));
        let ranked = idle.map(|(number, entry)| (rank(&entry.peer), Reverse(entry.progress), Reverse(*number)));
        let first = ranked.filter(|(rank, ..)| *rank > 0).max();
        first.map(|(.., Reverse(number))| number)
    }
}

impl<P: Ord> Place<P> {
    /// Completes when the connection must be closed.
    pub async fn stopped(&self) {
        // Nothing is sent: the channel is closed.
        let _ = self.stopped.recv().await;
    }

    /// Records that the connection serves a request from now on, or waits for one.
    pub fn set_busy(&self, is_busy: bool) {
        self.update(|entry| entry.is_busy = is_busy);
    }

    /// Records progress.
    pub fn note_progress(&self) {
        self.update(|_| ());
    }

    fn update(&self, update: impl FnOnce(&mut Entry<P>)) {
        if let Some(entry) = self.open.lock().entries.get_mut(&self.number) {
            entry.progress = Instant::now();
            update(entry);
        }
    }
}

impl<P: Ord> Drop for Place<P> {
    fn drop(&mut self) {
        self.open.lock().remove(self.number);
    }
}

impl<P> Entry<P> {
    /// Returns whether another connection may replace it.
    fn is_idle(&self, now: Instant) -> bool {
        !self.is_busy || now.saturating_duration_since(self.progress) >= MIN_STALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the time pass after which a busy connection may be replaced.
    fn age<P>(connections: &Connections<P>) {
        for entry in connections.open.lock().entries.values_mut() {
            entry.progress -= 2 * MIN_STALL;
        }
    }

    /// Adds connections of these peers, at most 4 of each and 6 in all, and returns the indices of those that stay open.
    fn open(peers: &str) -> Vec<usize> {
        let connections = Connections::new(6, 4);
        let places: Vec<_> = peers.chars().map(|peer| connections.add(peer).0.expect("a place")).collect();
        (0..places.len()).filter(|&index| !places[index].stopped.is_closed()).collect()
    }

    #[test]
    fn a_peer_at_its_limit_replaces_its_oldest_connection() {
        assert_eq!(open("xaaaa"), [0, 1, 2, 3, 4]);
        assert_eq!(open("xaaaaaa"), [0, 3, 4, 5, 6]);
    }

    #[test]
    fn a_full_table_replaces_the_oldest_connection_of_the_peer_with_the_most() {
        assert_eq!(open("xaaaab"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(open("xaaaabc"), [0, 2, 3, 4, 5, 6]);
        assert_eq!(open("abcdefg"), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn finished_connections_do_not_count() {
        let connections = Connections::new(2, 2);
        let lasting = connections.add('a').0.expect("a place");
        for _ in 0..10 {
            assert_eq!(connections.add('a').1, None);
        }
        assert!(!lasting.stopped.is_closed());
        drop(lasting);
        assert!(connections.is_empty());
    }

    #[test]
    fn busy_connections_are_replaced_only_without_progress() {
        let connections = Connections::new(2, 2);
        let [first, second] = ['a', 'b'].map(|peer| connections.add(peer).0.expect("a place"));
        first.set_busy(true);
        second.set_busy(true);
        let (place, limit) = connections.add('c');
        assert!(place.is_none(), "both make progress");
        assert_eq!(limit, Some(Limit::Total));
        age(&connections);
        first.note_progress();
        let third = connections.add('c').0.expect("the place of the second one");
        assert_eq!((first.stopped.is_closed(), second.stopped.is_closed()), (false, true));
        drop(second);
        assert_eq!(
            connections.open.lock().entries.len(),
            2,
            "the place of a replaced connection is not its own any more"
        );
        drop((first, third));
        assert!(connections.is_empty());
    }

    #[test]
    fn closes_idle_connections() {
        let connections = Connections::new(2, 2);
        let [idle, busy] = [1, 2].map(|_| connections.add('a').0.expect("a place"));
        busy.set_busy(true);
        age(&connections);
        connections.close_idle();
        assert_eq!((idle.stopped.is_closed(), busy.stopped.is_closed()), (true, false));
    }
}
