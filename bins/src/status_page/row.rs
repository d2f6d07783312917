//! The row of a board on the page.

use rtftp_runtime::history::snapshot::{BoardState, Client, DiskStatus, File, State};
use serde::Serialize;
use serde_json::json;

use crate::advice::advice;

/// The length of the names of files in a row in bytes, beside that of the newest file.
const MAX_NAMES: usize = 400;

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
    /// Other files of its boots, for the search.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<&'c str>,
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

/// Returns the row of a board as JSON.
pub(super) fn row(board: &Client) -> String {
    // Cannot fail: every field has a JSON form.
    serde_json::to_string(&Row::new(board)).unwrap_or_default()
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
            files: other_files(board, newest),
        }
    }
}

/// The last field of a row, which depends on the others.
const ADVICE: &str = ",\"advice\":";

/// Adds what to do about a problem to a row. That for boards without a request is in the event.
pub(super) fn with_advice(board: &Client, row: &str) -> String {
    let has_advice = board.state.is_problem() && board.state != BoardState::Silent;
    match (advice(&board.status).filter(|_| has_advice), row.strip_suffix('}')) {
        (Some(advice), Some(fields)) => format!("{fields}{ADVICE}{}}}", json!(advice)),
        _ => row.to_owned(),
    }
}

/// Returns whether a row with advice still has these fields.
pub(super) fn is_unchanged(known: &str, row: &str) -> bool {
    let rest = row.strip_suffix('}').and_then(|fields| known.strip_prefix(fields));
    rest.is_some_and(|rest| rest == "}" || rest.starts_with(ADVICE))
}

/// Returns the names of the files of a board's boots, without repetitions, the newest first, as far as [`MAX_NAMES`] allows.
fn other_files<'c>(board: &'c Client, newest: Option<&File>) -> Vec<&'c str> {
    let mut names: Vec<&str> = vec![];
    let mut bytes = 0;
    for file in board.boots.iter().flat_map(|boot| boot.files.iter().rev()) {
        let is_known = newest.is_some_and(|newest| newest.name == file.name) || names.contains(&file.name.as_str());
        bytes += if is_known { 0 } else { file.name.len() };
        if bytes > MAX_NAMES {
            break;
        }
        names.extend((!is_known).then_some(file.name.as_str()));
    }
    names
}
