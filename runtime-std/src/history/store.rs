//! The bounded memory of who booted how.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use rtftp_core::Instant;

use super::{
    request::File,
    snapshot::{self, Wall},
    summary::place,
};

/// After this long without a word from the client its next request begins a new boot.
const GAP: Duration = Duration::from_secs(30);
/// After this long, a request for the first file of the boot begins a new one: no board is reset and back sooner. Without a pause
/// it is the same boot: boards ask for the size of their first file, look at another, and come back for it.
const RESET: Duration = Duration::from_secs(3);
/// How many boots of a client are kept.
const BOOTS: usize = 4;
/// How many files of a boot are kept, once its client has answered, and until then.
const FILES: (usize, usize) = (64, 32);
/// How many clients are kept: those that have answered, and strangers, whose addresses may be forged.
const CLIENTS: (usize, usize) = (1024, 256);
/// How many files are kept in all, of some 200 bytes each.
const ALL_FILES: usize = 32_768;
/// The record is held to the last two limits every so many requests.
const TIDY: u64 = 1024;

/// The last boots of the clients heard last.
#[derive(Debug, Default)]
pub(super) struct Record {
    clients: HashMap<IpAddr, Client>,
    requests: u64,
}

/// The last boots of a client, the newest in front.
#[derive(Debug, Default)]
struct Client {
    boots: VecDeque<Boot>,
}

#[derive(Debug)]
struct Boot {
    /// What it began with, which is asked for again when the board is reset.
    first: Arc<File>,
    /// The last request, or copy of one.
    asked: Instant,
    /// The last files, in the order they were asked for.
    files: Vec<Arc<File>>,
    /// How many were not kept.
    more: u64,
}

impl Record {
    /// Notes a request.
    pub(super) fn asked(&mut self, client: IpAddr, name: &[u8], now: Instant) -> Arc<File> {
        self.requests += 1;
        if self.requests.is_multiple_of(TIDY) {
            self.tidy();
        }
        let file = Arc::new(File::new(name, now));
        self.clients.entry(client).or_default().asked(file.clone(), now);
        file
    }

    /// Notes that a client has repeated the request that is being answered.
    pub(super) fn repeated(&mut self, client: IpAddr, name: &[u8], now: Instant) {
        let Some(boot) = self.clients.get_mut(&client).and_then(|client| client.boots.front_mut()) else { return };
        boot.asked = now;
        if let Some(file) = boot.files.iter().rev().find(|file| file.ended().is_none() && file.is_named(name)) {
            file.repeated();
        }
    }

    /// How many clients there are.
    pub(super) fn known(&self) -> usize {
        self.clients.len()
    }

    /// The clients, the one heard last first.
    pub(super) fn clients(&self) -> Vec<IpAddr> {
        let mut clients: Vec<_> = self.clients.iter().map(|(ip, client)| (Reverse(client.last()), *ip)).collect();
        clients.sort_unstable();
        clients.into_iter().map(|(_, ip)| ip).collect()
    }

    /// A client as it is now, if it is still kept.
    pub(super) fn snapshot(&self, client: IpAddr, now: Wall) -> Option<snapshot::Client> {
        let boots = &self.clients.get(&client)?.boots;
        Some(snapshot::Client {
            client: client.to_string(),
            place: place(boots.front()?.files.iter().map(Arc::as_ref), now),
            boots: boots.iter().map(|boot| boot.snapshot(now)).collect(),
        })
    }

    /// Forgets what is too much: of strangers, who must never push out those that have answered, all but the last boot of those
    /// heard last; of the others those heard longest ago, and the oldest boots.
    fn tidy(&mut self) {
        let (known, strangers): (Vec<_>, Vec<_>) =
            self.clients().into_iter().partition(|ip| self.clients.get(ip).is_some_and(Client::is_verified));
        for ip in known.iter().skip(CLIENTS.0).chain(strangers.iter().skip(CLIENTS.1)) {
            self.clients.remove(ip);
        }
        for ip in strangers.iter().take(CLIENTS.1) {
            self.clients.entry(*ip).and_modify(|stranger| stranger.boots.truncate(1));
        }
        self.forget_old_boots();
    }

    /// Forgets the oldest boots until there are not too many files, those that are not the last of their client first.
    fn forget_old_boots(&mut self) {
        let mut files: usize = self.boots().map(|(.., boot)| boot.files.len()).sum();
        if files <= ALL_FILES {
            return;
        }
        let mut boots: Vec<_> = self.boots().map(|(ip, nth, boot)| (nth == 0, boot.last(), ip)).collect();
        boots.sort_unstable();
        for (_, _, ip) in boots {
            if files <= ALL_FILES {
                return;
            }
            // The oldest of a client is at the end.
            let Some(client) = self.clients.get_mut(&ip) else { continue };
            files -= client.boots.pop_back().map_or(0, |boot| boot.files.len());
            if client.boots.is_empty() {
                self.clients.remove(&ip);
            }
        }
    }

    /// All boots, with their client and their place in its list.
    fn boots(&self) -> impl Iterator<Item = (IpAddr, usize, &Boot)> {
        self.clients
            .iter()
            .flat_map(|(ip, client)| client.boots.iter().enumerate().map(move |(nth, boot)| (*ip, nth, boot)))
    }
}

impl Client {
    /// Notes a request, in the boot that goes on or in a new one.
    fn asked(&mut self, file: Arc<File>, now: Instant) {
        match self.boots.front_mut() {
            Some(boot) if !boot.is_over(&file, now) => boot.push(file, now),
            _ => {
                self.boots.push_front(Boot { first: file.clone(), asked: now, files: vec![file], more: 0 });
                if self.boots.len() > BOOTS {
                    // One in which nobody answered is worth least: anybody can have sent it.
                    let forged = self.boots.iter().skip(1).rposition(|boot| !boot.is_verified());
                    self.boots.remove(forged.map_or(BOOTS, |nth| nth + 1));
                }
            }
        }
    }

    /// When it was last heard.
    fn last(&self) -> Option<Instant> {
        self.boots.front().map(Boot::last)
    }

    /// Whether it has ever answered.
    fn is_verified(&self) -> bool {
        self.boots.iter().any(Boot::is_verified)
    }
}

impl Boot {
    /// Whether a request for this file, now, belongs to another boot.
    fn is_over(&self, file: &File, now: Instant) -> bool {
        let quiet = now.since(self.last());
        let looked_further = || self.files.last().is_some_and(|last| !last.is_named_as(&self.first));
        quiet >= GAP || quiet >= RESET && file.is_named_as(&self.first) && looked_further()
    }

    /// Notes one more file, in place of an older one if need be: one that was not sent, if there is such.
    fn push(&mut self, file: Arc<File>, now: Instant) {
        self.asked = now;
        let limit = if self.is_verified() { FILES.0 } else { FILES.1 };
        if self.files.len() >= limit {
            let least = self.files.iter().position(|file| file.last_heard().is_none()).unwrap_or(0);
            self.files.remove(least);
            self.more += 1;
        }
        self.files.push(file);
    }

    /// When the client was last heard in it.
    fn last(&self) -> Instant {
        self.files.iter().filter_map(|file| file.last_heard()).fold(self.asked, Instant::max)
    }

    fn is_verified(&self) -> bool {
        self.files.iter().any(|file| file.last_heard().is_some())
    }

    fn snapshot(&self, now: Wall) -> snapshot::Boot {
        snapshot::Boot {
            began: now.of(self.first.began()),
            last: now.of(self.last()),
            more: self.more,
            files: self.files.iter().map(|file| file.snapshot(now)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(1000 * millis)
    }

    fn board(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    /// The names of the files of each boot, the newest boot first.
    fn boots(record: &Record, client: IpAddr) -> Vec<Vec<String>> {
        let client = record.snapshot(client, Wall::now()).expect("a client that is kept");
        client.boots.into_iter().map(|boot| boot.files.into_iter().map(|file| file.name).collect()).collect()
    }

    /// Asks for files, one every 100 ms from a time on, and answers if the board is `proven`; returns when the last was asked for.
    fn ask(record: &mut Record, client: IpAddr, from: u64, names: &[&str], proven: bool) -> u64 {
        let mut now = from;
        for (nth, name) in names.iter().enumerate() {
            now = from + 100 * nth as u64;
            let file = record.asked(client, name.as_bytes(), at(now));
            if proven {
                file.heard(at(now));
            }
        }
        now
    }

    #[test]
    fn a_boot_ends_with_a_long_silence() {
        let (mut record, one) = (Record::default(), board(1));
        let last = ask(&mut record, one, 1_000, &["a", "b"], true);
        let last = ask(&mut record, one, last + 29_999, &["c"], true);
        ask(&mut record, one, last + 30_000, &["d"], true);
        assert_eq!(boots(&record, one), [vec!["d"], vec!["a", "b", "c"]]);
    }

    #[test]
    fn what_is_heard_in_a_transfer_is_no_silence() {
        let (mut record, one) = (Record::default(), board(1));
        let file = record.asked(one, b"large", at(0));
        file.heard(at(100_000));
        ask(&mut record, one, 129_999, &["b"], true);
        record.repeated(one, b"b", at(150_000));
        ask(&mut record, one, 179_999, &["c"], true);
        assert_eq!(boots(&record, one), [["large", "b", "c"]]);
    }

    /// A Raspberry Pi 4 asks whether `start4.elf` is there, looks at `config.txt` and comes back for it.
    #[test]
    fn the_first_file_again_begins_a_boot_only_after_a_pause() {
        let (mut record, one) = (Record::default(), board(1));
        let pi = ["serial/start4.elf", "serial/config.txt", "serial/start4.elf", "serial/kernel8.img"];
        let last = ask(&mut record, one, 0, &pi, true);
        ask(&mut record, one, last + 2_999, &pi, true);
        assert_eq!(boots(&record, one), [[pi, pi].concat()], "too soon for a reset");
        let last = ask(&mut record, one, 20_000, &pi, true);
        assert_eq!(boots(&record, one).len(), 2);
        ask(&mut record, one, last + 3_000, &pi[1..], true);
        assert_eq!(boots(&record, one).len(), 2, "not with the first file");
    }

    #[test]
    fn the_first_file_over_and_over_is_one_boot() {
        let (mut record, one) = (Record::default(), board(1));
        for from in [0, 5_000, 10_000] {
            ask(&mut record, one, from, &["pxelinux.0"], false);
        }
        assert_eq!(boots(&record, one), [["pxelinux.0"; 3]]);
    }

    #[test]
    fn the_last_boots_are_kept_and_the_last_files_of_each() {
        let (mut record, one) = (Record::default(), board(1));
        for boot in 0..=BOOTS as u64 {
            ask(&mut record, one, boot * 40_000, &[&format!("of {boot}")], true);
        }
        let kept = boots(&record, one);
        assert_eq!(
            (kept.len(), &kept[0][..], &kept[BOOTS - 1][..]),
            (BOOTS, &["of 4".into()][..], &["of 1".into()][..])
        );

        let names: Vec<_> = (0..=FILES.0).map(|nth| format!("file {nth}")).collect();
        ask(&mut record, board(2), 0, &names.iter().map(String::as_str).collect::<Vec<_>>(), true);
        assert_eq!(boots(&record, board(2)), [&names[1..]]);
        assert_eq!(record.snapshot(board(2), Wall::now()).map(|client| client.boots[0].more), Some(1));
    }

    #[test]
    fn what_nobody_answered_makes_room_before_what_was_sent() {
        let (mut record, one) = (Record::default(), board(1));
        ask(&mut record, one, 0, &["kernel", "initrd"], true);
        let forged: Vec<_> = (0..200).map(|nth| format!("missing {nth}")).collect();
        ask(&mut record, one, 500, &forged.iter().map(String::as_str).collect::<Vec<_>>(), false);
        let kept = boots(&record, one);
        assert_eq!((kept[0].len(), &kept[0][..2]), (FILES.0, &["kernel".to_owned(), "initrd".to_owned()][..]));
        assert_eq!(kept[0].last(), forged.last(), "the last question is kept, whoever asked it");

        for boot in 1..100 {
            ask(&mut record, one, boot * 40_000, &["forged"], false);
        }
        let kept = boots(&record, one);
        assert_eq!(
            (kept.len(), &kept[0][..], &kept[BOOTS - 1][0]),
            (BOOTS, &["forged".into()][..], &"kernel".to_owned())
        );
    }

    #[test]
    fn copies_are_counted_where_they_belong() {
        let (mut record, one) = (Record::default(), board(1));
        let done = record.asked(one, b"a", at(0));
        done.end(at(1), snapshot::State::Complete, None);
        record.asked(one, b"a", at(2));
        record.asked(one, b"b", at(3));
        for _ in 0..3 {
            record.repeated(one, b"a", at(4));
        }
        record.repeated(one, b"c", at(5));
        record.repeated(board(2), b"a", at(5));
        let client = record.snapshot(one, Wall::now()).expect("a client");
        assert_eq!(client.boots[0].files.iter().map(|file| file.copies).collect::<Vec<_>>(), [0, 3, 0]);
    }

    #[test]
    fn a_flood_of_strangers_pushes_nobody_out() {
        let mut record = Record::default();
        let boards: Vec<_> = (0..CLIENTS.0 as u32).map(board).collect();
        for (nth, board) in boards.iter().enumerate() {
            ask(&mut record, *board, nth as u64, &["start4.elf", "kernel8.img"], true);
        }
        for nth in 0..100_000 {
            ask(&mut record, board(1_000_000 + nth), 5_000 + u64::from(nth), &["forged"], false);
        }
        for board in boards {
            assert_eq!(boots(&record, board), [["start4.elf", "kernel8.img"]], "{board}");
        }
        let most = CLIENTS.0 + CLIENTS.1 + TIDY as usize;
        assert!(record.clients.len() <= most, "{} clients", record.clients.len());
    }

    #[test]
    fn strangers_have_little_of_the_memory_however_much_they_ask() {
        let mut record = Record::default();
        for nth in 0..200_000 {
            ask(&mut record, board(nth % 300), 100 * u64::from(nth), &["forged"], false);
        }
        let files: usize = record.boots().map(|(.., boot)| boot.files.len()).sum();
        let most = CLIENTS.1 * FILES.1 + TIDY as usize;
        assert!(files <= most, "{files} files, {most} allowed");
    }

    #[test]
    fn of_too_many_clients_those_heard_last_are_kept() {
        let mut record = Record::default();
        let count = 2 * (CLIENTS.0 as u32 + TIDY as u32);
        for nth in 0..count {
            ask(&mut record, board(nth), u64::from(nth), &["file"], true);
        }
        record.tidy();
        let kept = record.clients();
        assert_eq!((kept.len(), kept[0]), (CLIENTS.0, board(count - 1)));
        assert!(!kept.contains(&board(count - 1 - CLIENTS.0 as u32)));
    }

    #[test]
    fn of_too_many_files_the_oldest_boots_go_and_the_last_of_each_client_stays() {
        let mut record = Record::default();
        let names: Vec<_> = (0..60).map(|nth| format!("file {nth}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for boot in 0..3 {
            for nth in 0..500 {
                ask(&mut record, board(nth), boot * 100_000, &names, true);
            }
        }
        record.tidy();
        let files: usize = record.boots().map(|(.., boot)| boot.files.len()).sum();
        assert!((ALL_FILES - 60..=ALL_FILES).contains(&files), "{files}");
        assert!((0..500).all(|nth| boots(&record, board(nth))[0].len() == 60));
    }
}
