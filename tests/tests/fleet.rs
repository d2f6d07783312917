//! Two hundred boards boot at once, and ten of them fail, each in another way: `rtftp status` and the status page show all ten first,
//! each with what to do.
//!
//! The tests of the page need Chromium, as those of `page`.

use std::{
    fs,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use rtftp_runtime::history::snapshot::{
    BoardState::{self, Failed, Looping, Missing, Silent, Stalled},
    Client, Snapshot,
};
use rtftp_tests::{
    Browser, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, closed_port, noise, poll_until,
    raw_client::{self, ack, error, rrq},
    run_with_bad_arguments,
};
use serde_json::json;
use tempfile::TempDir;

/// The number of boards that boot.
const HEALTHY: u32 = 190;
const SOON: Duration = Duration::from_secs(60);
/// The pause after which a request for the first file is another boot.
const RESET: Duration = Duration::from_millis(3100);

/// A board that fails: its address, its state, its last message, and the start of the advice.
type Failure = (&'static str, BoardState, &'static str, &'static str);

const FAILURES: [Failure; 10] = [
    ("127.0.3.1", Missing, "kernel_2712.img not found in 127.0.3.1/, default/", "if the machine stops there"),
    ("127.0.3.2", Failed, "Connection refused (os error 111)", "start it; check address and port"),
    ("127.0.3.3", Failed, "the server has no export", "nbd-client -l HOST"),
    (
        "127.0.3.4",
        Failed,
        "127.0.3.4.nbd: line 1, column 9: url: expected a string",
        "correct it; the daemon reads the changed file",
    ),
    ("127.0.3.5", Failed, "ended by the client with error 3", "load a smaller file"),
    ("127.0.3.6", Stalled, "stalled in kernel8.img at 37 %", "a large block size on a network"),
    ("127.0.3.7", Failed, "the file changed during the transfer", "none: the machine tries again"),
    ("127.0.3.8", Looping, "boot loop, 4 boots in", "look at the machine's screen"),
    ("127.0.3.9", Failed, "the whole disk: NTFS is not supported natively", "install rtftp-guestfs and remove"),
    ("127.0.3.10", Silent, "no request yet", "power, cable and boot order"),
];

static KERNEL: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1 << 20, 1));

/// The daemon, and everything that must live as long as the boards are looked at.
struct Fleet {
    daemon: Rtftp,
    page: String,
    socket: String,
    _stalled: raw_client::Client,
    _servers: [NbdServer; 3],
    _disks: [Disk; 2],
    _directory: TempDir,
}

impl Fleet {
    /// Lets all boards boot.
    fn boot() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let socket = path("status.sock").to_str().expect("UTF-8").to_owned();
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--status-listen", "0", "--status-socket", &socket]);
        let line = daemon.logged(&["status page at "]);
        let page = line.split("status page at ").nth(1).expect("an address").to_owned();

        daemon.put("default/config.txt", "arm_64bit=1");
        daemon.put("default/kernel8.img", &*KERNEL);
        let tree = Tree::new().file("config.txt", "of the disk").file("kernel8.img", &*KERNEL);
        let disk = Disk::whole(16, FileSystem::Ext4(&tree));
        let server = NbdServer::nbdkit(&disk);
        daemon.put_disk("127.0.2.0_28", &DiskConfig::new(server.url()).partition(0, "/"));

        daemon.put("127.0.3.1/config.txt", "kernel=kernel_2712.img");
        daemon.put_disk("127.0.3.2", &DiskConfig::new(closed_port()).partition(0, "/"));
        fs::create_dir(path("exports")).expect("created");
        let exports = NbdServer::directory(&path("exports"), &path("nbd.sock"));
        let url = format!("nbd+unix:///board-3?socket={}", path("nbd.sock").display());
        daemon.put_disk("127.0.3.3", &DiskConfig::new(url).partition(0, "/"));
        daemon.put("127.0.3.4.nbd", r#"{"url": nbd://nas/board-4}"#);
        daemon.put("127.0.3.7/kernel8.img", &*KERNEL);
        let ntfs = Disk::whole(16, FileSystem::Nothing);
        let mut image = fs::read(ntfs.path()).expect("the image");
        image[3..11].copy_from_slice(b"NTFS    ");
        fs::write(ntfs.path(), image).expect("the image");
        let ntfs_server = NbdServer::nbdkit(&ntfs);
        daemon.put_disk("127.0.3.9", &DiskConfig::new(ntfs_server.url()).partition(0, "/").backend("native"));
        daemon.put("127.0.3.10/config.txt", "arm_64bit=1");

        let stalled = thread::scope(|scope| {
            for number in 1..=HEALTHY {
                let daemon = &daemon;
                scope.spawn(move || load(daemon, &format!("127.0.2.{number}")));
            }
            scope.spawn(|| boot_again_and_again(&daemon, "127.0.3.8"));
            fail(&daemon)
        });
        let (servers, disks) = ([server, exports, ntfs_server], [disk, ntfs]);
        Self { daemon, page, socket, _stalled: stalled, _servers: servers, _disks: disks, _directory: directory }
    }

    /// Returns the boards once each is in its state.
    fn settled(&self) -> Vec<Client> {
        let deadline = Instant::now() + SOON;
        loop {
            let output = run_with_bad_arguments(["status", "--socket", &self.socket, "--json"]);
            let clients = serde_json::from_slice::<Snapshot>(&output.stdout).expect("JSON").clients;
            let unsettled = FAILURES.iter().find_map(|(board, state, status, _)| {
                let found = clients.iter().find(|client| client.client == *board).expect(board);
                (found.state != *state || !found.status.contains(status)).then_some(found)
            });
            match unsettled {
                None => return clients,
                Some(board) => assert!(Instant::now() < deadline, "{board:?}"),
            }
        }
    }

    /// Returns what `rtftp status` prints.
    fn status(&self, arguments: &[&str]) -> String {
        let output = run_with_bad_arguments([&["status", "--socket", &self.socket], arguments].concat());
        String::from_utf8(output.stdout).expect("ASCII")
    }
}

/// Loads the files of a boot.
fn load(daemon: &Rtftp, board: &str) {
    assert!(daemon.fetch(board, "config.txt").is_ok(), "{board}");
    assert!(daemon.client(board).fetch("kernel8.img", &[("blksize", "1468")]).as_deref() == Ok(&**KERNEL), "{board}");
}

/// Boots as a board does whose kernel panics.
fn boot_again_and_again(daemon: &Rtftp, board: &str) {
    for boot in 0..4 {
        if boot > 0 {
            // The time that the firmware takes.
            thread::sleep(RESET);
        }
        load(daemon, board);
    }
}

/// Starts a transfer, and acknowledges this many of its 16 windows.
fn begin(daemon: &Rtftp, board: &str, windows: u16) -> raw_client::Client {
    let mut client = daemon.client(board);
    client.exchange(&rrq("kernel8.img", &[("blksize", "1024"), ("windowsize", "64"), ("tsize", "0")]));
    client.reply(&ack(0));
    for window in 1..=windows {
        while client.receive().block() != 64 * window {}
        client.reply(&ack(64 * window));
    }
    client
}

/// Lets the boards fail that request something. Returns the one that is stalled.
fn fail(daemon: &Rtftp) -> raw_client::Client {
    assert!(daemon.fetch("127.0.3.1", "config.txt").is_ok());
    assert_eq!(daemon.fetch("127.0.3.1", "kernel_2712.img"), Err(1));
    for board in ["127.0.3.2", "127.0.3.3", "127.0.3.4", "127.0.3.9"] {
        assert_eq!(daemon.fetch(board, "kernel8.img"), Err(0), "{board}");
    }
    begin(daemon, "127.0.3.5", 6).reply(&error(3, "out of memory"));
    let mut replaced = begin(daemon, "127.0.3.7", 4);
    daemon.put("127.0.3.7/kernel8.img", noise(1 << 20, 2));
    let mut window = 5;
    // What was read ahead is still sent.
    while let raw_client::Answer::Data(block, _) = replaced.receive() {
        if block == 64 * window {
            replaced.reply(&ack(block));
            window += 1;
        }
    }
    begin(daemon, "127.0.3.6", 6)
}

#[test]
fn ten_failures_among_two_hundred_boards_are_first_in_the_status() {
    let fleet = Fleet::boot();
    assert_eq!(fleet.settled().len(), HEALTHY as usize + FAILURES.len());
    let table = fleet.status(&[]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[1].starts_with("190 of 200 boards booted in the last "), "{table}");
    let counts = ", 6 failed, 1 stalled, 1 in a boot loop, 1 with a missing file, 1 without a request";
    assert!(lines[1].ends_with(counts), "{table}");
    println!("{}", lines[..14].join("\n"));
    // Without those of transfers.
    let boards: Vec<&str> = lines.into_iter().filter(|line| line.starts_with("127.")).collect();
    for (board, _, status, advice) in FAILURES {
        let line = boards[..10].iter().find(|line| line.split(' ').next() == Some(board));
        assert!(line.is_some_and(|line| line.contains(status)), "{board} is not among the first ten:\n{table}");
        let details = fleet.status(&[board]);
        println!("{}", details.lines().take(2).collect::<Vec<_>>().join("\n"));
        assert!(details.contains(&format!("What to do: {advice}")), "{details}");
    }
    assert!(boards[10].starts_with("127.0.2.1 "), "{table}");
    assert!(fleet.daemon.log_lines(&["panic"]).is_empty());
}

#[test]
#[ignore = "needs Chromium"]
fn ten_failures_among_two_hundred_boards_are_first_on_the_page() {
    let fleet = Fleet::boot();
    fleet.settled();
    let mut browser = Browser::start();
    browser.show(1400, 900, "light");
    let opened = Instant::now();
    browser.open(&fleet.page);
    browser.wait("document.querySelectorAll('.board').length === 200");
    println!("200 boards are shown {:?} after the page was opened", opened.elapsed());

    let visible = "[...document.querySelectorAll('.board')].filter(row => !row.hidden).map(row => row.id)";
    let addresses = |value: serde_json::Value| {
        let mut addresses: Vec<String> = serde_json::from_value(value).expect("addresses");
        addresses.sort();
        addresses
    };
    let mut failing = FAILURES.map(|(board, ..)| board.to_owned()).to_vec();
    failing.sort();
    assert_eq!(addresses(browser.value(&format!("{visible}.slice(0, 10)"))), failing, "the first ten");
    browser.picture("fleet");
    browser.value(
        "[...document.querySelectorAll('#states button')].find(x => x.innerText.startsWith('problems')).click()",
    );
    assert_eq!(addresses(browser.value(visible)), failing, "all problems");
    for (board, _, status, advice) in FAILURES {
        let row = format!("document.getElementById('{board}')");
        assert_eq!(browser.value(&format!("{row}.innerText.includes({})", json!(status))), true, "{board}");
        let is_shown =
            format!("{row}.querySelector('.what').innerText.includes({})", json!(format!(" What to do: {advice}")));
        assert_eq!(browser.value(&is_shown), true, "{board}: {}", browser.value(&format!("{row}.innerText")));
    }
    browser.value("document.querySelectorAll('details').forEach(row => row.open = false)");
    for (width, height) in [(1400, 900), (360, 780)] {
        for scheme in ["light", "dark"] {
            browser.show(width, height, scheme);
            assert_eq!(browser.value("document.documentElement.scrollWidth"), width, "the page scrolls horizontally");
            browser.picture(&format!("fleet-{width}-{scheme}"));
        }
    }
    browser.value("document.getElementById('127.0.3.2').open = true");
    browser.wait("document.getElementById('127.0.3.2').querySelector('.log') !== null");
    browser.picture("fleet-360-open");
    browser.show(1400, 900, "light");
    browser.picture("fleet-1400-open");

    // The kernel of the last one that still runs is given up.
    browser.value("document.getElementById('127.0.3.2').open = false");
    let row = "document.getElementById('127.0.3.6')";
    let timed_out = "kernel8.img failed at 37 %: timed out";
    poll_until("the end of the stalled transfer", 2 * SOON, || {
        (browser.value(&format!("{row}.innerText.includes('{timed_out}')")) == true).then_some(())
    });
    assert_eq!(browser.value(&format!("{row}.innerText.includes('What to do: a large block size')")), true);
    assert_eq!(addresses(browser.value(visible)), failing);
    assert_eq!(browser.errors(), [] as [String; 0]);
}
