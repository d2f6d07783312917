//! The other servers of `--status-peer`: their boards are on the page, too. What they reply is not trusted.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rtftp_runtime::{history::snapshot::Snapshot, text::printable};
use smol::{Executor, Timer, block_on, unblock};

use crate::status::{Server, View, merge, snapshot};

/// The time between two requests to a peer.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time without a viewer of the page after which peers are no longer requested.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// The other servers, each with its last reply.
#[derive(Debug)]
pub(super) struct Peers {
    /// The name of this server.
    name: String,
    peers: Vec<Arc<Peer>>,
    /// The time at which the page was last needed.
    needed: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Peer {
    server: Server,
    /// The last reply, or why there is none.
    reply: Mutex<Result<Snapshot, String>>,
}

impl Peers {
    pub(super) fn new(name: String, servers: Vec<Server>) -> Self {
        let peer = |server| Arc::new(Peer { server, reply: Mutex::new(Err("no reply yet".into())) });
        Self { name, peers: servers.into_iter().map(peer).collect(), needed: Mutex::default() }
    }

    /// Starts a task for each peer, which never ends. The page does not wait for them.
    pub(super) fn start(self: &Arc<Self>, executor: &Executor<'static>) {
        for peer in &self.peers {
            let (peers, peer) = (self.clone(), peer.clone());
            executor.spawn(async move { peer.follow(&peers).await }).detach();
        }
    }

    /// Returns whether there are no other servers.
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Merges the last replies of the peers into the boards of this server. Takes some milliseconds.
    pub(super) fn merged(&self, own: Snapshot) -> View {
        *self.needed.lock() = Some(Instant::now());
        let replies =
            self.peers.iter().map(|peer| (printable(peer.server.name().as_bytes()), peer.reply.lock().clone()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        merge(now, [(self.name.clone(), Ok(own))].into_iter().chain(replies))
    }

    fn are_needed(&self) -> bool {
        self.needed.lock().is_some_and(|needed| needed.elapsed() < MAX_IDLE)
    }
}

impl Peer {
    /// Requests the state of the peer again and again while somebody views the page.
    async fn follow(&self, peers: &Peers) {
        loop {
            let started = Instant::now();
            if peers.are_needed() {
                let server = self.server.clone();
                // On another thread: a reply may have megabytes of JSON. It is limited in size and time.
                let reply = unblock(move || block_on(snapshot(&server))).await;
                *self.reply.lock() = reply;
            }
            // A peer with thousands of boards needs time to reply.
            Timer::after(INTERVAL.max(2 * started.elapsed())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_a_reply_is_named_with_the_reason() {
        let own = || Snapshot {
            now: 1000.0,
            version: "1.2.3".into(),
            started: 0.0,
            totals: Default::default(),
            clients: vec![],
        };
        let peers = Peers::new("nas1".into(), vec!["nas2:8080".parse().expect("an address")]);
        let view = peers.merged(own());
        let json = serde_json::to_string(&view.servers).expect("JSON");
        assert!(json.starts_with(r#"[{"server":"nas1","version":"1.2.3","#), "{json}");
        assert!(json.ends_with(r#"{"server":"nas2:8080","error":"no reply yet"}]"#), "{json}");
    }
}
