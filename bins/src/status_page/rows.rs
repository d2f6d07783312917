//! The rows of all boards, with the versions at which they changed.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use rtftp_runtime::history::snapshot::Client;

use super::row::{is_unchanged, row, with_advice};

/// The number of removed rows that are remembered.
const MAX_REMOVED: usize = 1024;
/// The maximum number of rows of an event.
const MAX_ROWS: usize = 1000;

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
    json: Box<str>,
    /// The version in which it changed last.
    changed: u64,
    /// The last version with the board.
    seen: u64,
}

/// What a reader has of the rows.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The version that the reader has, if it has one.
    known: Option<u64>,
    /// The part of the next version that it has.
    part: Option<Part>,
}

#[derive(Debug)]
struct Part {
    /// The version when the first rows were sent. Rows that change after that are sent again.
    version: u64,
    is_complete: bool,
    /// The last board.
    last: String,
}

impl Cursor {
    /// Returns whether more of the present version is to be sent.
    pub(super) fn has_more(&self) -> bool {
        self.part.is_some()
    }
}

/// What changed since a version, or a part of that.
#[derive(Debug)]
pub(super) struct Changes<'r> {
    /// Whether the reader must forget all rows that it has, except those that are sent until `has_more` is false.
    pub(super) is_complete: bool,
    /// Whether there are more.
    pub(super) has_more: bool,
    /// The rows, as JSON.
    pub(super) rows: Vec<&'r str>,
    pub(super) removed: Vec<&'r str>,
}

impl Rows {
    /// Creates rows whose readers have those of an earlier version, which are lost.
    pub(super) fn after(version: u64) -> Self {
        Self { version, complete_since: version + 1, ..Self::default() }
    }

    /// Returns the present version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Starts a version, to which all boards are added.
    pub(super) fn start(&mut self) {
        self.version += 1;
    }

    /// Compares the row of a board with its present state.
    pub(super) fn add(&mut self, board: &Client) {
        let version = self.version;
        let json = row(board);
        let new = || Versioned { json: with_advice(board, &json).into(), changed: version, seen: version };
        match self.rows.get_mut(&board.client) {
            Some(row) if is_unchanged(&row.json, &json) => row.seen = version,
            Some(row) => *row = new(),
            None => drop(self.rows.insert(board.client.clone(), new())),
        }
    }

    /// Removes the boards that were not added to this version.
    pub(super) fn finish(&mut self) {
        let (version, removed) = (self.version, &mut self.removed);
        self.rows.retain(|client, row| {
            if row.seen != version {
                removed.push_back((version, client.clone()));
            }
            row.seen == version
        });
        while self.removed.len() > MAX_REMOVED {
            self.complete_since = self.removed.pop_front().map_or(version, |(version, _)| version);
        }
    }

    /// Returns what a reader does not have yet, at most [`MAX_ROWS`] rows: a reader that is slow costs no more memory than that.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Changes<'_> {
        let known = cursor.known.filter(|version| *version >= self.complete_since);
        let part = cursor.part.take().filter(|part| part.is_complete == known.is_none());
        let (version, first) =
            part.map_or((self.version, Bound::Unbounded), |part| (part.version, Bound::Excluded(part.last)));
        let is_first = first == Bound::Unbounded;
        let is_new = |changed: u64| known.is_none_or(|known| changed > known);
        let mut changed = self.rows.range((first, Bound::Unbounded)).filter(|(_, row)| is_new(row.changed));
        let rows: Vec<_> = changed.by_ref().take(MAX_ROWS).collect();
        let last = rows.last().filter(|_| changed.next().is_some()).map(|(client, _)| (*client).clone());
        let removed = self.removed.iter().filter(|(version, _)| is_first && known.is_some() && is_new(*version));
        let changes = Changes {
            is_complete: known.is_none(),
            has_more: last.is_some(),
            rows: rows.into_iter().map(|(_, row)| &*row.json).collect(),
            removed: removed.map(|(_, client)| client.as_str()).collect(),
        };
        cursor.part = last.map(|last| Part { version, is_complete: changes.is_complete, last });
        if !changes.has_more {
            cursor.known = Some(version);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::history::snapshot::BoardState;

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

    fn update(rows: &mut Rows, boards: &[Client]) {
        rows.start();
        boards.iter().for_each(|board| rows.add(board));
        rows.finish();
    }

    /// Returns the changed and the removed boards for a reader of a version.
    fn changes(rows: &Rows, known: Option<u64>) -> (bool, Vec<String>, Vec<String>) {
        let mut cursor = Cursor { known, part: None };
        let changes = rows.next(&mut cursor);
        assert!(!changes.has_more && cursor.known == Some(rows.version()));
        (changes.is_complete, clients(&changes), changes.removed.iter().map(ToString::to_string).collect())
    }

    fn clients(changes: &Changes<'_>) -> Vec<String> {
        let client = |json: &&str| serde_json::from_str::<serde_json::Value>(json).expect("JSON")["client"].to_string();
        changes.rows.iter().map(client).collect()
    }

    #[test]
    fn a_reader_gets_only_what_changed() {
        let mut rows = Rows::default();
        update(&mut rows, &[board("a", "1"), board("b", "1")]);
        assert_eq!(changes(&rows, None), (true, vec!["\"a\"".into(), "\"b\"".into()], vec![]));
        let first = rows.version();
        update(&mut rows, &[board("b", "1"), board("a", "1")]);
        assert_eq!(changes(&rows, Some(first)), (false, vec![], vec![]));
        update(&mut rows, &[board("b", "2"), board("c", "1")]);
        assert_eq!(changes(&rows, Some(first)), (false, vec!["\"b\"".into(), "\"c\"".into()], vec!["a".into()]));
        assert_eq!(changes(&rows, Some(rows.version())), (false, vec![], vec![]));
    }

    #[test]
    fn many_rows_come_in_parts_and_those_that_change_meanwhile_come_again() {
        let names: Vec<String> = (0..2 * MAX_ROWS + 1).map(|number| format!("{number:05}")).collect();
        let boards = |status: &str| names.iter().map(|name| board(name, status)).collect::<Vec<_>>();
        let (mut rows, mut cursor) = (Rows::default(), Cursor::default());
        update(&mut rows, &boards("1"));
        let mut next = |rows: &Rows| {
            let changes = rows.next(&mut cursor);
            let clients = clients(&changes);
            let ends = (clients.first().cloned(), clients.last().cloned(), clients.len());
            (changes.is_complete, changes.has_more, ends, changes.removed.len())
        };
        let ends = |first: usize, last: usize| {
            (Some(format!("\"{:05}\"", first)), Some(format!("\"{:05}\"", last)), last - first + 1)
        };
        assert_eq!(next(&rows), (true, true, ends(0, MAX_ROWS - 1), 0));
        let mut changed = boards("1");
        changed[1].status = "2".into();
        changed.remove(0);
        update(&mut rows, &changed);
        assert_eq!(next(&rows), (true, true, ends(MAX_ROWS, 2 * MAX_ROWS - 1), 0));
        assert_eq!(next(&rows), (true, false, ends(2 * MAX_ROWS, 2 * MAX_ROWS), 0));
        assert_eq!(next(&rows), (false, false, ends(1, 1), 1));
        assert_eq!(next(&rows), (false, false, (None, None, 0), 0));
        update(&mut rows, &boards("3"));
        assert_eq!(next(&rows), (false, true, ends(0, MAX_ROWS - 1), 0));
    }

    #[test]
    fn rows_after_lost_ones_are_complete() {
        let mut rows = Rows::after(7);
        update(&mut rows, &[board("a", "1")]);
        assert_eq!(rows.version(), 8);
        assert_eq!(changes(&rows, Some(7)), (true, vec!["\"a\"".into()], vec![]));
        assert_eq!(changes(&rows, Some(8)), (false, vec![], vec![]));
    }

    #[test]
    fn a_problem_has_its_advice_and_changes_only_with_its_status() {
        let mut rows = Rows::default();
        let failed = |status: &str| Client { state: BoardState::Failed, ..board("a", status) };
        let row = |rows: &Rows| rows.rows["a"].json.clone();
        update(&mut rows, &[failed("kernel failed at 40 %: timed out")]);
        let first = rows.version();
        assert!(row(&rows).contains(r#","advice":"No more packets arrived"#), "{}", row(&rows));
        update(&mut rows, &[failed("kernel failed at 40 %: timed out")]);
        assert_eq!(changes(&rows, Some(first)).1, [""; 0]);
        update(&mut rows, &[failed("kernel failed at 50 %: timed out")]);
        assert_eq!(changes(&rows, Some(first)).1, ["\"a\""]);
        update(&mut rows, &[board("a", "kernel complete")]);
        assert!(!row(&rows).contains("advice"));
    }

    #[test]
    fn a_reader_that_is_far_behind_gets_everything() {
        let mut rows = Rows::default();
        update(&mut rows, &[board("stays", "1")]);
        let first = rows.version();
        for number in 0..=MAX_REMOVED {
            update(&mut rows, &[board("stays", "1"), board(&number.to_string(), "1")]);
        }
        assert!(!changes(&rows, Some(first)).0);
        update(&mut rows, &[board("stays", "1")]);
        assert_eq!(rows.removed.len(), MAX_REMOVED);
        assert_eq!(changes(&rows, Some(first)), (true, vec!["\"stays\"".into()], vec![]));
    }
}
