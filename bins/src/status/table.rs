//! The table of clients and running transfers.

use std::collections::HashMap;

use rtftp_runtime::history::snapshot::{Boot, Client, File, Snapshot, State};

use super::text::{age, escape};
use crate::progress_bar::{megabytes, progress_bar};

/// Returns the lines of the table. Rates are those since the `previous` snapshot, or the average of the transfer without one.
pub(super) fn lines(now: &Snapshot, previous: Option<&Snapshot>) -> Vec<String> {
    let positions = previous.map(positions).unwrap_or_default();
    let mut lines = vec![headline(now), format!("{:<15} {:>12} {:>6} {:>9}  SUMMARY", "CLIENT", "BOOT", "FILES", "MB")];
    for client in &now.clients {
        let Some(boot) = client.boots.first() else { continue };
        lines.push(line(client, boot, now.now));
        for file in boot.files.iter().filter(|file| file.state == State::Running && file.blksize > 0) {
            let position = positions.get(&key(client, file)).zip(previous.map(|previous| previous.now));
            let (bytes, seconds) = match position {
                Some((acknowledged, then)) => (file.acknowledged.saturating_sub(*acknowledged), now.now - then),
                None => (file.acknowledged, file.seconds),
            };
            let rate = bytes as f64 / seconds.max(0.001);
            lines.push(format!("    {:<24} {}", escape(&file.name), progress_bar(file.acknowledged, file.size, rate)));
        }
    }
    lines
}

fn headline(now: &Snapshot) -> String {
    let totals = &now.totals;
    format!(
        "rtftp {}, up {}: {} requests, {} complete, {} probes, {} missing, {} refused, {} failed, {} running; {:.1} MB",
        escape(&now.version),
        age(now.now - now.started),
        totals.requests,
        totals.complete,
        totals.probes,
        totals.missing,
        totals.refused,
        totals.failed,
        totals.running,
        megabytes(totals.bytes as f64),
    )
}

/// Returns the line of a client and its last boot.
fn line(client: &Client, boot: &Boot, now: f64) -> String {
    let complete = boot.files.iter().filter(|file| file.state == State::Complete).count();
    let bytes: u64 = boot.files.iter().map(|file| file.acknowledged).fold(0, u64::saturating_add);
    format!(
        "{:<15} {:>12} {complete:>6} {:>9.1}  {}",
        escape(&client.client),
        age(now - boot.began) + " ago",
        megabytes(bytes as f64),
        escape(&client.summary),
    )
}

/// Returns the key of a transfer, the same in each snapshot.
fn key<'a>(client: &'a Client, file: &'a File) -> (&'a str, &'a str, i64) {
    // Rounded, since a time differs slightly between snapshots when the system clock was set.
    (&client.client, &file.name, file.began.round() as i64)
}

/// Returns the acknowledged bytes of the running transfers.
fn positions(snapshot: &Snapshot) -> HashMap<(&str, &str, i64), u64> {
    let last_boots = snapshot.clients.iter().filter_map(|client| Some((client, client.boots.first()?)));
    let files = last_boots.flat_map(|(client, boot)| boot.files.iter().map(move |file| (client, file)));
    let running = files.filter(|(_, file)| file.state == State::Running);
    running.map(|(client, file)| (key(client, file), file.acknowledged)).collect()
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::history::snapshot::Totals;

    use super::*;
    use crate::status::history::tests::{client, file};

    fn snapshot(now: f64, clients: Vec<Client>) -> Snapshot {
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
        Snapshot { now, version: "1.2.3".into(), started: 0.0, totals, clients }
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
            "CLIENT                  BOOT  FILES        MB  SUMMARY",
            "10.0.0.5            12 s ago      1       0.4  loading kernel8.img at 40 %",
            "    kernel8.img               40% [=========               ] 0.4 MB  0.1 MB/s  0:06 left",
        ];
        assert_eq!(lines(&now, Some(&before)), expected);
        assert!(lines(&now, None)[3].contains("0.2 MB/s"), "the average rate in {:?}", lines(&now, None));
    }

    #[test]
    fn escapes_names() {
        let mut hostile = client(vec![File { blksize: 512, ..file("\u{1b}[2J", State::Running) }]);
        hostile.client = "\u{1b}[1m".into();
        hostile.summary = "loading \u{1b}[2J\n".into();
        let mut now = snapshot(1.0, vec![hostile]);
        now.version = "\u{1b}c".into();
        assert!(lines(&now, None).iter().all(|line| line.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
    }
}
