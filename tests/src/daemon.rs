//! The daemon under test.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::geteuid};
use tempfile::TempDir;

use crate::{
    DiskConfig, poll_until,
    process::{Process, output},
    raw_client::Client,
};

/// How long the daemon may take for what it does by itself and at once.
const SOON: Duration = Duration::from_secs(10);

/// How long an appliance may take to start; software emulation on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the environment of a daemon, and of all that it starts, is recognised by.
const MARK: &str = "RTFTP_TEST_ROOT";

/// The path of a program of this workspace; it must have been built.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(2).expect("a test is in target/PROFILE/deps").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// Runs the daemon to its end with arguments that it is expected not to serve with.
#[track_caller]
pub fn run_with_bad_arguments<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    output(Command::new("timeout").arg("10").arg(binary("rtftp")).args(args))
}

/// A running daemon with a root directory of its own.
///
/// When dropped it is asked to end (SIGTERM) and must do so properly: exit code 0 and no process left behind.
#[derive(Debug)]
pub struct Rtftp {
    process: Process,
    address: SocketAddr,
    root: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    ended: bool,
}

impl Rtftp {
    /// Starts it on 127.0.0.1 with an empty root directory and an idle timeout of an hour.
    #[track_caller]
    pub fn start() -> Self {
        Self::with("127.0.0.1", 3600, &[])
    }

    /// Starts it on this address, with this idle timeout in seconds and more arguments.
    #[track_caller]
    pub fn with(listen_ip: &str, idle: u32, args: &[&str]) -> Self {
        Self::run(Command::new(binary("rtftp")).stdin(Stdio::null()), listen_ip, idle, args)
    }

    /// Starts it by a command that becomes the daemon when it is given the daemon's arguments.
    #[track_caller]
    pub fn by(command: &mut Command) -> Self {
        Self::run(command, "127.0.0.1", 3600, &["--monitor-configs", "false"])
    }

    /// Starts it as [`Rtftp::start`] does, but without root's right to read what the permissions of a file forbid.
    #[track_caller]
    pub fn without_override() -> Self {
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
        command
            .args(["--listen-ip", listen_ip, "--listen-port", "0", "--idle-timeout", &idle.to_string()])
            .arg("--root-dir")
            .arg(root.path())
            .args(args)
            .env(MARK, root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::start(command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(process.child().stderr.take().expect("a piped stderr"));
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                lines.lock().expect("no panic while locked").push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let address = ([127, 0, 0, 1], 0).into();
        let mut daemon = Self { process, address, root, log, ended: false };
        let line = daemon.wait_for("the line with the port", SOON, |line| line.contains("listening on "));
        let word = line.split("listening on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        daemon.address = word
            .and_then(|word| word.trim_end_matches([',', '.', ';']).parse().ok())
            .unwrap_or_else(|| panic!("no address in `{line}`"));
        daemon
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A path below its root directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file below its root directory, parents included.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("make a directory");
        fs::write(&path, bytes).expect("write a file");
        path
    }

    /// Gives a client its disk: writes `NAME.nbd` as careful programs do, with a rename.
    pub fn put_disk(&self, client: &str, config: &DiskConfig) {
        let temporary = self.put(&format!(".{client}.tmp"), config.to_string());
        fs::rename(temporary, self.path(&format!("{client}.nbd"))).expect("rename a file");
    }

    /// Gives a client its disk and waits until it is connected.
    #[track_caller]
    pub fn connect_disk(&self, client: &str, config: &DiskConfig) {
        self.put_disk(client, config);
        self.wait_for_disk(client, " connected");
    }

    /// Waits until the log says this of the client's disk; returns the line.
    #[track_caller]
    pub fn wait_for_disk(&self, client: &str, event: &str) -> String {
        let name = format!("{client}.nbd");
        self.wait_for(&format!("{name}: {event}"), PATIENCE, |line| line.contains(&name) && line.contains(event))
    }

    /// A client at this source address (any port) for byte-level talk with it.
    pub fn client(&self, from: &str) -> Client {
        Client::new(from, self.address)
    }

    /// What a client at this address gets for this name, as text.
    ///
    /// # Errors
    ///
    /// The code of the ERROR.
    #[track_caller]
    pub fn fetch(&self, from: &str, name: &str) -> Result<String, u16> {
        let file = self.client(from).fetch(name, &[]);
        file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.code())
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic while locked").clone()
    }

    /// The lines logged so far that hold all these words.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    /// Waits, at most `within`, for a log line; returns it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, within: Duration, wanted: impl Fn(&str) -> bool) -> String {
        poll_until(what, within, || {
            let found = self.log().into_iter().find(|line| wanted(line));
            assert!(found.is_some() || !self.process.has_ended(), "the daemon has ended before: {what}");
            found
        })
    }

    /// Waits for the log line of a transfer with these words.
    #[track_caller]
    pub fn logged(&self, words: &[&str]) -> String {
        self.wait_for(&format!("a log line with {words:?}"), SOON, |line| words.iter().all(|word| line.contains(word)))
    }

    /// The processes it has started, with those that they have started: the id and the name of each.
    pub fn descendants(&self) -> Vec<(u32, String)> {
        let mut found = marked(self.root.path());
        found.retain(|(_, name)| name != "rtftp");
        found
    }

    /// Ends it the hard way, as the kernel would when memory runs out; what it had started must end by itself.
    #[track_caller]
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(SOON);
        self.ended = true;
        self.assert_alone();
    }

    /// Ends it as a service manager would; it must do so cleanly.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) {
        self.end(signal);
    }

    #[track_caller]
    fn end(&mut self, signal: Signal) {
        self.ended = true;
        self.process.signal(signal);
        let status = self.process.wait(SOON);
        assert_eq!(status.code(), Some(0), "after {signal} the daemon ends with 0");
        self.assert_alone();
    }

    #[track_caller]
    fn assert_alone(&self) {
        poll_until("the end of all processes of a daemon that has ended", SOON, || {
            marked(self.root.path()).is_empty().then_some(())
        });
    }
}

impl Drop for Rtftp {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- log of the daemon\n{}\n---", self.log().join("\n"));
            for (pid, name) in marked(self.root.path()) {
                println!("killed after a failed test: {name} ({pid})");
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        } else if !self.ended {
            self.end(Signal::SIGTERM);
        }
    }
}

/// The processes whose environment carries the mark of this root directory, zombies aside.
fn marked(root: &Path) -> Vec<(u32, String)> {
    let mark = format!("{MARK}={}\0", root.display());
    let processes = fs::read_dir("/proc").expect("/proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.windows(mark.len()).any(|window| window == mark.as_bytes())
    })
    .map(|id| (id, fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim_end().to_owned()))
    .collect()
}
