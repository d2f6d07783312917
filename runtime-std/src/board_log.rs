//! The last lines of the log about each board, for the status page and `rtftp status`.
//!
//! The board is read from the text: each message begins with its object anyway. A field of the record would be a second place, which a
//! new message can lack, and most callers know a disk only by the name of its `.nbd` file.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use log::Level;
use parking_lot::Mutex;

use crate::{client_name::ClientName, history::snapshot::LogLine, text::printable};

/// The number of lines that are kept of a board.
const MAX_LINES: usize = 20;
/// The number of bytes that all lines may occupy: some 8,000 lines.
const MAX_BYTES: usize = 2 << 20;
/// The bytes that a line occupies beside its text.
const LINE_OVERHEAD: usize = 128;

/// The lines that this process has logged.
pub static BOARD_LOG: BoardLog = BoardLog::new();

/// The last lines about each board. The oldest lines go first, of each board and of all.
#[derive(Debug)]
pub struct BoardLog(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    /// All lines by their number.
    lines: BTreeMap<u64, (ClientName, LogLine)>,
    /// The numbers of the lines of each board.
    boards: BTreeMap<ClientName, VecDeque<u64>>,
    next: u64,
    bytes: usize,
}

impl BoardLog {
    /// Creates a log without lines.
    const fn new() -> Self {
        Self(Mutex::new(Lines { lines: BTreeMap::new(), boards: BTreeMap::new(), next: 0, bytes: 0 }))
    }

    /// Adds a line that was logged at a time in seconds since 1970, if it starts with the name of a board or its disk.
    pub fn add(&self, at: f64, level: Level, line: &str) {
        if let Some(board) = board_of(line) {
            let line = LogLine { at, level: level.as_str().to_ascii_lowercase(), text: printable(line.as_bytes()) };
            self.0.lock().add(board, line);
        }
    }

    /// Returns the lines about a board with these names, the oldest first.
    pub(crate) fn lines(&self, names: &[ClientName]) -> Vec<LogLine> {
        let log = self.0.lock();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| log.boards.get(name)).flatten().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let last = &numbers[numbers.len().saturating_sub(MAX_LINES)..];
        last.iter().filter_map(|number| log.lines.get(number)).map(|(_, line)| line.clone()).collect()
    }
}

impl Lines {
    fn add(&mut self, board: ClientName, line: LogLine) {
        self.bytes += size(&line);
        self.lines.insert(self.next, (board, line));
        let numbers = self.boards.entry(board).or_default();
        numbers.push_back(self.next);
        self.next += 1;
        if numbers.len() > MAX_LINES
            && let Some(oldest) = numbers.front().copied()
        {
            self.remove(oldest);
        }
        while self.bytes > MAX_BYTES
            && let Some((&oldest, _)) = self.lines.first_key_value()
        {
            self.remove(oldest);
        }
    }

    /// Removes the oldest line of a board.
    fn remove(&mut self, number: u64) {
        let Some((board, line)) = self.lines.remove(&number) else { return };
        self.bytes -= size(&line);
        if let Some(numbers) = self.boards.get_mut(&board) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.boards.remove(&board);
            }
        }
    }
}

fn size(line: &LogLine) -> usize {
    line.text.len() + LINE_OVERHEAD
}

/// Returns the board that is named at the start of a line: `10.0.0.5:2070 kernel ...`, `10.0.0.5: ...`, `10.0.0.5.nbd: ...` or
/// `default.nbd (10.0.0.5): ...`.
fn board_of(line: &str) -> Option<ClientName> {
    let (first, rest) = line.split_once(' ')?;
    if let Ok(address) = first.parse::<SocketAddr>() {
        return Some(ClientName::Ip(address.ip().to_canonical()));
    }
    let first = first.strip_suffix(':').unwrap_or(first);
    let name = match rest.strip_prefix('(').and_then(|rest| rest.split_once("):")) {
        Some((name, _)) if first.ends_with(".nbd") => name,
        _ => first.strip_suffix(".nbd").unwrap_or(first),
    };
    ClientName::parse(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(log: &BoardLog, names: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| ClientName::parse(name).expect("a name")).collect();
        log.lines(&names).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn finds_the_board_of_a_line() {
        for (line, board) in [
            ("10.0.0.5:2070 kernel from default/: timed out", Some("10.0.0.5")),
            ("[fd09::5]:2070 kernel: not found", Some("fd09::5")),
            ("[::ffff:10.0.0.5]:2070 kernel: not found", Some("10.0.0.5")),
            ("10.0.0.5: the first blocks arrived late", Some("10.0.0.5")),
            ("10.0.0.5 kernel over HTTP: complete", Some("10.0.0.5")),
            ("10.0.0.5.nbd: disconnected after 60 s idle", Some("10.0.0.5")),
            ("dc-a6-32-01-36-c2.nbd: removed", Some("dc-a6-32-01-36-c2")),
            ("default.nbd (10.0.0.5): connected to nbd://nas/x", Some("10.0.0.5")),
            ("10.0.0.0_24.nbd (9ffefdef): connection lost", Some("9ffefdef")),
            ("default.nbd: line 1, column 1: expected `{`", None),
            ("reloaded 10000000 .nbd files", None),
            ("stopping", None),
        ] {
            assert_eq!(board_of(line).map(|board| board.to_string()).as_deref(), board, "{line}");
        }
    }

    #[test]
    fn keeps_the_last_lines_of_each_board() {
        let log = BoardLog::new();
        for number in 0..30 {
            log.add(f64::from(number), Level::Info, &format!("10.0.0.5: {number}"));
            log.add(f64::from(number), Level::Info, &format!("dc-a6-32-01-36-c2.nbd: {number}"));
        }
        log.add(30.0, Level::Warn, "10.0.0.6: \u{1b}[2J");
        let own = texts(&log, &["10.0.0.5"]);
        assert_eq!((own.len(), own[0].as_str(), own[19].as_str()), (20, "10.0.0.5: 10", "10.0.0.5: 29"));
        let both = texts(&log, &["10.0.0.5", "dc-a6-32-01-36-c2"]);
        assert_eq!((both.len(), both[18].as_str()), (20, "10.0.0.5: 29"));
        assert_eq!(texts(&log, &["10.0.0.6"]), ["10.0.0.6: \\u{1b}[2J"]);
        assert_eq!(texts(&log, &["10.0.0.7"]), [""; 0]);
    }

    #[test]
    fn evicts_the_oldest_lines_of_all_boards() {
        let log = BoardLog::new();
        for number in 0..100_000_u32 {
            log.add(0.0, Level::Info, &format!("{}: {}", std::net::Ipv4Addr::from_bits(number), "x".repeat(400)));
        }
        let lines = log.0.lock();
        assert!(lines.bytes <= MAX_BYTES && lines.lines.len() == lines.boards.len(), "{} bytes", lines.bytes);
        assert!((3000..5000).contains(&lines.lines.len()), "{}", lines.lines.len());
        drop(lines);
        assert_eq!(texts(&log, &["0.0.0.1"]), [""; 0]);
        assert_eq!(texts(&log, &["0.1.134.159"]).len(), 1);
    }
}
