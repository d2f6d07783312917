//! The status socket and `rtftp status`.

mod terminal;

use std::{
    fs,
    io::{BufRead, BufReader, Read as _},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use rtftp_runtime::history::snapshot::{BoardState, Client, DiskStatus, Event, Snapshot, State};
use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Process, Rtftp, Tree, binary, noise, poll_until,
    raw_client::{ack, error, rrq},
    run_with_bad_arguments,
};
use tempfile::TempDir;

const BOARD: &str = "127.0.0.7";
const SOON: Duration = Duration::from_secs(10);

/// Starts a daemon with a status socket in a temporary directory.
fn daemon() -> (TempDir, String, Rtftp) {
    let directory = TempDir::new().expect("a temporary directory");
    let socket = directory.path().join("status.sock").to_str().expect("UTF-8").to_owned();
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-socket", &socket]);
    (directory, socket, daemon)
}

/// Reads a snapshot from the socket.
fn snapshot(socket: &str) -> Snapshot {
    let mut json = String::new();
    UnixStream::connect(socket).expect("connected").read_to_string(&mut json).expect("a reply");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// Waits until the requests of the last boot of the board are in these states.
#[track_caller]
fn wait_for_states(socket: &str, states: &[State]) -> Client {
    poll_until("the states of the requests", SOON, || {
        let board = snapshot(socket).clients.into_iter().find(|client| client.client == BOARD)?;
        let found: Vec<_> = board.boots[0].files.iter().map(|file| file.state).collect();
        (found == states).then_some(board)
    })
}

/// Runs `rtftp status`.
fn status(socket: &str, args: &[&str]) -> Output {
    run_with_bad_arguments([&["status", "--socket", socket], args].concat())
}

/// Returns the output of `rtftp status`, which must be printable ASCII.
#[track_caller]
fn output(socket: &str, args: &[&str]) -> String {
    let output = status(socket, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{}", output.stdout.escape_ascii());
    String::from_utf8(output.stdout).expect("ASCII")
}

#[test]
fn shows_every_request_of_a_boot() {
    let (_directory, socket, daemon) = daemon();
    daemon.put("default/config.txt", "arm_64bit=1");
    daemon.put("default/kernel", noise(1 << 20, 1));
    let mut client = daemon.client(BOARD);
    client.exchange(&rrq("config.txt", &[("tsize", "0")]));
    client.reply(&error(8, "User aborted the transfer"));
    wait_for_states(&socket, &[State::Probe]);
    assert_eq!(daemon.fetch(BOARD, "start4.elf"), Err(1));
    assert_eq!(daemon.fetch(BOARD, "config.txt").as_deref(), Ok("arm_64bit=1"));
    assert_eq!(daemon.fetch(BOARD, "../\u{1b}[2J"), Err(2));
    wait_for_states(&socket, &[State::Probe, State::Missing, State::Complete, State::Refused]);

    let mut stalled = daemon.client(BOARD);
    let request = rrq("kernel", &[("blksize", "1024"), ("windowsize", "4")]);
    stalled.exchange(&request);
    stalled.request(&request);
    stalled.acknowledge(0);
    stalled.reply(&ack(512));
    stalled.reply(&ack(4));
    let running = [State::Probe, State::Missing, State::Complete, State::Refused, State::Running];
    let stopped = poll_until("a stalled boot", SOON, || {
        Some(wait_for_states(&socket, &running))
            .filter(|board| board.summary.starts_with("stalled in kernel at 0 % for "))
    });

    let boot = &stopped.boots[0];
    assert_eq!((stopped.boots.len(), boot.more), (1, 0), "one boot: {stopped:?}");
    let [probe, missing, complete, hostile, kernel] = &boot.files[..] else { panic!("{boot:?}") };
    assert_eq!((probe.name.as_str(), probe.size, probe.acknowledged), ("config.txt", Some(11), 0));
    assert_eq!((missing.name.as_str(), &missing.origin, missing.blksize), ("start4.elf", &None, 0));
    assert_eq!((complete.acknowledged, complete.blksize, complete.windowsize), (11, 512, 1));
    assert_eq!((complete.origin.as_deref(), complete.snapshot_age), (Some("default/"), None));
    assert_eq!((hostile.name.as_str(), hostile.why.as_deref()), (r#""../\x1b[2J""#, Some("the path leaves its root")));
    assert_eq!((kernel.size, kernel.acknowledged), (Some(1 << 20), 4 * 1024));
    assert_eq!((kernel.blksize, kernel.windowsize, kernel.copies), (1024, 4, 1));
    assert!(kernel.seconds > 2.0 && kernel.began >= boot.began && boot.last >= kernel.began, "{boot:?}");

    let totals = snapshot(&socket).totals;
    assert_eq!((totals.requests, totals.probes, totals.missing, totals.complete), (5, 1, 1, 1));
    assert_eq!((totals.failed, totals.refused, totals.running, totals.copies, totals.bytes), (0, 1, 1, 1, 11));

    let table = output(&socket, &[]);
    let mut lines = table.lines();
    assert!(lines.next().is_some_and(|line| line.contains("5 requests, 1 complete, 1 probes, 1 missing")), "{table}");
    assert!(lines.nth(2).is_some_and(|line| line.starts_with(BOARD) && line.contains("stalled in kernel")), "{table}");
    assert!(lines.next().is_some_and(|line| line.contains("kernel") && line.contains("  0% [ ")), "{table}");
    let files = output(&socket, &[BOARD]);
    for words in ["config.txt                       probe", "start4.elf                       missing", r"../\x1b[2J"] {
        assert!(files.contains(words), "`{words}` in\n{files}");
    }
    let json: Client = serde_json::from_str(&output(&socket, &["--json", BOARD])).expect("JSON");
    assert_eq!(json.boots[0].files[..4], boot.files[..4]);
    assert!(serde_json::from_str::<Snapshot>(&output(&socket, &["--json"])).is_ok());
}

/// While the server is busy, a board repeats its request. The copy may be received after the end of the transfer.
#[test]
fn late_copy_of_a_request_does_not_make_a_board_fail() {
    let (_directory, socket, daemon) = daemon();
    daemon.put("default/kernel", "k");
    let mut client = daemon.client(BOARD);
    for _ in 0..2 {
        assert!(client.fetch("kernel", &[]).is_ok());
    }
    wait_for_states(&socket, &[State::Complete; 2]);
    client.request(&rrq("kernel", &[]));
    drop(client);
    let totals = poll_until("the end of the copy", SOON, || {
        let totals = snapshot(&socket).totals;
        (totals.requests == 3 && totals.running == 0).then_some(totals)
    });
    assert_eq!((totals.complete, totals.failed, totals.copies), (2, 1, 1));
    let board = wait_for_states(&socket, &[State::Complete; 2]);
    assert_eq!((board.state, board.boots[0].files[1].copies), (BoardState::Booted, 1));
    // A board that closes its port without a file has failed.
    let mut impatient = daemon.client(BOARD);
    impatient.exchange(&rrq("kernel", &[]));
    drop(impatient);
    let board = wait_for_states(&socket, &[State::Complete, State::Complete, State::Failed]);
    assert_eq!(board.status, "kernel failed at 0 %: the client has closed its port");
}

#[test]
fn names_the_boot_entry_whose_kernel_a_board_fetches() {
    let (_directory, socket, daemon) = daemon();
    let tree = Tree::new().file("boot/vmlinuz-6.1", "kernel").file("boot/initrd.img-6.1", "initrd");
    let disk = Disk::whole(16, FileSystem::Ext4(&tree));
    let server = NbdServer::nbdkit(&disk);
    daemon.connect_disk(BOARD, &DiskConfig::new(server.url()).partition(0, "/"));
    for file in ["grub/grub.cfg", "boot/vmlinuz-6.1", "boot/initrd.img-6.1"] {
        daemon.fetch(BOARD, file).expect(file);
    }
    let board = wait_for_states(&socket, &[State::Complete; 3]);
    let entries: Vec<_> = board.boots[0].files.iter().map(|file| file.boot_entry.as_deref()).collect();
    assert_eq!(entries, [None, Some("Linux 6.1"), None]);
    let files = output(&socket, &[BOARD]);
    let kernel = files.lines().find(|line| line.contains("boot/vmlinuz-6.1")).expect("the kernel");
    assert!(kernel.contains("; boot entry Linux 6.1; from "), "{files}");
}

#[test]
fn shows_snapshot_age_and_failures_of_disks() {
    let (_directory, socket, daemon) = daemon();
    let disk = Disk::whole(16, FileSystem::Ext4(&Tree::new().file("kernel", "on the disk")));
    let server = NbdServer::nbdkit(&disk);
    daemon.connect_disk(BOARD, &DiskConfig::new(server.url()).partition(0, "/"));
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("on the disk"));
    let name = format!("{BOARD}.nbd");
    let kernel = wait_for_states(&socket, &[State::Complete]).boots[0].files[0].clone();
    assert_eq!(kernel.origin.as_ref(), Some(&name));
    assert!(kernel.snapshot_age.is_some_and(|age| (0.0..60.0).contains(&age)), "{kernel:?}");

    daemon.put(&name, "not a description");
    assert_eq!(daemon.fetch(BOARD, "kernel"), Err(0));
    let client = wait_for_states(&socket, &[State::Complete, State::Failed]);
    let failed = &client.boots[0].files[1];
    assert_eq!(failed.origin.as_ref(), Some(&name));
    assert!(failed.why.as_ref().is_some_and(|why| why.contains("line 1, column 1")), "{failed:?}");
    assert!(client.summary.starts_with("kernel failed (requested "), "{}", client.summary);
    assert!(client.summary.contains(&format!("{name}: line 1, column 1")), "{}", client.summary);
    assert!(output(&socket, &[]).contains(&format!("{name}: line 1, column 1")));
    daemon.logged(&[BOARD, "kernel", &name]);

    // What the daemon logs about the board and its disk, without the lines about others.
    daemon.fetch("127.0.0.8", "kernel").expect_err("no file");
    let printed = output(&socket, &[BOARD]);
    let (_, log) = printed.split_once("\nlog\n").expect("the log");
    for words in [format!("{name}: connected to "), format!("{BOARD}:"), format!("{name}: line 1, column 1")] {
        assert!(log.contains(&words), "`{words}` in\n{printed}");
    }
    assert!(!log.contains("127.0.0.8"), "{printed}");
}

#[test]
fn names_the_searched_roots_of_a_missing_file() {
    let (_directory, socket, daemon) = daemon();
    assert_eq!(daemon.fetch(BOARD, "first"), Err(1));
    daemon.logged(&["first: not found: this client has no root, and there is no directory default"]);
    daemon.put(&format!("{BOARD}/config.txt"), "arm_64bit=1");
    daemon.put("default/kernel", "a kernel");
    assert_eq!(daemon.fetch(BOARD, "start4.elf"), Err(1));
    let searched = format!("not found in {BOARD}/, default/");
    daemon.logged(&[&format!("start4.elf: {searched}")]);
    let client = wait_for_states(&socket, &[State::Missing, State::Missing]);
    assert!(client.summary.starts_with(&format!("start4.elf {searched} (requested ")), "{}", client.summary);
    assert!(output(&socket, &[BOARD]).contains(&searched));
}

#[test]
fn socket_is_exclusive_and_removed_at_exit() {
    let (_directory, socket, first) = daemon();
    let mode = fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second = ["-l", "127.0.0.1", "-p", "0", "-r", "/", "--status-socket", &socket];
    let refused = run_with_bad_arguments(second);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && stderr.contains("another program is listening"), "{stderr}");
    assert_eq!(snapshot(&socket).clients, [], "the first daemon still answers");
    first.kill();
    assert!(PathBuf::from(&socket).exists(), "a killed daemon leaves its socket");
    let next = Rtftp::start_with("127.0.0.1", 3600, &["--status-socket", &socket]);
    assert_eq!(snapshot(&socket).clients, []);
    next.stop(Signal::SIGTERM);
    assert!(!PathBuf::from(&socket).exists());
}

#[test]
fn reports_unknown_clients_and_missing_daemons() {
    let (_directory, socket, daemon) = daemon();
    let unknown = status(&socket, &["10.9.8.7"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("10.9.8.7: no requests in the history"));
    daemon.stop(Signal::SIGTERM);
    for args in [&[][..], &["--json"], &["--follow"]] {
        let nobody = status(&socket, args);
        let stderr = String::from_utf8_lossy(&nobody.stderr).into_owned();
        assert!(nobody.status.code() == Some(1) && stderr.contains("is rtftp running"), "{args:?}: {stderr}");
    }
    let wrong = status(&socket, &["--colour"]);
    let stderr = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(2) && stderr.ends_with("\nTry `rtftp status --help`.\n"), "{stderr}");
    assert!(run_with_bad_arguments(["status", "--help"]).status.success());
}

#[test]
fn follow_prints_events_of_one_client_until_the_daemon_stops() {
    let (_directory, socket, daemon) = daemon();
    daemon.put("default/kernel", "a kernel");
    let mut command = Command::new(binary("rtftp"));
    command.args(["status", "--socket", &socket, "--follow", BOARD]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = Process::start(&mut command);
    let mut lines = BufReader::new(follower.child().stdout.take().expect("a pipe")).lines();
    let (sender, events) = mpsc::channel::<Event>();
    let reader = thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            sender.send(serde_json::from_str(&line).expect("JSON")).expect("a receiver");
        }
    });
    // Repeats until the first event shows that the subscription has started.
    poll_until("the first event", SOON, || {
        assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("a kernel"));
        events.try_recv().ok()
    });
    assert_eq!(daemon.fetch("127.0.0.8", "kernel").as_deref(), Ok("a kernel"));
    assert_eq!(daemon.fetch(BOARD, "start4.elf"), Err(1));
    poll_until("the last event", SOON, || {
        let event = events.try_recv().ok()?;
        assert_eq!(event.client, BOARD, "events of other clients are filtered out");
        let expected = [("kernel", State::Complete, 8), ("start4.elf", State::Missing, 0)];
        assert!(expected.contains(&(event.file.name.as_str(), event.file.state, event.file.acknowledged)), "{event:?}");
        (event.file.state == State::Missing).then_some(())
    });
    daemon.stop(Signal::SIGTERM);
    assert_eq!(follower.wait(SOON).code(), Some(1));
    reader.join().expect("lines");
}

#[test]
fn lists_boards_before_their_first_request() {
    let (_directory, socket, daemon) = daemon();
    let image = Disk::whole(8, FileSystem::Ext4(&Tree::new().file("kernel", "of the disk")));
    let server = NbdServer::nbdkit(&image);
    let disk = DiskConfig::new(server.url()).partition(0, "/").to_string();
    daemon.put("127.0.0.8.nbd", disk.replacen('{', r#"{"label": "Rack 3", "#, 1));
    daemon.put("127.0.0.9.nbd", "{}");
    daemon.put("127.0.0.10/kernel", "of the directory");
    daemon.put("default/kernel", "of all");
    assert_eq!(daemon.fetch(BOARD, "kernel").as_deref(), Ok("of all"));
    wait_for_states(&socket, &[State::Complete]);

    let boards = poll_until("the states of the disks", SOON, || {
        let boards = snapshot(&socket).clients;
        let has = |disk| boards.iter().any(|board| board.disk == Some(disk));
        (has(DiskStatus::Connected) && has(DiskStatus::Failed)).then_some(boards)
    });
    let boards: Vec<_> = boards.into_iter().map(|board| (board.client, board.name, board.disk, board.state)).collect();
    let expected = [
        (BOARD, None, None, BoardState::Booted),
        ("127.0.0.8", Some("Rack 3".into()), Some(DiskStatus::Connected), BoardState::Silent),
        ("127.0.0.9", None, Some(DiskStatus::Failed), BoardState::Failed),
        ("127.0.0.10", None, None, BoardState::Silent),
    ];
    assert_eq!(boards, expected.map(|(board, name, disk, state)| (board.to_owned(), name, disk, state)));

    let table = output(&socket, &[]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].starts_with("1 of 4 boards booted in the last "), "{table}");
    assert!(lines[1].ends_with(" s, 1 failed, 2 without a request"), "{table}");
    let start = |line: usize| lines[line].split_whitespace().next().unwrap_or_default();
    assert_eq!([3, 4, 5, 6].map(start), ["127.0.0.9", "127.0.0.8", "127.0.0.10", BOARD], "{table}");
    assert!(lines[3].contains("no request yet; disk failed: line 1"), "{table}");
    assert!(lines[4].ends_with("Rack 3: no request yet; disk connected"), "{table}");
    assert!(output(&socket, &["127.0.0.10"]).starts_with("127.0.0.10: no request yet"));
    assert!(output(&socket, &["Rack 3"]).starts_with("127.0.0.8 (Rack 3): no request yet"));

    // A board that makes a request, or whose description is removed, is no longer one of them.
    assert_eq!(daemon.fetch("127.0.0.8", "kernel").as_deref(), Ok("of the disk"));
    fs::remove_file(daemon.path("127.0.0.9.nbd")).expect("removed");
    poll_until("two boards with and one without a request", SOON, || {
        let clients = snapshot(&socket).clients;
        let silent: Vec<_> = clients.iter().filter(|board| board.boots.is_empty()).collect();
        (clients.len() == 3 && silent.len() == 1 && silent[0].client == "127.0.0.10").then_some(())
    });
}
