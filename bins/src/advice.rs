//! What the guide to troubleshooting says about a message.

use std::sync::LazyLock;

/// The guide. Its tables have the columns message, cause and remedy; `X` and `...` in a message stand for any text.
const GUIDE: &str = include_str!("../docs/troubleshooting.md");
/// The headings of the parts whose messages are in the status of a board.
const PARTS: [&str; 3] = ["## Messages of `rtftp status`", "## Messages about a disk", "## Refused files"];

/// The minimum length of the fragments of a message in bytes: `failed`.
const MIN_FRAGMENTS: usize = 6;

/// A message of the guide.
#[derive(Debug)]
struct Row {
    /// The texts that must be in the message, in this order.
    fragments: Vec<String>,
    /// The cause and the remedy, as sentences in plain text.
    advice: String,
}

/// All messages of the guide.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| PARTS.iter().flat_map(|part| rows(part)).collect());

/// Returns what the guide says about a message, from the row that has the most in common with it.
pub(crate) fn advice(message: &str) -> Option<&'static str> {
    // The reason is more important than that nothing was requested.
    if let Some((_, reason)) = message.split_once("; disk failed: ")
        && let Some(advice) = advice(reason)
    {
        return Some(advice);
    }
    let rows = ROWS.iter().filter(|row| row.matches(message));
    rows.max_by_key(|row| row.fragments.iter().map(String::len).sum::<usize>()).map(|row| row.advice.as_str())
}

impl Row {
    fn matches(&self, message: &str) -> bool {
        let mut rest = message;
        self.fragments.iter().all(|fragment| {
            let found = rest.find(fragment.as_str());
            rest = found.map_or("", |at| &rest[at + fragment.len()..]);
            found.is_some()
        })
    }
}

/// Returns the messages in a part of the guide, from its heading to the next one.
fn rows(heading: &str) -> Vec<Row> {
    let lines = GUIDE.lines().skip_while(|line| *line != heading).skip(1);
    let part = lines.take_while(|line| !line.starts_with("## "));
    let cells = part.filter_map(|line| {
        let cells: Vec<&str> =
            line.strip_prefix('|')?.trim_end().strip_suffix('|')?.split(" | ").map(str::trim).collect();
        <[&str; 3]>::try_from(cells).ok()
    });
    // `the same` is the text in the row above.
    let cells = cells.scan((String::new(), String::new()), |(cause, remedy), [messages, new_cause, new_remedy]| {
        for (text, new) in [(&mut *cause, new_cause), (&mut *remedy, new_remedy)] {
            if new != "the same" {
                *text = plain(new);
            }
        }
        Some((messages, sentences(cause, remedy)))
    });
    let rows = cells.flat_map(|(messages, advice)| {
        // Each text between backquotes is a message.
        let messages = messages.split('`').skip(1).step_by(2);
        messages.map(fragments).collect::<Vec<_>>().into_iter().map(move |fragments| (fragments, advice.clone()))
    });
    let rows = rows.map(|(fragments, advice)| Row { fragments, advice });
    rows.filter(|row| row.fragments.iter().map(String::len).sum::<usize>() >= MIN_FRAGMENTS).collect()
}

/// Returns a cause and a remedy, which may be empty, as sentences.
fn sentences(cause: &str, remedy: &str) -> String {
    let (first, rest) = cause.split_at(cause.chars().next().map_or(0, char::len_utf8));
    let remedy = if remedy.is_empty() { String::new() } else { format!(" What to do: {remedy}.") };
    format!("{}{rest}.{remedy}", first.to_uppercase())
}

/// Returns the texts of a message between the parts that differ: `...`, `X`, and durations, which a status does not have.
fn fragments(message: &str) -> Vec<String> {
    const DURATIONS: [&str; 5] = [" (requested ... ago)", " ... ago", " for ...", "10.0.0.5.nbd", "default/"];
    let message = DURATIONS.iter().fold(message.to_owned(), |message, duration| message.replace(duration, "..."));
    let message = message.strip_prefix("X ").map_or(message.clone(), |rest| format!("... {rest}"));
    let message = message.replace(" X ", " ... ").replace(" X...", " ...").replace("\"...\"", "...");
    let fragments = message.split("...").map(|fragment| fragment.trim_matches([' ', ',', ':']));
    fragments.filter(|fragment| fragment.len() > 1).map(str::to_owned).collect()
}

/// Returns text in Markdown as plain text.
fn plain(markdown: &str) -> String {
    markdown.replace(['`', '*'], "").replace("\\|", "|").replace("\" below", "\" in the guide to troubleshooting")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_row_of_each_status() {
        for (status, cause) in [
            ("kernel8.img not found in 10.0.0.7.nbd, 10.0.0.0_24.nbd, default/", "none of these roots has the file"),
            (
                "a not found: this client has no root, and there is no directory default",
                "the root directory has neither",
            ),
            ("../etc/passwd refused: default/: access violation", "the file exists, but may not be served"),
            ("size of a queried", "the machine has queried the size"),
            ("opening kernel8.img", "the disk is being connected"),
            ("no acknowledgement for kernel8.img", "the machine did not receive the first reply"),
            ("stalled in kernel8.img at 40 %", "no more packets arrive from the machine"),
            ("kernel8.img failed at 40 %: the client has closed its port", "the machine was switched off"),
            ("kernel8.img failed: 10.0.0.5.nbd: nas:10809: Connection refused (os error 111)", "no NBD server listens"),
            ("kernel8.img failed: 10.0.0.5.nbd: the server has no export \"x\"", "the export name"),
            ("kernel8.img complete", "everything was sent"),
            ("boot loop, 4 boots in 45 s: kernel8.img complete", "the board loads its files and starts again"),
            ("kernel8.img failed at 40 %: timed out", "no more packets arrived from the machine"),
            ("no request yet; disk not connected", "the board has a description or a directory"),
            ("no request yet; disk failed: not an NBD server", "another service listens there"),
            ("no request yet; disk failed: line 1, column 1: mounts: missing", "a problem in the disk description"),
            ("no request yet; disk failed: of an unknown kind", "the board has made no request, and its disk"),
        ] {
            let found = advice(status).unwrap_or_else(|| panic!("{status}: no row"));
            assert!(found.to_lowercase().starts_with(&cause.to_lowercase()), "{status}: {found:?}");
        }
        assert_eq!(advice("loading kernel8.img at 40 %"), None);
    }

    #[test]
    fn has_many_rows_in_plain_text() {
        assert!(ROWS.len() > 50, "{}", ROWS.len());
        assert!(ROWS.iter().all(|row| row.advice.len() > 1 && !row.advice.contains('`')));
    }
}
