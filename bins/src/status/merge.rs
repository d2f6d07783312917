//! Merges the histories of several servers: each client once, and the requests of a boot in one list, whichever server answered them.

use std::{collections::HashMap, mem};

use rtftp_runtime::{
    history::snapshot::{Boot, Client, File, Mount, Snapshot},
    text::printable,
};

use super::view::{Report, Summary, View};

/// The gap after which a request starts a new boot, and that for a request of the first file again, in seconds. A server applies the same
/// rule to the requests that it answers.
const BOOT_GAP: f64 = 30.0;
const MIN_RESET_GAP: f64 = 3.0;

/// The smallest difference of clocks that is corrected, in seconds. A reply may be as old; the order of requests within it needs
/// clocks that are synchronized, as NTP does.
const MIN_CLOCK_OFFSET: f64 = 2.0;

/// Merges the replies of servers, each with the server's name.
///
/// The clocks of the servers may differ: times are those of the clock that shows `now`. Texts become printable.
pub(crate) fn merge(now: f64, replies: impl IntoIterator<Item = (String, Result<Snapshot, String>)>) -> View {
    let mut servers = vec![];
    let mut clients: HashMap<String, Merging> = HashMap::new();
    for (number, (name, reply)) in replies.into_iter().enumerate() {
        let summary = reply.map(|snapshot| {
            let offset = now - snapshot.now;
            let offset = if offset.abs() < MIN_CLOCK_OFFSET { 0.0 } else { offset };
            for client in snapshot.clients {
                let client = localized(client, offset, &name);
                clients.entry(client.client.clone()).or_default().add(number, client);
            }
            let version = printable(snapshot.version.as_bytes());
            Summary { version, started: snapshot.started + offset, totals: snapshot.totals }
        });
        servers.push(Report { name: Some(name), summary });
    }
    let mut clients: Vec<_> = clients.into_values().filter_map(Merging::finish).collect();
    let last = |client: &Client| client.boots.first().map_or(0.0, |boot| boot.last);
    clients.sort_by(|a, b| last(b).total_cmp(&last(a)).then_with(|| a.client.cmp(&b.client)));
    View { now, servers, clients }
}

/// Changes the times of a client to another clock, names its server, and makes its texts printable.
fn localized(mut client: Client, offset: f64, server: &str) -> Client {
    for text in [&mut client.client, &mut client.status, &mut client.summary].into_iter().chain(&mut client.name) {
        *text = printable(text.as_bytes());
    }
    for line in &mut client.log {
        line.at += offset;
        line.level = printable(line.level.as_bytes());
        line.text = printable(line.text.as_bytes());
    }
    for boot in &mut client.boots {
        boot.began += offset;
        boot.last += offset;
        boot.mount.iter_mut().for_each(|mount| mount.text = printable(mount.text.as_bytes()));
        for file in &mut boot.files {
            file.began += offset;
            file.server = Some(server.to_owned());
            file.name = printable(file.name.as_bytes());
            for text in [&mut file.origin, &mut file.boot_entry, &mut file.why].into_iter().flatten() {
                *text = printable(text.as_bytes());
            }
        }
    }
    client
}

/// A client whose histories are being merged.
#[derive(Debug, Default)]
struct Merging {
    /// The client without its boots at the server that received its newest request, and the time of this request.
    newest: Option<(f64, Client)>,
    /// The boots, each with the number of its server.
    boots: Vec<(usize, Boot)>,
}

impl Merging {
    fn add(&mut self, server: usize, mut client: Client) {
        let began = client.boots.first().map_or(0.0, |boot| boot.files.last().map_or(boot.began, |file| file.began));
        self.boots.extend(client.boots.drain(..).map(|boot| (server, boot)));
        let Some((newest, known)) = &mut self.newest else {
            self.newest = Some((began, client));
            return;
        };
        if began > *newest || began == *newest && client.state < known.state {
            *newest = began;
            mem::swap(known, &mut client);
        }
        // What only another server knows.
        known.name = known.name.take().or(client.name);
        known.disk = known.disk.or(client.disk);
        known.log.append(&mut client.log);
        known.log.sort_by(|a, b| a.at.total_cmp(&b.at));
    }

    fn finish(mut self) -> Option<Client> {
        self.boots.sort_by(|(_, a), (_, b)| a.began.total_cmp(&b.began));
        // Each with the servers that answered a part of it.
        let mut merged: Vec<(Vec<usize>, Boot)> = vec![];
        for (server, boot) in self.boots {
            match merged.last_mut() {
                // A server itself tells its boots apart.
                Some((servers, previous)) if !servers.contains(&server) && continues(previous, &boot) => {
                    servers.push(server);
                    join(previous, boot);
                }
                _ => merged.push((vec![server], boot)),
            }
        }
        let boots = merged.into_iter().rev().map(|(_, boot)| boot).collect();
        self.newest.map(|(_, client)| Client { boots, ..client })
    }
}

/// Returns whether requests that another server answered belong to the same boot.
fn continues(boot: &Boot, next: &Boot) -> bool {
    let gap = next.began - boot.last;
    let name = |file: Option<&File>| file.map(|file| file.name.clone());
    let first = name(boot.files.first());
    let is_reset = gap >= MIN_RESET_GAP && first == name(next.files.first()) && first != name(boot.files.last());
    gap < BOOT_GAP && !is_reset
}

/// Adds the requests that another server answered to a boot.
fn join(boot: &mut Boot, other: Boot) {
    boot.last = boot.last.max(other.last);
    boot.more = boot.more.saturating_add(other.more);
    boot.files.extend(other.files);
    let state = |mount: &Option<Mount>| mount.as_ref().map(|mount| mount.state);
    if state(&other.mount) > state(&boot.mount) {
        boot.mount = other.mount;
    }
    boot.files.sort_by(|a, b| a.began.total_cmp(&b.began));
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::history::snapshot::{BoardState, DiskStatus, State, Totals};

    use super::*;
    use crate::status::history::tests::{client, file};

    /// Returns a history in which one client has boots with these names and times of files.
    fn history(now: f64, summary: &str, boots: &[&[(&str, f64)]]) -> Snapshot {
        let boots = boots.iter().map(|files| {
            let files: Vec<_> =
                files.iter().map(|(name, began)| File { began: *began, ..file(name, State::Complete) }).collect();
            let (first, last) = (files[0].began, files[files.len() - 1].began);
            Boot { began: first, last: last + 1.0, more: 0, files, mount: None }
        });
        let client = Client { summary: summary.into(), boots: boots.rev().collect(), ..client(vec![]) };
        Snapshot { now, version: "1.2.3".into(), started: 0.0, totals: Totals::default(), clients: vec![client] }
    }

    /// Returns the files of each boot, the newest first, each with its server.
    fn merged(replies: Vec<(&str, Snapshot)>) -> (String, Vec<String>) {
        let mut view = merge(1000.0, replies.into_iter().map(|(name, snapshot)| (name.into(), Ok(snapshot))));
        let client = view.clients.pop().expect("a client");
        assert!(view.clients.is_empty(), "each client once");
        let text = |file: &File| format!("{}@{}", file.name, file.server.as_deref().unwrap_or("-"));
        let boots = client.boots.iter().map(|boot| boot.files.iter().map(text).collect::<Vec<_>>().join(" "));
        (client.summary, boots.collect())
    }

    #[test]
    fn requests_of_a_boot_are_in_one_list() {
        // The clock of `b` is 500 s behind.
        let a = history(1000.0, "of a", &[&[("config", 900.0), ("dtb", 902.0)]]);
        let b = history(500.0, "of b", &[&[("kernel", 401.0), ("initrd", 403.0)]]);
        let (summary, boots) = merged(vec![("b", b), ("a", a)]);
        assert_eq!((summary.as_str(), boots), ("of b", vec!["config@a kernel@b dtb@a initrd@b".into()]));
    }

    #[test]
    fn boots_are_told_apart_as_one_server_does() {
        let first = &[("config", 900.0), ("kernel", 902.0)][..];
        for (second, boots) in [
            (&[("config", 906.0), ("kernel", 907.0)][..], 2),
            (&[("config", 905.9), ("kernel", 907.0)], 1),
            (&[("config", 910.0)], 2),
            (&[("kernel", 910.0)], 1),
            (&[("initrd", 932.0)], 1),
            (&[("initrd", 933.1)], 2),
            (&[("config", 900.5)], 1),
        ] {
            let replies = vec![("a", history(1000.0, "", &[first])), ("b", history(1000.0, "", &[second]))];
            assert_eq!(merged(replies).1.len(), boots, "{second:?}");
        }
        // Two boots of one server, and a part of the second one.
        let both = history(1000.0, "", &[first, &[("config", 906.0), ("kernel", 908.0)]]);
        let part = history(1000.0, "", &[&[("initrd", 911.0)]]);
        let boots = merged(vec![("a", both), ("b", part)]).1;
        assert_eq!(boots, ["config@a kernel@a initrd@b", "config@a kernel@a"]);
    }

    #[test]
    fn a_server_that_has_not_seen_a_board_adds_its_name_and_disk() {
        let booted =
            Client { state: BoardState::Booted, ..history(1000.0, "", &[&[("kernel", 900.0)]]).clients.remove(0) };
        let silent = Client {
            name: Some("Rack 3".into()),
            state: BoardState::Silent,
            disk: Some(DiskStatus::Connected),
            ..client(vec![])
        };
        let silent = Client { boots: vec![], ..silent };
        let snapshot = |client: &Client| Snapshot { clients: vec![client.clone()], ..history(1000.0, "", &[]) };
        for order in [[&booted, &silent], [&silent, &booted]] {
            let replies = order.map(|client| ("nas".to_owned(), Ok(snapshot(client))));
            let found = merge(1000.0, replies).clients.remove(0);
            assert_eq!((found.name.as_deref(), found.state), (Some("Rack 3"), BoardState::Booted));
            assert_eq!((found.disk, found.boots.len()), (Some(DiskStatus::Connected), 1));
        }
    }

    #[test]
    fn missing_servers_are_named_and_texts_are_printable() {
        let mut hostile = history(f64::MAX, "\u{9b}2J", &[&[("\u{1b}[2J", 1.0)]]);
        hostile.version = "\u{202e}".into();
        hostile.clients[0].boots[0].files[0].why = Some("a\nb".into());
        let view = merge(1000.0, [("a".into(), Ok(hostile)), ("b".into(), Err("no reply".into()))]);
        assert_eq!(view.missing().collect::<Vec<_>>(), ["b: no reply"]);
        let json = view.json().expect("JSON");
        assert!(json.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{json}");
        assert!(json.contains(r#"{"server":"b","error":"no reply"}"#), "{json}");
        assert!(json.contains(r#"{"server":"a","version":"\\u{202e}","started":"#), "{json}");
    }
}
