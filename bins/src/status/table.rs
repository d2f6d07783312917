//! The table of clients and running transfers.

use std::net::IpAddr;

use rtftp_runtime::history::snapshot::{BoardState, Client, State};

use super::{
    screen::{Colour, Line},
    text::{age, escape},
    view::{Report, View},
};
use crate::progress_bar::{megabytes, progress_bar};

/// The column of the summary, without the one of the servers.
const SUMMARY_COLUMN: usize = 47;
/// The title of the column of the servers.
const SERVER: &str = "SERVER";

/// The table: a line for each server, the titles, and the clients.
#[derive(Debug)]
pub(super) struct Table<'v> {
    pub(super) titles: Vec<Line>,
    pub(super) clients: Vec<Row<'v>>,
}

/// A client in the table.
#[derive(Debug)]
pub(super) struct Row<'v> {
    pub(super) client: &'v Client,
    /// The line of the client, and one for each of its running transfers.
    pub(super) lines: Vec<Line>,
}

impl Row<'_> {
    /// Returns whether the lines, or the name of a file in any boot, contain a text in lower case.
    pub(super) fn contains(&self, wanted: &str) -> bool {
        let contains = |text: &str| text.to_ascii_lowercase().contains(wanted);
        let mut files = self.client.boots.iter().flat_map(|boot| &boot.files);
        self.lines.iter().any(|line| contains(&line.text)) || files.any(|file| contains(&file.name))
    }
}

impl<'v> Table<'v> {
    /// Creates the table of a view with the clients with problems first.
    pub(super) fn new(view: &'v View) -> Self {
        let mut table = Self::by_address(view);
        table.clients.sort_by_key(|row| rank(row.client.state));
        table
    }

    /// Creates the table with the clients in the order of their addresses. With several servers, a column shows which one answered the
    /// newest request.
    pub(super) fn by_address(view: &'v View) -> Self {
        let servers = view.servers.iter().filter(|_| view.servers.len() > 1);
        let servers = servers.filter_map(|server| server.name.as_deref());
        let server_width = servers.map(|name| escape(name).len().max(SERVER.len())).max();
        let server = server_width.map(|width| format!("  {SERVER:<width$}")).unwrap_or_default();
        let titles = format!("{:<15} {:>12} {:>6} {:>9}{server}  SUMMARY", "CLIENT", "BOOT", "FILES", "MB");
        let mut clients: Vec<_> = view.clients.iter().collect();
        clients.sort_by_cached_key(|client| (client.client.parse::<IpAddr>().ok(), &client.client));
        let headlines = view.servers.iter().map(|server| headline(server, view.now));
        let titles = headlines.chain(counts(view)).chain([Line::cut(titles)]);
        let row = |client| row(client, view.now, server_width);
        Self { titles: titles.collect(), clients: clients.into_iter().map(row).collect() }
    }

    /// Returns all lines.
    pub(super) fn lines(self) -> Vec<Line> {
        let clients = self.clients.into_iter().flat_map(|row| row.lines);
        self.titles.into_iter().chain(clients).collect()
    }
}

/// Returns the place of a state in the table: boards with problems are the first, the others have one place.
fn rank(state: BoardState) -> BoardState {
    match state {
        BoardState::Booted | BoardState::Probed => BoardState::Running,
        state => state,
    }
}

/// Returns the line of a client, and one for each of its running transfers.
fn row(client: &Client, now: f64, server_width: Option<usize>) -> Row<'_> {
    let colour = match client.state {
        BoardState::Failed => Colour::Red,
        BoardState::Stalled | BoardState::Looping | BoardState::Missing | BoardState::Unmounted => Colour::Yellow,
        BoardState::Running | BoardState::Booted | BoardState::Probed | BoardState::Silent => Colour::Default,
    };
    let files = client.boots.first().map(|boot| &*boot.files).unwrap_or_default();
    let server = files.last().and_then(|file| file.server.as_deref()).unwrap_or_default();
    let server = server_width.map(|width| format!("  {:<width$}", escape(server))).unwrap_or_default();
    let mut lines = vec![Line::wrapped(line(client, now, &server), SUMMARY_COLUMN + server.len(), colour)];
    for file in files.iter().filter(|file| file.state == State::Running && file.blksize > 0) {
        let rate = file.acknowledged as f64 / file.seconds.max(0.001);
        let bar = progress_bar(file.acknowledged, file.size, rate);
        lines.push(Line::cut(format!("    {:<24} {bar}", escape(&file.name))));
    }
    Row { client, lines }
}

/// Returns the line of a server.
fn headline(report: &Report, now: f64) -> Line {
    if let Some(problem) = report.problem() {
        return Line::wrapped(escape(&problem), 4, Colour::Red);
    }
    let name = report.name.as_ref().map(|name| format!("{}: ", escape(name))).unwrap_or_default();
    let Ok(summary) = &report.summary else { return Line::cut(name) };
    let totals = &summary.totals;
    Line::cut(format!(
        "{name}rtftp {}, up {}: {} requests, {} complete, {} probes, {} missing, {} refused, {} failed, {} running; {:.1} MB",
        escape(&summary.version),
        age(now - summary.started),
        totals.requests,
        totals.complete,
        totals.probes,
        totals.missing,
        totals.refused,
        totals.failed,
        totals.running,
        megabytes(totals.bytes as f64),
    ))
}

/// Returns the line with the numbers of boards, if there are any.
fn counts(view: &View) -> Option<Line> {
    let count = |state| view.clients.iter().filter(|client| client.state == state).count();
    let started = view.servers.iter().filter_map(|server| Some(server.summary.as_ref().ok()?.started));
    // A server may know boots of before its start.
    let began = view.clients.iter().filter_map(|client| Some(client.boots.first()?.began));
    let started = started.chain(began).fold(view.now, f64::min);
    let others = [
        (BoardState::Failed, "failed"),
        (BoardState::Stalled, "stalled"),
        (BoardState::Looping, "in a boot loop"),
        (BoardState::Missing, "with a missing file"),
        (BoardState::Unmounted, "not mounted"),
        (BoardState::Silent, "without a request"),
        (BoardState::Running, "loading"),
    ];
    let others = others.map(|(state, words)| (count(state), words)).into_iter().filter(|(count, _)| *count > 0);
    let others: String = others.map(|(count, words)| format!(", {count} {words}")).collect();
    let (booted, all) = (count(BoardState::Booted), view.clients.len());
    let boards = if all == 1 { "board" } else { "boards" };
    (all > 0).then(|| {
        Line::cut(format!("{booted} of {all} {boards} booted in the last {}{others}", age(view.now - started)))
    })
}

/// Returns the line of a client and its last boot, with the column of its server.
fn line(client: &Client, now: f64, server: &str) -> String {
    let summary = match &client.name {
        Some(name) => format!("{}: {}", escape(name), escape(&client.summary)),
        None => escape(&client.summary),
    };
    let Some(boot) = client.boots.first() else {
        return format!("{:<15} {:>12} {:>6} {:>9}{server}  {summary}", escape(&client.client), "-", "-", "-");
    };
    let complete = boot.files.iter().filter(|file| file.state == State::Complete).count();
    let bytes: u64 = boot.files.iter().map(|file| file.acknowledged).fold(0, u64::saturating_add);
    format!(
        "{:<15} {:>12} {complete:>6} {:>9.1}{server}  {summary}",
        escape(&client.client),
        age(now - boot.began) + " ago",
        megabytes(bytes as f64),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use rtftp_runtime::history::snapshot::{File, Snapshot, Totals};

    use super::*;
    use crate::status::history::tests::{client, file};

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.text.clone()).collect()
    }

    pub(in super::super) fn snapshot(now: f64, clients: Vec<Client>) -> View {
        let totals = Totals {
            requests: 12,
            complete: 5,
            probes: 1,
            missing: 3,
            refused: 0,
            failed: 2,
            bytes: 7_300_000,
            retransmitted: 0,
            copies: 0,
            running: 1,
        };
        Snapshot { now, version: "1.2.3".into(), started: 0.0, totals, clients }.into()
    }

    #[test]
    fn prints_a_line_for_each_client_and_running_transfer() {
        let done = file("start4.elf", State::Complete);
        let kernel = File { acknowledged: 400_000, blksize: 1468, ..file("kernel8.img", State::Running) };
        let waits = file("config.txt", State::Running);
        let now = snapshot(1012.0, vec![client(vec![done, kernel, waits])]);
        let expected = [
            "rtftp 1.2.3, up 16 min: 12 requests, 5 complete, 1 probes, 3 missing, 0 refused, 2 failed, 1 running; 7.3 MB",
            "0 of 1 board booted in the last 16 min, 1 loading",
            "CLIENT                  BOOT  FILES        MB  SUMMARY",
            "10.0.0.5            12 s ago      1       0.4  loading kernel8.img at 40 %",
            "    kernel8.img               40% [=========               ] 0.4 MB  0.2 MB/s  0:03 left",
        ];
        assert_eq!(texts(&Table::new(&now).lines()), expected);
    }

    #[test]
    fn names_the_servers_if_there_are_several() {
        let by = |server: &str| File { server: Some(server.into()), ..file("kernel8.img", State::Complete) };
        let mut now = snapshot(1012.0, vec![client(vec![by("10.0.0.2:8080"), by("nas1:8080")])]);
        now.servers[0].name = Some("nas1:8080".into());
        now.servers.push(Report { name: Some("10.0.0.2:8080".into()), summary: Err("no reply".into()) });
        let lines = texts(&Table::new(&now).lines());
        assert!(lines[0].starts_with("nas1:8080: rtftp 1.2.3, up 16 min: 12 requests"), "{lines:?}");
        let expected = [
            "10.0.0.2:8080: no reply",
            "0 of 1 board booted in the last 16 min, 1 loading",
            "CLIENT                  BOOT  FILES        MB  SERVER         SUMMARY",
            "10.0.0.5            12 s ago      2       0.0  nas1:8080      loading kernel8.img at 40 %",
        ];
        assert_eq!(lines[1..], expected);
        now.servers.pop();
        assert!(texts(&Table::new(&now).lines())[2].ends_with("MB  SUMMARY"));
    }

    #[test]
    fn escapes_names() {
        let mut hostile = client(vec![File { blksize: 512, ..file("\u{1b}[2J", State::Running) }]);
        hostile.client = "\u{1b}[1m".into();
        hostile.summary = "loading \u{1b}[2J\n".into();
        hostile.boots[0].files[0].server = Some("\u{1b}#8".into());
        let mut now = snapshot(1.0, vec![hostile]);
        let Ok(summary) = &mut now.servers[0].summary else { panic!("{now:?}") };
        summary.version = "\u{1b}c".into();
        now.servers.push(Report { name: Some("\u{1b}D".into()), summary: Err("\u{1b}[H".into()) });
        let lines = texts(&Table::new(&now).lines());
        assert!(lines.iter().all(|line| line.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
    }

    /// Returns a hundred clients, of which two have failed and one has stalled.
    pub(in super::super) fn hundred() -> View {
        let clients = (1..=100).map(|number| {
            let (state, last) = match number {
                30 | 70 => {
                    let failed = File { why: Some("no route to host".into()), ..file("kernel", State::Failed) };
                    (BoardState::Failed, failed)
                }
                50 => (BoardState::Stalled, File { blksize: 1468, ..file("kernel", State::Running) }),
                _ => (BoardState::Booted, file("kernel", State::Complete)),
            };
            Client { client: format!("10.0.0.{number}"), state, ..client(vec![last]) }
        });
        let mut clients: Vec<_> = clients.collect();
        clients.reverse();
        snapshot(1020.0, clients)
    }

    #[test]
    fn clients_keep_their_place_after_those_in_trouble() {
        let names = |snapshot: &View| {
            let lines = texts(&Table::new(snapshot).lines());
            let names = lines.into_iter().skip(3).filter(|line| line.starts_with("10."));
            names.map(|line| line.split(' ').next().expect("a word").to_owned()).collect::<Vec<_>>()
        };
        let mut snapshot = hundred();
        let first = names(&snapshot);
        assert_eq!(first[..5], ["10.0.0.30", "10.0.0.70", "10.0.0.50", "10.0.0.1", "10.0.0.2"]);
        assert_eq!((first.len(), first[11].as_str()), (100, "10.0.0.9"));
        // Another order of activity.
        snapshot.clients.rotate_left(17);
        assert_eq!(names(&snapshot), first);
    }

    #[test]
    fn counts_boards_by_state_since_the_oldest_boot() {
        let counted = |view: &View| texts(&Table::new(view).titles).remove(1);
        assert_eq!(counted(&hundred()), "97 of 100 boards booted in the last 17 min, 2 failed, 1 stalled");
        let mut restarted = hundred();
        let Ok(summary) = &mut restarted.servers[0].summary else { panic!("{restarted:?}") };
        (restarted.now, summary.started) = (200_000.0, 199_990.0);
        assert!(
            counted(&restarted).starts_with("97 of 100 boards booted in the last 2 days"),
            "{}",
            counted(&restarted)
        );
    }
}
