//! The rows of the page: a line for each board, with the version at which it changed.

use std::collections::{BTreeMap, HashSet, VecDeque};

use rtftp_runtime::history::snapshot::{BoardState, Client, DiskStatus, State};
use serde::Serialize;
use serde_json::json;

use crate::advice::advice;

/// The number of removed rows that are remembered.
const MAX_REMOVED: usize = 1024;

/// The line of a board: what changes only when something happens.
#[derive(Debug, Serialize)]
struct Row<'c> {
    client: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'c str>,
    state: BoardState,
    status: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<DiskStatus>,
    /// The start of the last boot, and the last packet of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    began: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<f64>,
    /// The root and the server of the newest file of the last boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'c str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    running: Vec<Transfer<'c>>,
}

/// A running transfer.
#[derive(Debug, Serialize)]
struct Transfer<'c> {
    name: &'c str,
    began: f64,
    size: Option<u64>,
    acknowledged: u64,
    /// Whether the file is open.
    open: bool,
}

impl<'c> Row<'c> {
    fn new(board: &'c Client) -> Self {
        let boot = board.boots.first();
        let newest = boot.and_then(|boot| boot.files.last());
        let files = board.boots.iter().flat_map(|boot| &boot.files).filter(|file| file.state == State::Running);
        let running = files.map(|file| Transfer {
            name: &file.name,
            began: file.began,
            size: file.size,
            acknowledged: file.acknowledged,
            open: file.blksize > 0,
        });
        Self {
            client: &board.client,
            name: board.name.as_deref(),
            state: board.state,
            status: &board.status,
            disk: board.disk,
            began: boot.map(|boot| boot.began),
            last: boot.map(|boot| boot.last),
            origin: newest.and_then(|file| file.origin.as_deref()),
            server: newest.and_then(|file| file.server.as_deref()),
            running: running.collect(),
        }
    }
}

/// The last field of a row, which depends on the others.
const ADVICE: &str = ",\"advice\":";

/// Adds what to do about a problem to a row. That for boards without a request is in the event.
fn with_advice(board: &Client, row: &str) -> String {
    let has_advice = board.state.is_problem() && board.state != BoardState::Silent;
    match (advice(&board.status).filter(|_| has_advice), row.strip_suffix('}')) {
        (Some(advice), Some(fields)) => format!("{fields}{ADVICE}{}}}", json!(advice)),
        _ => row.to_owned(),
    }
}

/// Returns whether a row with advice still has these fields.
fn is_unchanged(known: &str, row: &str) -> bool {
    let rest = row.strip_suffix('}').and_then(|fields| known.strip_prefix(fields));
    rest.is_some_and(|rest| rest == "}" || rest.starts_with(ADVICE))
}

/// The rows of all boards as JSON. Each change has a version, so that a reader needs to get only what changed since its last one.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    version: u64,
    rows: BTreeMap<String, Versioned>,
    /// The boards that were removed, with the version of their removal.
    removed: VecDeque<(u64, String)>,
    /// The version since which `removed` is complete.
    complete_since: u64,
}

#[derive(Debug, Clone)]
struct Versioned {
    json: String,
    changed: u64,
}

/// What changed since a version.
#[derive(Debug)]
pub(super) struct Changes<'r> {
    /// The present version.
    pub(super) version: u64,
    /// Whether the reader must forget all rows that it has: all of them are in `rows`.
    pub(super) is_complete: bool,
    /// The rows, as JSON.
    pub(super) rows: Vec<&'r str>,
    pub(super) removed: Vec<&'r str>,
}

impl Rows {
    /// Compares the rows with the present state of the boards.
    pub(super) fn update(&mut self, boards: &[Client]) {
        self.version += 1;
        let version = self.version;
        for board in boards {
            // Cannot fail: every field has a JSON form.
            let json = serde_json::to_string(&Row::new(board)).unwrap_or_default();
            let new = || Versioned { json: with_advice(board, &json), changed: version };
            match self.rows.get_mut(&board.client) {
                Some(row) if is_unchanged(&row.json, &json) => {}
                Some(row) => *row = new(),
                None => drop(self.rows.insert(board.client.clone(), new())),
            }
        }
        let present: HashSet<&str> = boards.iter().map(|board| board.client.as_str()).collect();
        let removed = &mut self.removed;
        self.rows.retain(|client, _| {
            let is_present = present.contains(client.as_str());
            if !is_present {
                removed.push_back((version, client.clone()));
            }
            is_present
        });
        while self.removed.len() > MAX_REMOVED {
            self.complete_since = self.removed.pop_front().map_or(version, |(version, _)| version);
        }
    }

    /// Returns what changed since a version, or everything without one.
    pub(super) fn since(&self, version: Option<u64>) -> Changes<'_> {
        let known = version.filter(|version| *version >= self.complete_since);
        let is_new = |changed: u64| known.is_none_or(|known| changed > known);
        let rows = self.rows.values().filter(|row| is_new(row.changed)).map(|row| row.json.as_str());
        let removed = self.removed.iter().filter(|(version, _)| known.is_some() && is_new(*version));
        Changes {
            version: self.version,
            is_complete: known.is_none(),
            rows: rows.collect(),
            removed: removed.map(|(_, client)| client.as_str()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(client: &str, status: &str) -> Client {
        Client {
            client: client.into(),
            name: None,
            state: BoardState::Silent,
            status: status.into(),
            summary: String::new(),
            disk: None,
            boots: vec![],
            log: vec![],
        }
    }

    /// Returns the changed and the removed boards.
    fn changes(rows: &Rows, version: Option<u64>) -> (bool, Vec<String>, Vec<String>) {
        let Changes { is_complete, rows, removed, .. } = rows.since(version);
        let client = |json: &&str| serde_json::from_str::<serde_json::Value>(json).expect("JSON")["client"].to_string();
        (is_complete, rows.iter().map(client).collect(), removed.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn a_reader_gets_only_what_changed() {
        let mut rows = Rows::default();
        rows.update(&[board("a", "1"), board("b", "1")]);
        assert_eq!(changes(&rows, None), (true, vec!["\"a\"".into(), "\"b\"".into()], vec![]));
        let first = rows.since(None).version;
        rows.update(&[board("b", "1"), board("a", "1")]);
        assert_eq!(changes(&rows, Some(first)), (false, vec![], vec![]));
        rows.update(&[board("b", "2"), board("c", "1")]);
        assert_eq!(changes(&rows, Some(first)), (false, vec!["\"b\"".into(), "\"c\"".into()], vec!["a".into()]));
        assert_eq!(changes(&rows, Some(rows.since(None).version)), (false, vec![], vec![]));
    }

    #[test]
    fn a_problem_has_its_advice_and_changes_only_with_its_status() {
        let mut rows = Rows::default();
        let failed = |status: &str| Client { state: BoardState::Failed, ..board("a", status) };
        rows.update(&[failed("kernel failed at 40 %: timed out")]);
        let first = rows.since(None).version;
        assert!(
            rows.since(None).rows[0].contains(r#","advice":"No more packets arrived"#),
            "{:?}",
            rows.since(None).rows
        );
        rows.update(&[failed("kernel failed at 40 %: timed out")]);
        assert_eq!(changes(&rows, Some(first)).1, [""; 0]);
        rows.update(&[failed("kernel failed at 50 %: timed out")]);
        assert_eq!(changes(&rows, Some(first)).1, ["\"a\""]);
        rows.update(&[board("a", "kernel complete")]);
        assert!(!rows.since(None).rows[0].contains("advice"));
    }

    #[test]
    fn a_reader_that_is_far_behind_gets_everything() {
        let mut rows = Rows::default();
        rows.update(&[board("stays", "1")]);
        let first = rows.since(None).version;
        for number in 0..=MAX_REMOVED {
            rows.update(&[board("stays", "1"), board(&number.to_string(), "1")]);
        }
        assert!(!rows.since(Some(first)).is_complete);
        rows.update(&[board("stays", "1")]);
        assert_eq!(rows.removed.len(), MAX_REMOVED);
        assert_eq!(changes(&rows, Some(first)), (true, vec!["\"stays\"".into()], vec![]));
    }
}
