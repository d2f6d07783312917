//! All boards of this server and its peers, as the page shows them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_runtime::{history::snapshot::Client, monitor::Monitor};
use serde::Serialize;
use smol::{lock::Mutex, unblock};

use super::{
    peers::Peers,
    rows::{Cursor, Rows},
};
use crate::{advice::advice, status::View};

/// The maximum age of the view, which is shared by all connections.
const MAX_AGE: Duration = Duration::from_millis(900);

/// The time between two views is at least this multiple of what the last one took: viewers need at most a third of a processor.
const PAUSE: u32 = 2;

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
    /// The time that this took.
    duration: Duration,
    /// The version of the rows.
    version: u64,
    /// `None` after the connection that was creating it has ended.
    shown: Option<Arc<Shown>>,
}

#[derive(Debug)]
struct Shown {
    rows: Rows,
    /// The servers with all merged boards, or without the boards if there are no peers.
    view: View,
}

impl Fleet {
    pub(super) fn new(monitor: Monitor, peers: Arc<Peers>) -> Self {
        Self { monitor, peers, last: Mutex::default() }
    }

    /// Returns what a reader does not have yet as one line of JSON.
    pub(super) async fn changes(&self, cursor: &mut Cursor) -> String {
        let shown = self.shown().await;
        let changes = shown.rows.next(cursor);
        format!(
            r#"{{"now":{},"complete":{},"more":{},"silent":{},"servers":{},"removed":{},"boards":[{}]}}"#,
            json(&shown.view.now),
            changes.is_complete,
            changes.has_more,
            json(&advice("no request yet").filter(|_| changes.is_complete)),
            json(&shown.view.servers),
            json(&changes.removed),
            changes.rows.join(",")
        )
    }

    /// Returns a board with its boots as one line of JSON, and what the guide says about its last message. Returns `None` if there is
    /// no such board.
    pub(super) async fn board(&self, client: &str) -> Option<String> {
        if self.peers.is_empty() {
            let (now, board) = self.monitor.board(client).await?;
            return Some(details(now, &board));
        }
        let shown = self.shown().await;
        shown.view.find(client).map(|board| details(shown.view.now, board))
    }

    /// Returns the boards as they are now, at most [`MAX_AGE`] old.
    async fn shown(&self) -> Arc<Shown> {
        let mut last = self.last.lock().await;
        let max_age = MAX_AGE.max(PAUSE * last.duration);
        if let Some(shown) = last.shown.as_ref().filter(|_| last.created.is_some_and(|at| at.elapsed() < max_age)) {
            return shown.clone();
        }
        let started = Instant::now();
        let mut rows = match last.shown.take().map(Arc::try_unwrap) {
            Some(Ok(shown)) => shown.rows,
            // A connection still sends from it.
            Some(Err(shown)) => shown.rows.clone(),
            None => Rows::after(last.version),
        };
        last.version = rows.version();
        rows.start();
        let (mut rows, view) = if self.peers.is_empty() {
            // One board at a time.
            let (header, rows) = self.monitor.fold(rows, |rows, board| rows.add(board)).await;
            (rows, View::from(header))
        } else {
            let (peers, snapshot) = (self.peers.clone(), self.monitor.snapshot().await);
            let merge = move || {
                let view = peers.merged(snapshot);
                view.clients.iter().for_each(|board| rows.add(board));
                (rows, view)
            };
            unblock(merge).await
        };
        rows.finish();
        let shown = Arc::new(Shown { rows, view });
        (last.created, last.duration) = (Some(Instant::now()), started.elapsed());
        (last.version, last.shown) = (shown.rows.version(), Some(shown.clone()));
        shown
    }
}

/// Returns a board and what the guide says about its last message as JSON.
fn details(now: f64, board: &Client) -> String {
    #[derive(Serialize)]
    struct Board<'b> {
        now: f64,
        version: &'static str,
        board: &'b Client,
        advice: Option<&'static str>,
    }
    json(&Board { now, version: env!("CARGO_PKG_VERSION"), board, advice: advice(&board.status) })
}

/// Returns a value as JSON.
fn json(value: &impl Serialize) -> String {
    // Cannot fail: every field has a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}
