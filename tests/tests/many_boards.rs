//! One description for many boards, and the memory of a daemon with 10,000 boards.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Answer, BOARD_MAC, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, VethNetwork, binary, closed_port,
    poll_until, raw_client::rrq, run,
};
use tempfile::TempDir;

/// The number of boards.
const BOARDS: u32 = 10_000;
/// The maximum memory of the idle daemon in bytes.
const MAX_MEMORY: u64 = 60 << 20;
/// The maximum time until all descriptions are read.
const LIMIT: Duration = Duration::from_secs(120);

/// A server with a disk for each of these exports. Each has the file `name` with the name of the export.
struct Exports {
    socket: PathBuf,
    _server: NbdServer,
    _directory: TempDir,
}

impl Exports {
    fn new(names: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        for name in names {
            let disk = Disk::whole(4, FileSystem::Ext4(&Tree::new().file("name", name)));
            fs::create_dir_all(directory.path().join("exports")).expect("created");
            fs::copy(disk.path(), directory.path().join("exports").join(name)).expect("copied");
        }
        let socket = directory.path().join("nbd.sock");
        let server = NbdServer::directory(&directory.path().join("exports"), &socket);
        Self { socket, _server: server, _directory: directory }
    }

    fn url(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    /// Returns the description with this name of the export.
    fn config(&self, export: &str) -> DiskConfig {
        DiskConfig::new(self.url(export)).partition(0, "/")
    }
}

/// Returns the address of a board.
fn board(number: u32) -> String {
    Ipv4Addr::from_bits(0x7f01_0000 + number).to_string()
}

#[test]
fn boards_of_one_description_have_a_disk_each() {
    let exports = Exports::new(&["127.0.0.7", "127.0.0.8"]);
    let daemon = Rtftp::start();
    daemon.put("default/name", "default");
    daemon.put("default/common", "common");
    daemon.put_disk("default", &exports.config("{ip}"));
    for from in ["127.0.0.7", "127.0.0.8"] {
        assert_eq!(daemon.fetch(from, "name").as_deref(), Ok(from));
        assert_eq!(daemon.fetch(from, "common").as_deref(), Ok("common"), "the disk does not have it");
        daemon.logged(&[&format!("default.nbd ({from}): connected to"), &format!("/{from}?socket=")]);
        daemon.logged(&[from, "name from default.nbd", "complete"]);
    }
    assert_eq!(daemon.fetch("127.0.0.9", "name"), Err(0), "it has no export");
    daemon.logged(&["default.nbd (127.0.0.9): ", "127.0.0.9"]);
}

#[test]
fn single_board_precedes_longest_group_and_default() {
    let exports = Exports::new(&["single", "group-30", "group-8", "all"]);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "0"]);
    daemon.put("default/name", "default/");
    for (file, export) in [("127.0.0.9", "single"), ("127.0.0.8_30", "group-30"), ("127.0.0.0_8", "group-8")] {
        daemon.put_disk(file, &exports.config(export));
    }
    daemon.put_disk("default", &exports.config("all"));
    let fetch = || daemon.fetch("127.0.0.9", "name");
    assert_eq!(daemon.fetch("127.0.0.13", "name").as_deref(), Ok("group-8"));
    for (file, expected) in [("127.0.0.9", "single"), ("127.0.0.8_30", "group-30"), ("127.0.0.0_8", "group-8")] {
        assert_eq!(fetch().as_deref(), Ok(expected));
        fs::remove_file(daemon.path(&format!("{file}.nbd"))).expect("removed");
    }
    assert_eq!(fetch().as_deref(), Ok("all"));
    daemon.put_disk("127.0.0.0_8", &DiskConfig::new(closed_port()).partition(0, "/"));
    assert_eq!(fetch(), Err(0), "a group whose disk is unavailable ends the search");
    daemon.put("127.0.0.0_8.nbd", "{");
    assert_eq!(fetch(), Err(0), "so does one whose description is not valid");
    for file in ["127.0.0.0_8.nbd", "default.nbd"] {
        fs::remove_file(daemon.path(file)).expect("removed");
    }
    assert_eq!(fetch().as_deref(), Ok("default/"));
}

#[test]
fn board_without_a_value_gets_an_error() {
    let exports = Exports::new(&["9ffefdef"]);
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--view-gap", "0"]);
    daemon.put("default/name", "default");
    for (placeholder, text) in [
        ("mac", "the MAC address of this client is not known"),
        ("hostname", "the host name of this client is not known"),
    ] {
        daemon.put_disk("default", &exports.config(&format!("{{{placeholder}}}")));
        let answer = daemon.client("127.0.0.7").exchange(&rrq("name", &[]));
        assert_eq!(answer, Answer::Error(0, text.into()));
        daemon.logged(&["127.0.0.7", "name", &format!("the url has {{{placeholder}}}")]);
    }
    let trusted = exports.config("{serial}").to_string().replacen('{', "{\"trust_serial\": true, ", 1);
    daemon.put("default.nbd", exports.config("{serial}").to_string());
    assert_eq!(daemon.fetch("127.0.0.7", "9ffefdef/name"), Err(0), "not trusted");
    daemon.put("default.nbd", trusted);
    assert_eq!(daemon.fetch("127.0.0.7", "9ffefdef/name").as_deref(), Ok("9ffefdef"));
    assert_eq!(daemon.fetch("127.0.0.7", "name"), Err(0), "no serial number");
}

#[test]
fn host_names_come_from_leases_and_ethers_outside_of_the_sandbox() {
    let exports = Exports::new(&["alpha", "beta.lab", "gamma", BOARD_MAC]);
    let directory = TempDir::new().expect("a directory");
    let (leases, ethers) = (directory.path().join("leases"), directory.path().join("ethers"));
    let lease = |name: &str| format!("1764403200 {} 10.9.0.5 {name} *\n", BOARD_MAC.replace('-', ":"));
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (leases_path, ethers_path) = (path(&leases), path(&ethers));
    VethNetwork::test(&["--view-gap", "0", "--leases", &leases_path, "--ethers", &ethers_path], |cable| {
        let daemon = cable.daemon();
        daemon.put("default/name", "default");
        daemon.put_disk("default", &exports.config("{hostname}"));
        assert_eq!(cable.fetch("10.9.0.5", "name"), Err(0), "there are no files");
        for name in ["alpha", "beta.lab"] {
            fs::write(&leases, lease(name)).expect("written");
            assert_eq!(cable.fetch("10.9.0.5", "name").as_deref(), Ok(name));
        }
        assert_eq!(cable.fetch("10.9.0.6", "name"), Err(0), "no lease");
        for hostile in ["../alpha", "alpha?socket=/x", "alpha%00", "*", "..", "alpha/"] {
            fs::write(&leases, lease(hostile)).expect("written");
            assert_eq!(cable.fetch("10.9.0.5", "name"), Err(0), "{hostile}");
        }
        fs::write(&ethers, format!("{} gamma\n", BOARD_MAC.replace('-', ":"))).expect("written");
        for from in ["10.9.0.5", "10.9.0.6", "fd09::5"] {
            assert_eq!(cable.fetch(from, "name").as_deref(), Ok("gamma"), "{from}");
        }
        daemon.put_disk("default", &exports.config("{mac}"));
        assert_eq!(cable.fetch("10.9.0.6", "name").as_deref(), Ok(BOARD_MAC));
    });
}

#[test]
fn check_prints_one_line_for_a_group() {
    let exports = Exports::new(&["all"]);
    let root = TempDir::new().expect("a directory");
    fs::create_dir(root.path().join("default")).expect("created");
    let put = |name: &str, config: &DiskConfig| fs::write(root.path().join(name), config.to_string()).expect("written");
    put("default.nbd", &exports.config("all"));
    put("10.0.0.0_24.nbd", &exports.config("boards-{ip}"));
    let check = || {
        let output = run(binary("rtftp").to_str().expect("UTF-8"), ["check", root.path().to_str().expect("UTF-8")]);
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = check();
    let line = format!(
        "+ 10.0.0.0_24.nbd: a disk for each board, not checked; example: ip 10.0.0.1 has {}\n",
        exports.url("boards-10.0.0.1")
    );
    assert!(text.contains(&line) && text.contains("no problems"), "{text}");
    let row = text.lines().find(|line| line.starts_with("default ")).expect("the disk without placeholders");
    assert!(row.contains("yes") && row.contains("ext4"), "{row}");
}

#[test]
fn idle_daemon_with_10000_descriptions_needs_little_memory() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[]);
    let base = daemon.process().resident_memory();
    let started = Instant::now();
    let description = DiskConfig::new(closed_port()).partition(1, "/").partition(2, "/boot");
    for number in 0..BOARDS {
        daemon.put_disk(&board(number), &description);
    }
    daemon.process().signal(Signal::SIGHUP);
    let reloaded = format!("reloaded {BOARDS} .nbd files");
    daemon.wait_for("the descriptions", LIMIT, |line| line.contains(&reloaded));
    // Every disk has tried to connect, and will again.
    let has_tried = || daemon.log_lines(&["Connection refused"]).len() >= BOARDS as usize;
    poll_until("attempts to connect", LIMIT, || has_tried().then_some(()));
    let memory = daemon.process().resident_memory();
    let seconds = started.elapsed().as_secs_f64();
    println!("{BOARDS} descriptions after {seconds:.1} s: {memory} bytes, {base} bytes without them");
    assert!(memory < MAX_MEMORY, "{memory} bytes");
}

#[test]
fn idle_daemon_with_10000_boards_of_one_description_needs_little_memory() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[]);
    let base = daemon.process().resident_memory();
    daemon.put_disk("default", &DiskConfig::new(format!("{}-{{ip}}", closed_port())).partition(1, "/"));
    let started = Instant::now();
    for number in 0..BOARDS {
        let answer = daemon.client(&board(number)).exchange(&rrq("kernel", &[]));
        assert_eq!(answer, Answer::Error(0, "the disk of this client cannot be reached".into()));
    }
    let memory = daemon.process().resident_memory();
    let seconds = started.elapsed().as_secs_f64();
    println!("{BOARDS} boards after {seconds:.1} s: {memory} bytes, {base} bytes without them");
    assert!(memory < MAX_MEMORY, "{memory} bytes");
    // The disks are those of the description: they go with it.
    fs::remove_file(daemon.path("default.nbd")).expect("removed");
    assert_eq!(daemon.fetch(&board(1), "kernel"), Err(1));
}
