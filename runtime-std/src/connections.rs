//! The open connections of a small server: limited in number, and none of them can keep others out.

use std::collections::VecDeque;

use smol::Task;

/// The tasks that serve connections, the oldest first. A new connection is always accepted: at a limit, it replaces an older one.
/// Dropping this leaves the connections open.
#[derive(Debug)]
pub struct Connections<P> {
    open: VecDeque<(P, Task<()>)>,
    max: usize,
    max_per_peer: usize,
}

impl<P: PartialEq> Connections<P> {
    /// Limits the number of connections, and the number of those from the same peer.
    pub fn new(max: usize, max_per_peer: usize) -> Self {
        Self { open: VecDeque::new(), max, max_per_peer }
    }

    /// Adds a connection, which the task serves. At the limit for its peer, closes the oldest connection of this peer; at the limit
    /// for all, the oldest connection of the peer with the most.
    pub fn add(&mut self, peer: P, task: Task<()>) {
        self.open.retain(|(_, task)| !task.is_finished());
        if let Some(oldest) = self.to_close(&peer) {
            // Dropping the task cancels it.
            drop(self.open.remove(oldest));
        }
        self.open.push_back((peer, task));
    }

    /// Returns the index of the connection that a new one of this peer replaces.
    fn to_close(&self, peer: &P) -> Option<usize> {
        let count = |peer: &P| self.open.iter().filter(|(other, _)| other == peer).count();
        if count(peer) >= self.max_per_peer {
            return self.open.iter().position(|(other, _)| other == peer);
        }
        // The last of equal maxima is chosen, thus the first in reverse order.
        let by_count = || (0..self.open.len()).rev().max_by_key(|&index| count(&self.open[index].0));
        if self.open.len() >= self.max { by_count() } else { None }
    }
}

impl<P> Drop for Connections<P> {
    fn drop(&mut self) {
        self.open.drain(..).for_each(|(_, task)| task.detach());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::{Executor, future};

    use super::*;

    /// Adds connections of these peers, and returns the numbers of those that stay open.
    fn open(peers: &str) -> Vec<usize> {
        let executor = Executor::new();
        let mut connections = Connections::new(6, 4);
        let served: Vec<Arc<()>> = peers.chars().map(|_| Arc::default()).collect();
        for (peer, served) in peers.chars().zip(&served) {
            let served = served.clone();
            let serve = async move {
                future::pending::<()>().await;
                drop(served);
            };
            connections.add(peer, executor.spawn(serve));
        }
        while executor.try_tick() {}
        (0..served.len()).filter(|&index| Arc::strong_count(&served[index]) > 1).collect()
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
        let executor = Executor::new();
        let mut connections = Connections::new(2, 2);
        let lasting = Arc::new(());
        let kept = lasting.clone();
        let serve = async move {
            future::pending::<()>().await;
            drop(kept);
        };
        connections.add('a', executor.spawn(serve));
        for _ in 0..10 {
            connections.add('a', executor.spawn(async {}));
            while executor.try_tick() {}
        }
        assert_eq!(Arc::strong_count(&lasting), 2, "the oldest connection is open");
        drop(connections);
        while executor.try_tick() {}
        assert_eq!(Arc::strong_count(&lasting), 2, "it is left open");
    }
}
