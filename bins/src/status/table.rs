//! The table of clients and running transfers.

use std::{collections::HashMap, net::IpAddr};

use rtftp_runtime::history::snapshot::{BoardState, Client, File, State};

use super::{
    screen::{Colour, Line, Screen},
    text::{age, escape},
    view::{Report, View},
};
use crate::progress_bar::{megabytes, progress_bar};

/// The column of the summary, without the one of the servers.
const SUMMARY_COLUMN: usize = 47;
/// The title of the column of the servers.
const SERVER: &str = "SERVER";
/// The table: a line for each server, the titles, and the lines of each client.
#[derive(Debug)]
pub(super) struct Table {
    titles: Vec<Line>,
    clients: Vec<(BoardState, Vec<Line>)>,
}

impl Table {
    /// Creates the table. Rates are those since the `previous` view, or the average of the transfer without one.
    ///
    /// The clients in trouble are the first ones; apart from that, each keeps its place, by its address. With several servers, a column
    /// shows which one answered the newest request.
    pub(super) fn new(now: &View, previous: Option<&View>) -> Self {
        let servers = now.servers.iter().filter(|_| now.servers.len() > 1).filter_map(|server| server.name.as_deref());
        let server_width = servers.map(|name| escape(name).len().max(SERVER.len())).max();
        let server = server_width.map(|width| format!("  {SERVER:<width$}")).unwrap_or_default();
        let titles = format!("{:<15} {:>12} {:>6} {:>9}{server}  SUMMARY", "CLIENT", "BOOT", "FILES", "MB");
        let mut clients: Vec<_> = now.clients.iter().collect();
        clients.sort_by_cached_key(|client| (rank(client.state), client.client.parse::<IpAddr>().ok(), &client.client));
        let positions = previous.map(|previous| (previous.now, positions(previous)));
        let rows = |client: &Client| (client.state, rows(client, now.now, server_width, positions.as_ref()));
        let headlines = now.servers.iter().map(|server| headline(server, now.now));
        let titles = headlines.chain(counts(now)).chain([Line::cut(titles)]);
        Self { titles: titles.collect(), clients: clients.into_iter().map(rows).collect() }
    }

    /// Returns all lines.
    pub(super) fn lines(self) -> Vec<Line> {
        let clients = self.clients.into_iter().flat_map(|(_, lines)| lines);
        self.titles.into_iter().chain(clients).collect()
    }

    /// Returns the lines of as many clients as fit, and the number of the others.
    pub(super) fn fit(self, screen: &Screen) -> Vec<Line> {
        let count = self.clients.len();
        let heights = self.clients.iter().scan(screen.height(&self.titles), |sum, (_, lines)| {
            *sum += screen.height(lines);
            Some(*sum)
        });
        let heights: Vec<_> = heights.collect();
        let shown = match heights.last() {
            Some(all) if *all > screen.available() => {
                heights.iter().take_while(|height| **height < screen.available()).count()
            }
            _ => count,
        };
        let hidden = &self.clients[shown..];
        let troubled = hidden.iter().filter(|(state, _)| *state <= BoardState::Stalled).count();
        let more = match (hidden.len(), troubled) {
            (0, _) => None,
            (1, 0) => Some("... and 1 more client".into()),
            (hidden, 0) => Some(format!("... and {hidden} more clients")),
            (hidden, troubled) => Some(format!("... and {hidden} more, {troubled} of them failed or stalled")),
        };
        let more = more.map(|more| Line::cut(format!("{more}: rtftp status --once")));
        let clients = self.clients.into_iter().take(shown).flat_map(|(_, lines)| lines);
        // On a small terminal, the number is more important than the titles.
        let titles = self.titles.into_iter().take(screen.available() - usize::from(more.is_some()));
        titles.chain(clients).chain(more).collect()
    }
}

/// Returns the place of a state in the table: boards in trouble are the first, those without requests the last.
fn rank(state: BoardState) -> BoardState {
    match state {
        BoardState::Booted | BoardState::Probed => BoardState::Running,
        state => state,
    }
}

/// Returns the line of a client, and one for each of its running transfers.
fn rows(client: &Client, now: f64, server_width: Option<usize>, previous: Option<&(f64, Positions<'_>)>) -> Vec<Line> {
    let colour = match client.state {
        BoardState::Failed => Colour::Red,
        BoardState::Stalled | BoardState::Missing => Colour::Yellow,
        BoardState::Running | BoardState::Booted | BoardState::Probed | BoardState::Silent => Colour::Default,
    };
    let files = client.boots.first().map(|boot| &*boot.files).unwrap_or_default();
    let server = files.last().and_then(|file| file.server.as_deref()).unwrap_or_default();
    let server = server_width.map(|width| format!("  {:<width$}", escape(server))).unwrap_or_default();
    let mut lines = vec![Line::wrapped(line(client, now, &server), SUMMARY_COLUMN + server.len(), colour)];
    for file in files.iter().filter(|file| file.state == State::Running && file.blksize > 0) {
        let position = previous.and_then(|(then, positions)| Some((positions.get(&key(client, file))?, then)));
        let (bytes, seconds) = match position {
            Some((acknowledged, then)) => (file.acknowledged.saturating_sub(*acknowledged), now - then),
            None => (file.acknowledged, file.seconds),
        };
        let rate = bytes as f64 / seconds.max(0.001);
        let bar = progress_bar(file.acknowledged, file.size, rate);
        lines.push(Line::cut(format!("    {:<24} {bar}", escape(&file.name))));
    }
    lines
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
    let started = started.fold(view.now, f64::min);
    let others = [
        (BoardState::Failed, "failed"),
        (BoardState::Stalled, "stalled"),
        (BoardState::Missing, "with a missing file"),
        (BoardState::Running, "loading"),
        (BoardState::Silent, "without a request"),
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

/// Returns the key of a transfer, the same in each snapshot.
fn key<'a>(client: &'a Client, file: &'a File) -> (&'a str, &'a str, i64) {
    // Rounded, since a time differs slightly between snapshots when the system clock was set.
    (&client.client, &file.name, file.began.round() as i64)
}

/// The acknowledged bytes of running transfers.
type Positions<'s> = HashMap<(&'s str, &'s str, i64), u64>;

/// Returns the acknowledged bytes of the running transfers.
fn positions(view: &View) -> Positions<'_> {
    let last_boots = view.clients.iter().filter_map(|client| Some((client, client.boots.first()?)));
    let files = last_boots.flat_map(|(client, boot)| boot.files.iter().map(move |file| (client, file)));
    let running = files.filter(|(_, file)| file.state == State::Running);
    running.map(|(client, file)| (key(client, file), file.acknowledged)).collect()
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::history::snapshot::{Snapshot, Totals};

    use super::*;
    use crate::status::history::tests::{client, file};

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.text.clone()).collect()
    }

    fn snapshot(now: f64, clients: Vec<Client>) -> View {
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
        let before = snapshot(1010.0, vec![client(vec![File { acknowledged: 200_000, ..kernel.clone() }])]);
        let now = snapshot(1012.0, vec![client(vec![done, kernel, waits])]);
        let expected = [
            "rtftp 1.2.3, up 16 min: 12 requests, 5 complete, 1 probes, 3 missing, 0 refused, 2 failed, 1 running; 7.3 MB",
            "0 of 1 board booted in the last 16 min, 1 loading",
            "CLIENT                  BOOT  FILES        MB  SUMMARY",
            "10.0.0.5            12 s ago      1       0.4  loading kernel8.img at 40 %",
            "    kernel8.img               40% [=========               ] 0.4 MB  0.1 MB/s  0:06 left",
        ];
        assert_eq!(texts(&Table::new(&now, Some(&before)).lines()), expected);
        let average = texts(&Table::new(&now, None).lines());
        assert!(average[4].contains("0.2 MB/s"), "the average rate in {average:?}");
    }

    #[test]
    fn names_the_servers_if_there_are_several() {
        let by = |server: &str| File { server: Some(server.into()), ..file("kernel8.img", State::Complete) };
        let mut now = snapshot(1012.0, vec![client(vec![by("10.0.0.2:8080"), by("nas1:8080")])]);
        now.servers[0].name = Some("nas1:8080".into());
        now.servers.push(Report { name: Some("10.0.0.2:8080".into()), summary: Err("no reply".into()) });
        let lines = texts(&Table::new(&now, None).lines());
        assert!(lines[0].starts_with("nas1:8080: rtftp 1.2.3, up 16 min: 12 requests"), "{lines:?}");
        let expected = [
            "10.0.0.2:8080: no reply",
            "0 of 1 board booted in the last 16 min, 1 loading",
            "CLIENT                  BOOT  FILES        MB  SERVER         SUMMARY",
            "10.0.0.5            12 s ago      2       0.0  nas1:8080      loading kernel8.img at 40 %",
        ];
        assert_eq!(lines[1..], expected);
        now.servers.pop();
        assert!(texts(&Table::new(&now, None).lines())[2].ends_with("MB  SUMMARY"));
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
        let lines = texts(&Table::new(&now, None).lines());
        assert!(lines.iter().all(|line| line.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
    }

    /// Returns a hundred clients, of which two have failed and one has stalled.
    fn hundred() -> View {
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
            let lines = texts(&Table::new(snapshot, None).lines());
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
    fn shows_what_fits_and_counts_the_others() {
        let fitting = |columns, rows| texts(&Table::new(&hundred(), None).fit(&Screen::of_size(columns, rows)));
        let lines = fitting(100, 24);
        assert_eq!(lines.len(), 23);
        assert_eq!(lines[1], "97 of 100 boards booted in the last 17 min, 2 failed, 1 stalled");
        assert!(lines[3].starts_with("10.0.0.30 "), "{lines:?}");
        assert_eq!(lines[22], "... and 82 more clients: rtftp status --once");
        let lines = fitting(100, 6);
        assert_eq!(lines[4], "... and 99 more, 2 of them failed or stalled: rtftp status --once");
        assert_eq!(fitting(100, 2), ["... and 100 more, 3 of them failed or stalled: rtftp status --once"]);
        assert_eq!(fitting(100, 200).len(), 104);
        // A narrow terminal needs two rows for each client.
        assert!(
            fitting(60, 24)[..].last().is_some_and(|last| last.starts_with("... and 91 more")),
            "{:?}",
            fitting(60, 24)
        );
    }
}
