//! `rtftp status` on a terminal: rows that stay, keys, and a terminal that is left as it was.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rtftp_runtime::history::snapshot::{BoardState, Boot, Client, File, Protocol, Snapshot, State, Totals};
use rtftp_tests::{Tmux, binary, poll_until};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
/// Boards of which the third one fails.
const BOARDS: [&str; 5] = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14", "10.0.0.15"];
const REASON: &str =
    "kernel failed (requested 9 s ago): 10.0.0.13.nbd: nbd://nas/board: Connection refused (os error 111)";

/// A status socket with a history that does not depend on the speed of the machine.
struct Served {
    snapshot: Arc<Mutex<Snapshot>>,
    directory: TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let clients = BOARDS.map(board).into();
        let totals = Totals { requests: 5, complete: 5, ..Totals::default() };
        let snapshot = Snapshot { now: 1010.0, version: "1.2.3".into(), started: 900.0, totals, clients };
        let snapshot = Arc::new(Mutex::new(snapshot));
        let listener = UnixListener::bind(directory.path().join("socket")).expect("a socket");
        let served = snapshot.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let json = serde_json::to_vec(&*served.lock().expect("no panic")).expect("JSON");
                // Fails if the program has ended.
                let _ = stream.expect("a connection").write_all(&json);
            }
        });
        let served = Self { snapshot, directory };
        served.fail(2);
        served
    }

    /// Lets the request of a board fail.
    fn fail(&self, index: usize) {
        let client = &mut self.snapshot.lock().expect("no panic").clients[index];
        (client.state, client.summary) = (BoardState::Failed, REASON.into());
        client.boots[0].files[0].state = State::Failed;
    }

    /// Shows the status on a terminal. After its end, the exit code and the modes of the terminal are shown.
    fn status(&self, columns: u16, rows: u16, before: &str, args: &str) -> Tmux {
        let (program, socket, pid) = (binary("rtftp"), self.path("socket"), self.path("pid"));
        let status = format!("{before} exec {} status --socket {} {args}", program.display(), socket.display());
        let modes = "stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon -e isig";
        let after = format!("echo ended $?; {modes}; echo all modes; sleep 1000");
        Tmux::start(columns, rows, &format!("sh -c 'echo $$ >{}; {status}'; {after}", pid.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Returns a board that has fetched its kernel.
fn board(address: &str) -> Client {
    let file = File {
        name: "kernel".into(),
        protocol: Protocol::Tftp,
        origin: Some("default/".into()),
        boot_entry: None,
        state: State::Complete,
        why: None,
        began: 1001.0,
        seconds: 1.0,
        size: Some(1000),
        acknowledged: 1000,
        retransmitted: 0,
        copies: 0,
        blksize: 512,
        windowsize: 1,
        snapshot_age: None,
        server: None,
    };
    Client {
        client: address.into(),
        name: None,
        state: BoardState::Booted,
        status: "kernel complete".into(),
        summary: "kernel complete (requested 9 s ago)".into(),
        disk: None,
        boots: vec![Boot { began: 1001.0, last: 1002.0, more: 0, files: vec![file], mount: None }],
        log: vec![],
    }
}

/// Returns the boards on the screen, from the top to the bottom.
fn boards(screen: &str) -> Vec<&str> {
    screen.lines().filter_map(|line| line.split(' ').next()).filter(|word| BOARDS.contains(word)).collect()
}

/// Waits until the program has ended, and asserts that the terminal is as before.
#[track_caller]
fn assert_restored(terminal: &Tmux) {
    let screen = terminal.wait_for("the end of the program", |screen| screen.contains("all modes"));
    assert!(
        ["ended 0", "echo", "icanon", "isig"].iter().all(|line| screen.lines().any(|shown| shown == *line)),
        "{screen}"
    );
    assert!(terminal.is_ordinary(), "{screen}");
}

#[test]
fn rows_stay_and_reasons_are_whole_in_all_widths() {
    let served = Served::start();
    let terminals = [80, 100, 200].map(|columns| served.status(columns, 24, "unset NO_COLOR;", "--follow"));
    for terminal in &terminals {
        let screen = terminal.wait_for("the boards", |screen| screen.contains(BOARDS[4]));
        assert_eq!(boards(&screen), BOARDS, "{screen}");
        let text = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(REASON), "{screen}");
        let row = terminal.coloured_screen().lines().find(|row| row.contains(BOARDS[2])).map(str::to_owned);
        assert!(row.as_ref().is_some_and(|row| row.starts_with("\x1b[31m")), "red: {row:?}");
    }
    served.fail(3);
    for terminal in &terminals {
        let screen = terminal.wait_for("the second failure", |screen| screen.contains("2 failed"));
        assert_eq!(boards(&screen), BOARDS, "{screen}");
    }
}

#[test]
fn keys_filter_search_open_and_quit() {
    let served = Served::start();
    let terminal = served.status(100, 24, "export NO_COLOR=1;", "");
    terminal.wait_for("the boards", |screen| boards(screen) == BOARDS);
    let screen = terminal.coloured_screen();
    assert!(!screen.contains("\x1b[31m"), "no colours: {}", screen.escape_debug());
    terminal.press(&["f"]);
    terminal.wait_for("the failed board", |screen| boards(screen) == [BOARDS[2]]);
    terminal.press(&["f", "End", "Down", "Up", "Up", "Down"]);
    terminal.wait_for("all boards", |screen| boards(screen) == BOARDS);
    terminal.press(&["Enter"]);
    terminal.wait_for("the boots of the fourth board", |screen| screen.starts_with(&format!("{}: ", BOARDS[3])));
    terminal.press(&["Escape"]);
    terminal.wait_for("all boards", |screen| boards(screen) == BOARDS);
    terminal.press(&["Up", "Enter"]);
    terminal.wait_for("the boots of the third board", |screen| screen.starts_with(&format!("{}: ", BOARDS[2])));
    let more = File { name: "initrd".into(), ..board("").boots[0].files[0].clone() };
    served.snapshot.lock().expect("no panic").clients[2].boots[0].files.push(more);
    terminal.wait_for("the second request", |screen| screen.contains(" initrd  "));
    terminal.press(&["Escape"]);
    terminal.wait_for("all boards", |screen| boards(screen) == BOARDS);
    terminal.press(&["/", "0.0.15", "Enter"]);
    terminal.wait_for("the board that was searched", |screen| boards(screen) == [BOARDS[4]]);
    terminal.resize(40, 9);
    terminal.wait_for("a smaller screen", |screen| screen.lines().nth(8).is_some_and(|row| row.starts_with("q quit")));
    terminal.press(&["q"]);
    assert_restored(&terminal);
}

#[test]
fn terminal_is_restored_after_signals_and_without_a_server() {
    let served = Served::start();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let _ = fs::remove_file(served.path("pid"));
        let terminal = served.status(80, 24, "", "--follow");
        terminal.wait_for("the boards", |screen| boards(screen) == BOARDS);
        assert!(!terminal.is_ordinary());
        kill(pid(&served.path("pid")), signal).expect("sent");
        assert_restored(&terminal);
    }
    let terminal = served.status(80, 24, "", BOARDS[0]);
    terminal.wait_for("the boots of a board", |screen| screen.contains("kernel complete"));
    fs::remove_file(served.path("socket")).expect("removed");
    terminal.wait_for("the lost server", |screen| {
        screen.contains("not up to date: ") && screen.contains("kernel complete")
    });
    terminal.press(&["C-c"]);
    assert_restored(&terminal);
}

fn pid(file: &Path) -> Pid {
    let text = poll_until("the process ID", SOON, || fs::read_to_string(file).ok().filter(|text| text.ends_with('\n')));
    Pid::from_raw(text.trim().parse().expect("a number"))
}
