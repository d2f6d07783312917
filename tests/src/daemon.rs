//! The daemon under test.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::geteuid};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    DiskConfig, Namespace, poll_until,
    process::{Process, output},
    raw_client::Client,
};

/// The maximum time for actions that the daemon performs immediately.
const ACTION_LIMIT: Duration = Duration::from_secs(10);

/// The maximum time to start an appliance; software emulation on a busy host is slow.
const APPLIANCE_LIMIT: Duration = Duration::from_secs(120);

/// The environment variable that marks a daemon and its descendants: the helper of libguestfs gets only variables with such names.
const MARKER: &str = "LIBGUESTFS_RTFTP_TEST_ROOT";

/// The environment variable that names the profile of the programs under test; that of the test by default.
const PROFILE: &str = "RTFTP_TEST_PROFILE";

/// Returns the path of a program of this workspace, which must have been built.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let own = test.ancestors().nth(2).expect("a test is in target/PROFILE/deps");
    let path = env::var(PROFILE).map_or(own.to_owned(), |profile| own.with_file_name(profile)).join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// Runs the daemon with arguments that make it exit immediately, and returns its output.
#[track_caller]
pub fn run_with_bad_arguments<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    output(Command::new("timeout").arg("10").arg(binary("rtftp")).args(args))
}

/// A running daemon with a root directory of its own.
///
/// Dropping it sends SIGTERM and asserts exit code 0 and that no descendant is left.
#[derive(Debug)]
pub struct Rtftp {
    process: Process,
    address: SocketAddr,
    root: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    reads_log: Arc<AtomicBool>,
    ended: bool,
}

impl Rtftp {
    /// Starts a daemon on 127.0.0.1 with an empty root directory and an idle timeout of one hour.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with("127.0.0.1", 3600, &[])
    }

    /// Starts a daemon on `listen_ip` with the idle timeout `idle` in seconds and further arguments.
    #[track_caller]
    pub fn start_with(listen_ip: &str, idle: u32, args: &[&str]) -> Self {
        Self::run(Command::new(binary("rtftp")).stdin(Stdio::null()), listen_ip, idle, args)
    }

    /// Starts a daemon that serves files over HTTP, too, and returns its address for HTTP.
    #[track_caller]
    pub fn start_http(arguments: &[&str]) -> (Self, SocketAddr) {
        let daemon = Self::start_with("127.0.0.1", 3600, &[&["--http", "127.0.0.1:0"], arguments].concat());
        let address = daemon.served_at("serving files over HTTP on ");
        (daemon, address)
    }

    /// Returns the address at the end of the log line that contains this.
    #[track_caller]
    pub fn served_at(&self, before: &str) -> SocketAddr {
        let line = self.logged(&[before]);
        let address = line.split(before).nth(1).and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address in `{line}`"))
    }

    /// Starts a daemon in a network namespace, on port 69 of all addresses.
    #[track_caller]
    pub fn start_in(namespace: &Namespace, args: &[&str]) -> Self {
        let mut command = namespace.command(binary("rtftp"));
        Self::run(command.stdin(Stdio::null()), "::", 3600, &[&["--listen-port", "69"], args].concat())
    }

    /// Starts a daemon through a command that executes it with the arguments appended here.
    #[track_caller]
    pub fn start_by(command: &mut Command) -> Self {
        Self::run(command, "127.0.0.1", 3600, &["--monitor-configs", "false"])
    }

    /// Starts a daemon as [`Rtftp::start`] does, without root's capability to ignore file permissions.
    #[track_caller]
    pub fn start_without_dac_override() -> Self {
        let mut command = Command::new("setpriv");
        if geteuid().is_root() {
            command.arg("--bounding-set=-dac_override,-dac_read_search");
        }
        command.arg("--").arg(binary("rtftp")).stdin(Stdio::null());
        Self::run(&mut command, "127.0.0.1", 3600, &[])
    }

    #[track_caller]
    fn run(command: &mut Command, listen_ip: &str, idle: u32, args: &[&str]) -> Self {
        let root = TempDir::new().expect("a temporary directory");
        if !args.contains(&"--listen-port") {
            command.args(["--listen-port", "0"]);
        }
        command
            .args(["--listen-ip", listen_ip, "--idle-timeout", &idle.to_string()])
            .arg("--root-dir")
            .arg(root.path())
            .args(args)
            .env(MARKER, root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::start(command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(process.child().stderr.take().expect("a piped stderr"));
        let reads_log = Arc::new(AtomicBool::new(true));
        let (lines, reads) = (log.clone(), reads_log.clone());
        thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                lines.lock().push(String::from_utf8_lossy(&line).into_owned());
                while !reads.load(Ordering::Relaxed) {
                    thread::park();
                }
            }
        });
        let address = ([127, 0, 0, 1], 0).into();
        let mut daemon = Self { process, address, root, log, reads_log, ended: false };
        let line = daemon.wait_for("the log line with the port", ACTION_LIMIT, |line| line.contains("listening on "));
        let word = line.split("listening on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        daemon.address = word
            .and_then(|word| word.trim_end_matches([',', '.', ';']).parse().ok())
            .unwrap_or_else(|| panic!("no address in `{line}`"));
        daemon
    }

    /// Returns the address that the daemon listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns a path below the root directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file below the root directory and creates its parent directories.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("make a directory");
        fs::write(&path, bytes).expect("write a file");
        path
    }

    /// Writes the description `CLIENT.nbd` of a client's disk atomically.
    pub fn put_disk(&self, client: &str, config: &impl ToString) {
        let temporary = self.put(&format!(".{client}.tmp"), config.to_string());
        fs::rename(temporary, self.path(&format!("{client}.nbd"))).expect("rename a file");
    }

    /// Writes the description of a client's disk and waits until the disk is connected.
    #[track_caller]
    pub fn connect_disk(&self, client: &str, config: &DiskConfig) {
        self.put_disk(client, config);
        self.wait_for_disk(client, " connected");
    }

    /// Waits for a log line about the client's disk that contains `event`, and returns it.
    #[track_caller]
    pub fn wait_for_disk(&self, client: &str, event: &str) -> String {
        let name = format!("{client}.nbd");
        self.wait_for(&format!("{name}: {event}"), APPLIANCE_LIMIT, |line| line.contains(&name) && line.contains(event))
    }

    /// Returns a packet-level client with this source address.
    pub fn client(&self, from: &str) -> Client {
        Client::new(from, self.address)
    }

    /// Fetches a file as a client with this source address and returns its text.
    ///
    /// # Errors
    ///
    /// Returns the code of the ERROR packet.
    #[track_caller]
    pub fn fetch(&self, from: &str, name: &str) -> Result<String, u16> {
        let file = self.client(from).fetch(name, &[]);
        file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.code())
    }

    /// Stops reading the log for good: the pipe to the daemon's standard error fills up.
    pub fn stop_reading_log(&self) {
        self.reads_log.store(false, Ordering::Relaxed);
    }

    /// Returns the log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Returns the log lines so far that contain all these words.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    /// Waits at most `within` for a log line and returns it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, within: Duration, matches: impl Fn(&str) -> bool) -> String {
        poll_until(what, within, || {
            let found = self.log().into_iter().find(|line| matches(line));
            assert!(found.is_some() || !self.process.has_ended(), "the daemon ended while waiting for {what}");
            found
        })
    }

    /// Waits for a log line that contains all these words and returns it.
    #[track_caller]
    pub fn logged(&self, words: &[&str]) -> String {
        self.wait_for(&format!("a log line with {words:?}"), ACTION_LIMIT, |line| {
            words.iter().all(|word| line.contains(word))
        })
    }

    /// Returns the process ID and the name of each descendant.
    pub fn descendants(&self) -> Vec<(u32, String)> {
        let mut found = marked(self.root.path());
        found.retain(|(_, name)| name != "rtftp");
        found
    }

    /// Kills the daemon with SIGKILL, as the kernel does when memory runs out, and asserts that its descendants end by themselves.
    #[track_caller]
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(ACTION_LIMIT);
        self.ended = true;
        self.assert_no_descendants();
    }

    /// Ends the daemon with `signal`, as a service manager does, and asserts a clean exit.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) {
        self.end(signal);
    }

    /// Waits until the daemon, which was sent a signal before, ends by itself within `limit`, and asserts a clean exit.
    #[track_caller]
    pub fn wait_for_end(mut self, limit: Duration) {
        self.ended = true;
        let status = self.process.wait(limit);
        assert_eq!(status.code(), Some(0), "the daemon must exit with 0");
        self.assert_no_descendants();
    }

    #[track_caller]
    fn end(&mut self, signal: Signal) {
        self.ended = true;
        self.process.signal(signal);
        let status = self.process.wait(ACTION_LIMIT);
        assert_eq!(status.code(), Some(0), "the daemon must exit with 0 after {signal}");
        self.assert_no_descendants();
    }

    #[track_caller]
    fn assert_no_descendants(&self) {
        poll_until("the descendants of the daemon to end", ACTION_LIMIT, || {
            marked(self.root.path()).is_empty().then_some(())
        });
    }
}

impl Drop for Rtftp {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- log of the daemon\n{}\n---", self.log().join("\n"));
            for (pid, name) in marked(self.root.path()) {
                println!("killed after the failed test: {name} ({pid})");
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        } else if !self.ended {
            self.end(Signal::SIGTERM);
        }
    }
}

/// Returns the processes whose environment contains the marker of this root directory, without zombies.
fn marked(root: &Path) -> Vec<(u32, String)> {
    let mark = format!("{MARKER}={}\0", root.display());
    let processes = fs::read_dir("/proc").expect("/proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.windows(mark.len()).any(|window| window == mark.as_bytes())
    })
    .map(|id| (id, fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim_end().to_owned()))
    .collect()
}
