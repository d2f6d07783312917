//! The recorded history: boots are known after a restart, and a bad disk loses them and does no other harm.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use rtftp_runtime::history::snapshot::{Client, Snapshot, State};
use rtftp_tests::{
    Hang, HangingFileSystem, Rtftp, binary, can_unshare, not_tested, poll_until, run, run_with_bad_arguments,
};
use tempfile::TempDir;

const BOARD: &str = "127.0.0.7";
const OTHER: &str = "127.0.0.8";
const SOON: Duration = Duration::from_secs(20);

/// A directory for the recorded boots, and the sockets of the daemons that use it.
struct Recorded {
    directory: TempDir,
}

impl Recorded {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        fs::create_dir(directory.path().join("history")).expect("created");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// Starts a daemon that records boots here.
    #[track_caller]
    fn start(&self) -> Rtftp {
        let (socket, history) = (self.text("socket"), self.text("history"));
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-socket", &socket, "--history", &history]);
        daemon.put("default/kernel", "a kernel");
        daemon.put("default/initrd", "an initrd");
        daemon
    }

    /// Waits until the daemon shows a client that meets a condition.
    #[track_caller]
    fn wait_for(&self, client: &str, meets: impl Fn(&Client) -> bool) -> Client {
        poll_until("the client", SOON, || {
            let mut json = String::new();
            UnixStream::connect(self.path("socket")).ok()?.read_to_string(&mut json).ok()?;
            let snapshot: Snapshot = serde_json::from_str(&json).expect("JSON");
            snapshot.clients.into_iter().find(|found| found.client == client && meets(found))
        })
    }

    /// Waits until a file of a client is recorded.
    #[track_caller]
    fn wait_for_line(&self, client: &str, file: &str) {
        poll_until("the recorded request", SOON, || {
            let lines = fs::read_to_string(self.path("history/boots.jsonl")).ok()?;
            let is_it = |line: &str| line.contains(&format!("\"{client}\"")) && line.contains(&format!("\"{file}\""));
            lines.split_inclusive('\n').any(|line| line.ends_with('\n') && is_it(line)).then_some(())
        });
    }
}

/// Returns the files of the last boot.
fn files(client: &Client) -> Vec<&str> {
    client.boots[0].files.iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn boots_are_shown_after_restart_and_kill() {
    let recorded = Recorded::new();
    let daemon = recorded.start();
    daemon.fetch(BOARD, "kernel").expect("a file");
    let before = recorded.wait_for(BOARD, |board| board.boots[0].files[0].state == State::Complete);
    daemon.stop(Signal::SIGTERM);

    let daemon = recorded.start();
    let after = recorded.wait_for(BOARD, |_| true);
    assert_eq!(after.boots, before.boots);
    let shown = run_with_bad_arguments(["status", "--once", "--socket", &recorded.text("socket")]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(BOARD) && shown.contains("kernel complete (requested "), "{shown}");
    daemon.fetch(OTHER, "initrd").expect("a file");
    recorded.wait_for_line(OTHER, "initrd");
    daemon.kill();

    let daemon = recorded.start();
    assert_eq!(recorded.wait_for(BOARD, |_| true).boots, before.boots);
    assert_eq!(files(&recorded.wait_for(OTHER, |_| true)), ["initrd"]);
    // The boot goes on.
    daemon.fetch(OTHER, "kernel").expect("a file");
    let other = recorded.wait_for(OTHER, |other| other.boots[0].files.len() == 2 || other.boots.len() == 2);
    let expected = if other.boots.len() == 1 { &["initrd", "kernel"][..] } else { &["kernel"] };
    assert_eq!(files(&other), expected);
}

#[test]
fn torn_and_foreign_lines_are_ignored() {
    let recorded = Recorded::new();
    let daemon = recorded.start();
    for (client, file) in [(BOARD, "kernel"), (OTHER, "initrd")] {
        daemon.fetch(client, file).expect("a file");
        recorded.wait_for_line(client, file);
    }
    daemon.stop(Signal::SIGTERM);
    let path = recorded.path("history/boots.jsonl");
    let lines = fs::read(&path).expect("a file");
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    file.set_len(lines.len() as u64 - 20).expect("torn");
    fs::write(recorded.path("history/boots.1.jsonl"), [b"\0\xff\n{}\n[".repeat(1000), vec![b'x'; 1 << 20]].concat())
        .expect("written");

    let daemon = recorded.start();
    daemon.logged(&["history ", "1 requests read", "lines ignored"]);
    assert_eq!(files(&recorded.wait_for(BOARD, |_| true)), ["kernel"]);
    daemon.fetch(OTHER, "kernel").expect("a file");
    recorded.wait_for_line(OTHER, "kernel");
    daemon.stop(Signal::SIGTERM);
    let daemon = recorded.start();
    assert_eq!(files(&recorded.wait_for(OTHER, |_| true)), ["kernel"]);
    daemon.stop(Signal::SIGTERM);
}

/// Lists the recorded boots.
fn since(recorded: &Recorded, args: &[&str]) -> Output {
    run_with_bad_arguments([&["status", "--since", "24h", "--history", &recorded.text("history")], args].concat())
}

#[test]
fn recorded_boots_are_listed_as_text_json_and_csv() {
    let recorded = Recorded::new();
    let daemon = recorded.start();
    daemon.fetch(BOARD, "kernel").expect("a file");
    recorded.wait_for_line(BOARD, "kernel");
    assert_eq!(daemon.fetch(OTHER, "=missing"), Err(1));
    // The daemon need not run.
    daemon.stop(Signal::SIGTERM);
    let text = |args: &[&str]| {
        let output = since(&recorded, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let table = text(&[]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("2 boots since ") && lines[0].ends_with(", 0 failed or refused"), "{table}");
    assert!(lines[2].contains(BOARD) && lines[2].ends_with("kernel complete"), "{table}");
    assert!(lines[3].contains(OTHER) && lines[3].contains("=missing missing: "), "{table}");
    assert_eq!(text(&[BOARD]).lines().count(), 3);
    let json: serde_json::Value = serde_json::from_str(&text(&["--json"])).expect("JSON");
    assert_eq!((&json["boots"][0]["client"], &json["boots"][0]["files"][0]["name"]), (&BOARD.into(), &"kernel".into()));
    let csv = text(&["--csv"]);
    let rows: Vec<_> = csv.lines().collect();
    assert!(rows.len() == 3 && rows[0].starts_with("client,began,seconds,"), "{csv}");
    assert!(rows[1].starts_with("\"127.0.0.7\",2") && rows[1].contains(",complete,\"kernel\",\"default/\","), "{csv}");
    assert!(rows[2].contains(",missing,\"'=missing\","), "{csv}");

    let empty = Recorded::new();
    let missing = since(&empty, &[]);
    let stderr = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(1) && stderr.contains("no boots are recorded here"), "{stderr}");
}

/// Runs a command in the mount namespace of the daemon.
#[track_caller]
fn run_beside(daemon: &Rtftp, command: &[&str]) {
    let id = daemon.process().id().to_string();
    run("nsenter", [&["--target", &id, "--mount"], command].concat());
}

#[test]
fn full_disk_loses_boots_says_so_once_and_recovers() {
    let namespace = ["--user", "--map-root-user", "--mount"];
    if !can_unshare(&namespace) {
        return;
    }
    let recorded = Recorded::new();
    let history = recorded.text("history");
    let script =
        r#"mount -t tmpfs -o size=64k none "$0" && { head -c 1M /dev/zero >"$0/filler" 2>/dev/null; exec "$@"; }"#;
    let mut command = Command::new("unshare");
    command.args(if nix::unistd::geteuid().is_root() { &namespace[2..] } else { &namespace });
    command
        .args(["sh", "-c", script, &history])
        .arg(binary("rtftp"))
        .args(["--history", &history])
        .stdin(Stdio::null());
    let daemon = Rtftp::start_by(&mut command);
    daemon.put("default/kernel", "a kernel");
    let fetch = || assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
    fetch();
    daemon.logged(&["history ", "boots are not recorded: No space left on device"]);
    (0..50).for_each(|_| fetch());
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    run_beside(&daemon, &["rm", &format!("{history}/filler")]);
    poll_until("boots are recorded again", SOON, || {
        fetch();
        (!daemon.log_lines(&["boots are recorded again, "]).is_empty()).then_some(())
    });
    assert_eq!(daemon.log_lines(&["boots are not recorded"]).len(), 1, "{:?}", daemon.log());
    run_beside(&daemon, &["grep", "-q", "\"kernel\"", &format!("{history}/boots.jsonl")]);
}

#[test]
fn unusable_directory_is_reported_and_boots_are_served() {
    let recorded = Recorded::new();
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--history", &recorded.text("missing")]);
    daemon.put("default/kernel", "a kernel");
    daemon.logged(&["boots are not recorded: ", "No such file or directory", "is the directory there"]);
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
}

#[test]
fn hanging_disk_delays_nothing() {
    let recorded = Recorded::new();
    let file_system = match HangingFileSystem::mount(&recorded.path("history")) {
        Ok(file_system) => file_system,
        Err(error) => return not_tested(format_args!("no permission to mount a file system: {error}")),
    };
    file_system.hang(Hang::Lookup);
    let daemon = recorded.start();
    for _ in 0..50 {
        assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
    }
    recorded.wait_for(BOARD, |board| board.boots[0].files.len() == 50);
    daemon.process().signal(Signal::SIGTERM);
    poll_until("the end of the daemon", SOON, || daemon.process().has_ended().then_some(()));
    drop(file_system);
    daemon.wait_for_end(SOON);
}

#[test]
fn second_daemon_waits_for_the_first_one() {
    let recorded = Recorded::new();
    let first = recorded.start();
    first.fetch(BOARD, "kernel").expect("a file");
    recorded.wait_for_line(BOARD, "kernel");
    let second = Rtftp::start_with("127.0.0.1", 3600, &["--history", &recorded.text("history")]);
    second.put("default/next", "of the second daemon");
    second.logged(&["history ", "in use by another rtftp"]);
    assert_eq!(second.fetch(OTHER, "next").as_deref(), Ok("of the second daemon"));
    assert!(!has_line(&recorded.path("history/boots.jsonl"), "next"));
    first.stop(Signal::SIGTERM);
    recorded.wait_for_line(OTHER, "next");
}

fn has_line(path: &Path, word: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|lines| lines.contains(word))
}
