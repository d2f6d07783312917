//! The log of the daemon when its reader stands still.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    process::{ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};
use rtftp_tests::{Client, Process, binary, raw_client::rrq};
use tempfile::TempDir;

/// A daemon whose standard error is a pipe of 4 KiB.
struct Daemon {
    process: Process,
    stderr: BufReader<ChildStderr>,
    address: SocketAddr,
    root: TempDir,
    /// The socket that receives the notifications of the watchdog, twice each [`WATCHDOG`].
    manager: UnixDatagram,
}

/// The interval of the watchdog.
const WATCHDOG: Duration = Duration::from_millis(400);

impl Daemon {
    /// Starts a daemon, and reads its log up to the line with its address.
    fn start() -> Self {
        let root = TempDir::new().expect("a directory");
        let mut command = Command::new(binary("rtftp"));
        command.args(["--listen-ip", "127.0.0.1", "--listen-port", "0", "--monitor-configs", "false", "--root-dir"]);
        command.arg(root.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        let notify = root.path().join("notify");
        let manager = UnixDatagram::bind(&notify).expect("a socket");
        manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let mut process = Process::start(&mut command);
        let stderr = process.child().stderr.take().expect("a pipe");
        fcntl(&stderr, FcntlArg::F_SETPIPE_SZ(4096)).expect("a smaller pipe");
        let mut stderr = BufReader::with_capacity(256, stderr);
        let mut line = String::new();
        while !line.contains("listening on ") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "the daemon ended");
        }
        let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(',').next()).expect("an address");
        Self { process, stderr, address: address.parse().expect("an address"), root, manager }
    }

    /// Waits until the watchdog has been notified a number of times from now on, and returns the longest interval.
    fn watch(&self, count: u32) -> Duration {
        self.manager.set_nonblocking(true).expect("set");
        while self.manager.recv(&mut [0; 256]).is_ok() {}
        self.manager.set_nonblocking(false).expect("set");
        let (mut last, mut longest, mut notified) = (Instant::now(), Duration::ZERO, 0);
        while notified < count {
            let mut message = [0; 256];
            let len = self.manager.recv(&mut message).expect("a notification");
            if &message[..len] == b"WATCHDOG=1" {
                longest = longest.max(last.elapsed());
                (last, notified) = (Instant::now(), notified + 1);
            }
        }
        longest
    }

    /// Sends SIGTERM, and returns the time until the daemon has ended.
    fn time_to_stop(&mut self) -> Duration {
        let since = Instant::now();
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
        since.elapsed()
    }

    /// Reads the rest of the log.
    fn rest_of_log(&mut self) -> Vec<String> {
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).expect("text");
        log.lines().map(str::to_owned).collect()
    }
}

#[test]
fn serves_while_nobody_reads_the_log() {
    const TRANSFERS: usize = 300;
    let mut daemon = Daemon::start();
    let mut slowest = Duration::ZERO;
    for number in 0..TRANSFERS {
        let name = format!("default/file-{number}");
        std::fs::create_dir_all(daemon.root.path().join("default")).expect("a directory");
        std::fs::write(daemon.root.path().join(&name), "served").expect("a file");
        let since = Instant::now();
        let mut client = Client::new("127.0.0.7", daemon.address);
        let file = client.fetch(&format!("file-{number}"), &[]);
        assert_eq!(file.as_deref(), Ok(&b"served"[..]), "transfer {number}");
        slowest = slowest.max(since.elapsed());
    }
    println!("{TRANSFERS} transfers without a reader of the log, the slowest in {slowest:?}");
    let longest = daemon.watch(5);
    println!("watchdog notified every {longest:?} or sooner");
    assert!(longest < 4 * WATCHDOG, "{longest:?}");
    let time = daemon.time_to_stop();
    println!("stopped after {time:?}");
    assert!(time < Duration::from_secs(4), "{time:?}");
}

#[test]
fn reports_dropped_lines_once_the_log_is_read_again() {
    /// Fewer than the lines about clients that do not answer which are logged at once.
    const REQUESTS: usize = 990;
    let mut daemon = Daemon::start();
    let mut client = Client::new("127.0.0.7", daemon.address);
    for number in 0..REQUESTS {
        // Each line has more than 600 bytes, since each byte of the name is escaped with four.
        let answer = client.exchange(&rrq(&format!("{}{number}", "\u{7f}".repeat(130)), &[]));
        assert_eq!(answer.code(), 1);
    }
    let mut line = String::new();
    let (mut complete, mut dropped) = (0, None);
    while dropped.is_none() {
        line.clear();
        assert!(daemon.stderr.read_line(&mut line).expect("text") > 0, "no report after {complete} lines");
        complete += usize::from(line.contains(r"\x7f"));
        dropped = line.split_once(" log lines were dropped").map(|(before, _)| {
            before.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a number")
        });
    }
    let dropped = dropped.expect("a number");
    println!("{complete} lines written, {dropped} dropped");
    assert!(complete > 500 && dropped > 1, "{complete} {dropped}");
    daemon.time_to_stop();
    let rest = daemon.rest_of_log();
    assert!(rest.iter().any(|line| line.ends_with("stopping")), "the last line is written");
    // Lines written after the report follow it.
    complete += rest.iter().filter(|line| line.contains(r"\x7f")).count();
    assert_eq!(complete + dropped, REQUESTS);
}

#[test]
fn errors_before_the_start_are_written() {
    let daemon = Daemon::start();
    let port = daemon.address.port().to_string();
    let output = Command::new(binary("rtftp"))
        .args(["--listen-ip", "127.0.0.1", "--listen-port", &port, "--root-dir"])
        .arg(daemon.root.path())
        .output()
        .expect("a program");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("ERROR") && log.contains("Address already in use"), "{log}");
}
