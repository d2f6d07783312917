//! All boards of this server and its peers, as the page shows them.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_runtime::{history::snapshot::Client, monitor::Monitor};
use serde::Serialize;
use smol::{lock::Mutex, unblock};

use super::{peers::Peers, rows::Rows};
use crate::{advice::advice, status::View};

/// The maximum age of the view, which is shared by all connections.
const MAX_AGE: Duration = Duration::from_millis(900);

/// The boards of this server and its peers.
#[derive(Debug)]
pub(super) struct Fleet {
    monitor: Monitor,
    peers: Arc<Peers>,
    last: Mutex<Last>,
}

/// The boards as they were last seen.
#[derive(Debug, Default)]
struct Last {
    created: Option<Instant>,
    state: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    view: View,
    rows: Rows,
}

impl Fleet {
    pub(super) fn new(monitor: Monitor, peers: Arc<Peers>) -> Self {
        Self { monitor, peers, last: Mutex::default() }
    }

    /// Returns what changed since a version as one line of JSON, and the present version.
    pub(super) async fn changes(&self, version: Option<u64>) -> (String, u64) {
        let shown = self.shown().await;
        let changes = shown.rows.since(version);
        let json = format!(
            r#"{{"now":{},"complete":{},"silent":{},"servers":{},"removed":{},"boards":[{}]}}"#,
            json(&shown.view.now),
            changes.is_complete,
            json(&advice("no request yet").filter(|_| changes.is_complete)),
            json(&shown.view.servers),
            json(&changes.removed),
            changes.rows.join(",")
        );
        (json, changes.version)
    }

    /// Returns a board with its boots as one line of JSON, and what the guide says about its last message. Returns `None` if there is
    /// no such board.
    pub(super) async fn board(&self, client: &str) -> Option<String> {
        #[derive(Serialize)]
        struct Board<'b> {
            now: f64,
            version: &'static str,
            board: &'b Client,
            advice: Option<&'static str>,
        }
        let shown = self.shown().await;
        let board = shown.view.find(client)?;
        let version = env!("CARGO_PKG_VERSION");
        Some(json(&Board { now: shown.view.now, version, board, advice: advice(&board.status) }))
    }

    /// Returns the boards as they are now, at most [`MAX_AGE`] old.
    async fn shown(&self) -> Arc<Shown> {
        let mut last = self.last.lock().await;
        if last.created.is_some_and(|created| created.elapsed() < MAX_AGE) {
            return last.state.clone();
        }
        let snapshot = self.monitor.snapshot().await;
        let (peers, previous) = (self.peers.clone(), mem::take(&mut last.state));
        let state = unblock(move || {
            let view = peers.merged(snapshot);
            // A connection that still sends from it has a handle.
            let mut rows = Arc::try_unwrap(previous).map_or_else(|shown| shown.rows.clone(), |shown| shown.rows);
            rows.update(&view.clients);
            Arc::new(Shown { view, rows })
        });
        last.state = state.await;
        last.created = Some(Instant::now());
        last.state.clone()
    }
}

/// Returns a value as JSON.
fn json(value: &impl Serialize) -> String {
    // Cannot fail: every field has a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}
