use std::{fs, path::Path, thread, time::Instant};

use smol::block_on;

use super::{
    super::{History, request::TransferStart},
    *,
};
use crate::history::snapshot::{Client, MountState, State};

/// A journal of version 0.1.0, with a field of a later version in its last line.
const FIRST_VERSION: &str = include_str!("version-0.1.0.jsonl");

const SOON: Duration = Duration::from_secs(60);

fn board(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// Starts a history with a journal in this directory, and waits until the journal was read.
fn start(directory: &Path) -> History {
    let history = History::new();
    history.start_journal(directory);
    flush(&history);
    history
}

fn flush(history: &History) {
    let end = Instant::now() + SOON;
    while !block_on(history.flush_journal()) {
        assert!(Instant::now() < end, "the journal hangs");
    }
}

/// Waits until everything is written and the journal is not in use any more.
fn stop(history: History, directory: &Path) {
    flush(&history);
    drop(history);
    let (end, lock) = (Instant::now() + SOON, File::open(directory).expect("a directory"));
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(Instant::now() < end, "the thread has not ended");
        thread::yield_now();
    }
}

/// Returns the clients without the sentences, which tell the time since.
fn clients(history: &History) -> Vec<Client> {
    let mut clients = history.snapshot().clients;
    clients.sort_by(|a, b| a.client.cmp(&b.client));
    clients.into_iter().map(|client| Client { summary: String::new(), ..client }).collect()
}

fn complete(history: &History, client: IpAddr, name: &str) {
    let record = history.record_request(client, name.as_bytes());
    record.set_origin("10.0.0.5.nbd");
    let snapshot_age = Some(Duration::from_millis(1500));
    record.start_transfer(TransferStart {
        size: Some(1000),
        block_size: 1468,
        window_size: 4,
        snapshot_age,
        client_port: 0,
    });
    history.record_copy(client, name.as_bytes());
    record.note_activity(clock::now(), 1000, 2);
    record.finish(State::Complete, None);
}

#[test]
fn restored_history_equals_the_recorded_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = start(directory.path());
    complete(&history, board(5), "start4.elf");
    complete(&history, board(5), "a \"b\" \u{1b}[2J");
    let failed = history.record_request(board(5), b"kernel8.img");
    failed.set_boot_entry("Linux 6.1");
    failed.finish(State::Failed, Some("timed out"));
    for (state, text) in [(MountState::Written, "ext4 written \u{1b}"), (MountState::Mounted, "ext4 mounted")] {
        failed.set_mount(Mount { state, seconds: 12.5, text: text.into() });
    }
    failed.set_mount(Mount { state: MountState::Unchanged, seconds: 120.0, text: "less than is known".into() });
    drop(failed);
    history.record_http_request(board(6), b"missing").finish(State::Missing, None);
    let expected = clients(&history);
    assert_eq!((expected.len(), expected[0].boots[0].files.len()), (2, 3));
    stop(history, directory.path());
    let mounts: Vec<_> =
        boots_since(directory.path(), 0.0).expect("read").into_iter().map(|past| past.boot.mount).collect();
    assert_eq!(mounts, [expected[0].boots[0].mount.clone(), None]);
    assert_eq!(mounts[0].as_ref().map(|mount| mount.text.as_str()), Some("ext4 mounted"));

    let history = start(directory.path());
    assert_eq!(clients(&history), expected);
    let summary =
        &history.snapshot().clients.into_iter().find(|client| client.client == "10.0.0.5").expect("one").summary;
    assert!(summary.starts_with("kernel8.img failed (requested "), "{summary}");
    assert_eq!(history.totals(), Default::default(), "totals are those since the start");
    assert_eq!(history.metrics().boots, Default::default());
    // The boot goes on, also in the journal.
    complete(&history, board(5), "initrd");
    let expected = clients(&history);
    assert_eq!((expected[0].boots.len(), expected[0].boots[0].files.len()), (1, 4));
    stop(history, directory.path());
    let history = start(directory.path());
    assert_eq!(clients(&history), expected);
    stop(history, directory.path());
}

#[test]
fn restored_history_is_as_bounded_as_a_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = WallClock::now();
    let line = |client: IpAddr, age: f64, name: &str| {
        let time = now.to_unix(now.instant()) - age;
        let mut line = Line::parse(FIRST_VERSION.lines().next().expect("a line").as_bytes()).expect("valid");
        (line.boot, line.seen, line.event.client) = (time, Some(time + 1.0), client.to_string());
        (line.event.file.began, line.event.file.name) = (time, name.into());
        line
    };
    let mut journals = Journals::new(directory.path());
    for number in 0..3000_u32 {
        let client = IpAddr::from(0x0a00_0000_u32.wrapping_add(number).to_be_bytes());
        journals.append(true, &line(client, 100_000.0 - f64::from(number), "kernel")).expect("written");
    }
    for number in 0..500 {
        journals
            .append(true, &line(board(5), 50_000.0 - 40.0 * f64::from(number), &format!("boot{number}")))
            .expect("written");
    }
    // Lines of times that cannot be.
    for age in [-1000.0, f64::from(u32::MAX), 1e300, -1e300] {
        journals.append(true, &line(board(6), age, "kernel")).expect("written");
    }
    let history = start(directory.path());
    let clients = clients(&history);
    assert!(clients.len() <= 1024, "{}", clients.len());
    assert!(!clients.iter().any(|client| client.client == "10.0.0.6"));
    let client = clients.iter().find(|client| client.client == "10.0.0.5").expect("the client seen last");
    let names: Vec<_> = client.boots.iter().map(|boot| boot.files[0].name.as_str()).collect();
    assert_eq!(names, ["boot499", "boot498", "boot497", "boot496"]);
    stop(history, directory.path());
}

#[test]
fn forged_requests_do_not_displace_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = start(directory.path());
    complete(&history, board(5), "kernel");
    for number in 0..5000_u32 {
        let client = IpAddr::from(0x0b00_0000_u32.wrapping_add(number).to_be_bytes());
        history.record_request(client, b"forged").finish(State::Missing, None);
    }
    stop(history, directory.path());
    let lines = |name: &str| fs::read_to_string(directory.path().join(name)).expect("a file").lines().count();
    assert_eq!(lines("boots.jsonl"), 1);
    assert!((1000..1500).contains(&lines("unverified.jsonl")), "{}", lines("unverified.jsonl"));
}

#[test]
fn journal_of_the_first_version_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("boots.jsonl"), FIRST_VERSION).expect("written");
    let boots = boots_since(directory.path(), 0.0).expect("read");
    let files = |index: usize| -> Vec<_> {
        let boot: &PastBoot = &boots[index];
        boot.boot.files.iter().map(|file| (file.name.as_str(), file.state)).collect()
    };
    assert_eq!(boots.len(), 2);
    assert_eq!(
        (boots[0].client.as_str(), files(0)),
        ("10.0.0.5", vec![("config.txt", State::Complete), ("kernel8.img", State::Failed)])
    );
    assert_eq!((boots[1].client.as_str(), files(1)), ("10.0.0.6", vec![("start4.elf", State::Missing)]));
    assert_eq!((boots[0].boot.began, boots[0].boot.last), (1_764_400_000.25, 1_764_400_012.5));
    assert_eq!(boots[0].boot.files[1].why.as_deref(), Some("timed out"));
    assert_eq!(boots_since(directory.path(), 1_764_400_100.0).expect("read").len(), 1, "the last one");
    let empty = tempfile::tempdir().expect("a directory");
    assert_eq!(boots_since(empty.path(), 0.0).expect_err("no journal").kind(), io::ErrorKind::NotFound);
}
