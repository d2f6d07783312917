//! Boots from disks whose owners upgrade them at the same time, lose power, or are behind an NBD server that loses connections.
//!
//! The writes are those of a Linux kernel, recorded in `tests/recordings`. A seed chooses the file system, the state of the disk, which
//! writes fall between which reads of the server, and what fails. `DISK_SIMULATION_SEEDS` is the number of seeds,
//! `DISK_SIMULATION_SEED` a single one: a failing run prints the command that repeats it.
//!
//! What holds for each file that is received: it is one version of that file, not older than what was on the disk at the request, and
//! not newer than what was written at its end. "Not found" is never the answer. Without a failure of the NBD server and without writes,
//! the file is received.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rtftp_runtime::{
    files::{FileStore, OpenError},
    rtftp_core::RequestPath,
    smol::{Executor, block_on},
};
use rtftp_tests::{
    DiskConfig, RecordingNbdServer,
    power_cut::{Cut, CutDisk, Operation, Random},
    upgrade_recording::{FILES, RECORDED, RecordedFileSystem, UpgradeRecording, contents},
};
use tempfile::TempDir;

/// The default number of seeds.
const SEEDS: u64 = 300;

/// The number of boots at the same time: most of them wait for the next attempt to read a disk that is being written.
const THREADS: usize = 16;

/// The number of reads of the disk for each operation of the owner.
const READS: [usize; 5] = [1, 2, 3, 5, 9];

/// What befalls the disk during a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Its owner goes on with the upgrades.
    Upgrade,
    /// Its owner has been killed.
    Kill,
    /// Its drive has lost power, and with it some of the writes since the last flush.
    PowerCut,
}

/// What happened to the files of boots.
#[derive(Debug, Default)]
struct Report {
    received: u64,
    /// Those received in a version that was not the oldest possible.
    newer: u64,
    failed: u64,
}

/// A recording, and its operations for the server.
struct Recorded {
    file_system: RecordedFileSystem,
    recording: UpgradeRecording,
    operations: Arc<[Operation]>,
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings").join(format!("{name}.xz"))
}

fn read_recordings() -> Vec<Recorded> {
    let read = |file_system: RecordedFileSystem| {
        let recording = UpgradeRecording::read(&path_of(file_system.name)).expect("a recording");
        Recorded { file_system, operations: recording.operations.clone().into(), recording }
    };
    RECORDED.into_iter().map(read).collect()
}

/// Boots once from a boot server that has just been started. Returns what must not happen as an error.
async fn boot(
    seed: u64,
    recordings: &[Recorded],
    server: &RecordingNbdServer,
    files: &FileStore,
    report: &mut Report,
) -> Result<(), String> {
    let mut random = Random::new(seed);
    let Recorded { file_system, recording, operations } = &recordings[random.below(recordings.len())];
    let start = random.below(operations.len());
    let events = match file_system.mke2fs {
        Some(_) => &[Event::Upgrade, Event::Upgrade, Event::Kill, Event::PowerCut][..],
        // FAT has no journal: only what was flushed is whole.
        None => &[Event::Upgrade],
    };
    let event = events[random.below(events.len())];
    let cut = if event == Event::PowerCut { Cut::Power { unit: 512 } } else { Cut::Kill };
    let mut disk = CutDisk::new(recording.base.clone(), operations);
    server.replace_disk(disk.cut(start, cut, &mut random, |disk, _| disk.as_ref().clone()));
    match event {
        Event::Upgrade => server.play(operations.clone(), start, READS[random.below(READS.len())]),
        Event::Kill | Event::PowerCut => server.play([].into(), start, 1),
    }
    let loses_connection = random.below(4) == 0;
    server.close_connection_after(loses_connection.then(|| random.below(60)));
    for name in FILES {
        let before = server.played();
        let result = fetch(files, name).await;
        let after = server.played();
        let upgrades = &recording.upgrades;
        let oldest = upgrades.iter().rfind(|upgrade| upgrade.end <= before).map_or(0, |upgrade| upgrade.version);
        let newest = upgrades.iter().rfind(|upgrade| upgrade.begin < after).map_or(0, |upgrade| upgrade.version);
        let context =
            format!("{}, {event:?} after {start} operations, {name} from {before} to {after}", file_system.name);
        match result {
            Ok(bytes) => {
                let version = (oldest..=newest).find(|version| bytes == contents(name, *version));
                let version = version.ok_or_else(|| {
                    let line = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
                    format!("{context}: {} bytes are none of the versions {oldest} to {newest}: {line}", bytes.len())
                })?;
                report.received += 1;
                report.newer += u64::from(version > oldest);
            }
            Err(Failure::NotFound) => return Err(format!("{context}: not found")),
            Err(Failure::Unreadable(_)) if loses_connection || event == Event::Upgrade => report.failed += 1,
            Err(Failure::Unreadable(error)) => return Err(format!("{context}: {error}")),
        }
    }
    Ok(())
}

/// Why a file is not received.
enum Failure {
    NotFound,
    Unreadable(String),
}

async fn fetch(files: &FileStore, name: &str) -> Result<Vec<u8>, Failure> {
    let path = RequestPath::parse(name.as_bytes()).expect("a path");
    let client = SocketAddr::from(([10, 0, 0, 5], 1234));
    let mut file = files.open(client, &path).await.map_err(|error| match error {
        OpenError::NotFound { .. } => Failure::NotFound,
        error => Failure::Unreadable(error.to_string()),
    })?;
    let (mut received, mut buf) = (Vec::new(), vec![0; 8192]);
    let unreadable = |error| Failure::Unreadable(format!("{error:?}"));
    while let len @ 1.. = file.read_at(received.len() as u64, &mut buf).await.map_err(unreadable)? {
        received.extend_from_slice(&buf[..len]);
    }
    Ok(received)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs seeds until there is none left.
fn run(next: &AtomicU64, end: u64, recordings: &[Recorded]) -> Report {
    let server = RecordingNbdServer::start(recordings[0].recording.base.clone());
    let root = TempDir::new().expect("a directory");
    let config = DiskConfig::new(server.url()).partition(0, "/").tftp_root("/boot").backend("native");
    fs::write(root.path().join("10.0.0.5.nbd"), config.to_string()).expect("written");
    let mut report = Report::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return report;
        }
        let executor = Arc::new(Executor::new());
        let files = FileStore::new(root.path().to_owned(), executor.clone());
        let result = block_on(executor.run(async {
            let result = boot(seed, recordings, &server, &files, &mut report).await;
            files.close().await;
            result
        }));
        if let Err(violation) = result {
            next.store(end, Ordering::Relaxed);
            panic!(
                "{violation}\nrepeat it with:\nDISK_SIMULATION_SEED={seed} cargo test -p rtftp-tests --test disk_simulation"
            );
        }
    }
}

#[test]
fn boards_receive_one_version_while_owners_upgrade_lose_power_or_the_server_fails() {
    let (first, end) = match number("DISK_SIMULATION_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("DISK_SIMULATION_SEEDS").unwrap_or(SEEDS)),
    };
    let recordings = read_recordings();
    let next = AtomicU64::new(first);
    let total = Mutex::new(Report::default());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let report = run(&next, end, &recordings);
                let mut total = total.lock().expect("no other thread has failed");
                total.received += report.received;
                total.newer += report.newer;
                total.failed += report.failed;
            });
        }
    });
    let total = total.into_inner().expect("no thread has failed");
    let count = end - first;
    println!("{count} boots with two files each: {total:?}");
    if count >= SEEDS {
        assert!(total.received > count && total.newer > 0 && total.failed > 0, "{total:?}");
    }
}

#[test]
#[ignore = "writes tests/recordings anew, in a minute"]
fn records_upgrades() {
    for file_system in RECORDED {
        let recorded = UpgradeRecording::record(&file_system);
        let path = path_of(file_system.name);
        recorded.write(&path).expect("written");
        let UpgradeRecording { operations, upgrades, .. } = &recorded;
        println!("{}: {} operations, {} upgrades", file_system.name, operations.len(), upgrades.len());
        assert_eq!(UpgradeRecording::read(&path).expect("read"), recorded);
    }
}
