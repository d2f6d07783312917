//! A file system that does not answer delays requests for its own files only.

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_runtime::history::snapshot::{Snapshot, State};
use rtftp_tests::{
    Answer, Client, Hang, HangingFileSystem, Rtftp, assert_same, not_tested, poll_until, raw_client::rrq,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
const LOCAL_CLIENT: &str = "127.0.0.7";
const OTHER_CLIENT: &str = "127.0.0.8";

/// A daemon whose directory `default` is a file system that can hang, and a local file of one client.
struct Served {
    // Dropped first, so that a daemon that is killed after a failure can end.
    file_system: HangingFileSystem,
    daemon: Rtftp,
    directory: TempDir,
}

impl Served {
    /// Returns `None` without the permission to mount a file system.
    fn start() -> Option<Self> {
        let directory = TempDir::new().expect("a directory");
        let socket = directory.path().join("status.sock");
        let socket = socket.to_str().expect("UTF-8");
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--read-limit", "1", "--status-socket", socket]);
        daemon.put(&format!("{LOCAL_CLIENT}/own"), "own");
        fs::create_dir(daemon.path("default")).expect("created");
        match HangingFileSystem::mount(&daemon.path("default")) {
            Ok(file_system) => Some(Self { file_system, daemon, directory }),
            Err(error) => {
                not_tested(format_args!("no permission to mount a file system: {error}"));
                None
            }
        }
    }

    /// Returns the longest time of 50 transfers of a local file.
    fn worst_local_transfer(&self) -> Duration {
        let transfer = |_| {
            let start = Instant::now();
            assert_eq!(self.daemon.fetch(LOCAL_CLIENT, "own").as_deref(), Ok("own"));
            start.elapsed()
        };
        (0..50).map(transfer).max().expect("50 transfers")
    }

    fn status(&self) -> Snapshot {
        let mut json = String::new();
        let mut socket = UnixStream::connect(self.directory.path().join("status.sock")).expect("connected");
        socket.read_to_string(&mut json).expect("a reply");
        serde_json::from_str(&json).expect("JSON")
    }

    /// Requests the file on the other file system, and returns the client.
    fn request(&self) -> Client {
        let client = self.daemon.client(OTHER_CLIENT);
        client.request(&rrq("file", &[]));
        client
    }

    /// Ends the daemon while calls hang, and then lets them return.
    fn stop(self) {
        let start = Instant::now();
        self.daemon.process().signal(Signal::SIGTERM);
        poll_until("the end of the daemon", Duration::from_secs(4), || self.daemon.process().has_ended().then_some(()));
        println!("ended {:?} after SIGTERM", start.elapsed());
        drop(self.file_system);
        self.daemon.stop(Signal::SIGTERM);
    }
}

#[track_caller]
fn delays_only_its_own_files(hang: Hang) {
    let Some(served) = Served::start() else { return };
    let content = served.daemon.client(OTHER_CLIENT).fetch("file", &[]).expect("the file system works");
    assert_same(&content, &HangingFileSystem::content(), "the file");
    served.file_system.hang(hang);
    // More than calls that the server makes to one directory at a time.
    let clients: Vec<Client> = (0..12).map(|_| served.request()).collect();
    let worst = served.worst_local_transfer();
    let start = Instant::now();
    served.status();
    let status = start.elapsed();
    println!("{hang:?}: worst local transfer {worst:?}, status {status:?}");
    // The daemon waits 200 ms for a request on the status socket.
    assert!(worst < Duration::from_millis(100) && status < Duration::from_secs(1));
    for mut client in clients {
        match client.receive_within(SOON).expect("an answer") {
            Answer::Error(0, text) => assert!(text.contains("does not answer"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    let words = ["default: its file system has not answered for 1 s"];
    served.daemon.logged(&words);
    assert_eq!(served.daemon.log_lines(&["ERROR", words[0]]).len(), 1, "told once");
    let failed = poll_until("the end of all requests", SOON, || {
        let other = served.status().clients.into_iter().find(|client| client.client == OTHER_CLIENT)?;
        let files = &other.boots.last()?.files;
        let failed = files.iter().filter(|file| file.state == State::Failed).count();
        (failed >= 1 && !files.iter().any(|file| file.state == State::Running)).then_some(failed)
    });
    println!("{failed} requests failed");
    served.stop();
}

#[test]
fn hanging_lookup_delays_no_other_files() {
    delays_only_its_own_files(Hang::Lookup);
}

#[test]
fn hanging_open_delays_no_other_files() {
    delays_only_its_own_files(Hang::Open);
}

#[test]
fn hanging_attributes_delay_no_other_files() {
    delays_only_its_own_files(Hang::Attributes);
}

#[test]
fn hanging_read_delays_no_other_files() {
    delays_only_its_own_files(Hang::Read);
}

#[test]
fn hanging_close_delays_no_other_files() {
    let Some(served) = Served::start() else { return };
    served.file_system.hang(Hang::Flush);
    for _ in 0..12 {
        let content = served.daemon.client(OTHER_CLIENT).fetch("file", &[("blksize", "8192")]);
        if let Err(error) = content {
            assert_eq!(error.code(), 0, "all places are taken");
        }
        let worst = served.worst_local_transfer();
        assert!(worst < Duration::from_millis(100), "{worst:?}");
    }
    served.stop();
}

#[test]
fn answers_again_when_the_file_system_does() {
    let Some(served) = Served::start() else { return };
    served.file_system.hang(Hang::Open);
    let mut client = served.request();
    assert!(matches!(client.receive_within(SOON), Some(Answer::Error(0, _))));
    // Other calls of the directory are still answered.
    served.file_system.hang(Hang::Never);
    let content = served.daemon.client(OTHER_CLIENT).fetch("file", &[]).expect("the file system works");
    assert_same(&content, &HangingFileSystem::content(), "the file");
    served.stop();
}
