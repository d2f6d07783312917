//! A helper for tests: the test program itself, in another process, which fails in a given way.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use smol::future;
use tempfile::TempDir;

use super::{
    HelperTimeouts,
    wire::{self, DirectoryEntry, Reply, Request, Step, VERSION},
};
use crate::fs::FileType;

/// A helper program, and the directory where its processes record what they start.
pub(super) struct Fake {
    directory: TempDir,
    pub(super) helper: PathBuf,
}

/// Timeouts that do not expire in a test that passes.
pub(super) fn patient() -> HelperTimeouts {
    let minute = Duration::from_secs(60);
    HelperTimeouts { start: minute, reply: minute, silence: minute }
}

impl Fake {
    /// Creates a helper with one of the faults of [`helper_process`].
    pub(super) fn new(fault: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let helper = directory.path().join(fault);
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guestfs/fake-helper.sh"), &helper).expect("a link");
        let program = env::current_exe().expect("the test program");
        symlink(program, directory.path().join("test-program")).expect("a link");
        Self { directory, helper }
    }

    /// Returns the process IDs of the helpers' children, one for each helper.
    pub(super) fn children(&self) -> Vec<String> {
        self.records("children")
    }

    /// Waits until a helper has received its first request.
    pub(super) async fn has_started(&self) {
        while self.records("directories").is_empty() {
            future::yield_now().await;
        }
    }

    /// Checks that no child of a helper is running, zombies aside, and that no temporary file is left. Waits for that, as killed
    /// processes need a moment to exit.
    #[track_caller]
    pub(super) fn assert_nothing_is_left(&self) {
        let children = self.children();
        assert!(!children.is_empty(), "no helper was started");
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_running = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let exists = |directory: &String| Path::new(directory).exists();
        while children.iter().any(is_running) || self.records("directories").iter().any(exists) {
            let directories = self.records("directories");
            assert!(Instant::now() < deadline, "{children:?} are running or {directories:?} exist");
            thread::yield_now();
        }
    }

    /// Returns the lines that the helpers recorded under a name.
    pub(super) fn records(&self, name: &str) -> Vec<String> {
        let records = fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        records.lines().map(str::to_owned).collect()
    }
}

/// The process behind `fake-helper.sh`.
struct Helper {
    directory: PathBuf,
    replies: File,
    /// Whether the daemon asked for emulation instead of KVM.
    emulate: bool,
}

impl Helper {
    fn record(&self, name: &str, line: &[u8]) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.directory.join(name)).expect("a file");
        file.write_all(&[line, b"\n"].concat()).expect("recorded");
    }

    fn write(&mut self, bytes: &[u8]) {
        self.replies.write_all(bytes).expect("sent");
    }

    fn reply(&mut self, reply: &Reply) {
        self.write(&wire::encode(reply).expect("a frame"));
    }

    /// Sends the greeting and receives the first request.
    fn start(&mut self) {
        self.write(&wire::greeting(VERSION));
        let Ok(Request::Start { emulate, directory, .. }) = wire::read(io::stdin()) else { panic!("no request") };
        self.record("directories", directory.as_bytes());
        self.emulate = emulate;
    }

    fn connected(&mut self) {
        self.start();
        self.reply(&Reply::Reached(Step::Connected));
    }

    fn launched_and_ready(&mut self) {
        self.reply(&Reply::Reached(Step::Launched));
        self.reply(&Reply::Ready);
    }

    fn ready(&mut self) {
        self.connected();
        self.launched_and_ready();
    }
}

/// Waits for the end of stdin, as a helper does.
fn wait_for_end() -> ! {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    process::exit(0)
}

/// Never exits, even at the end of stdin.
fn hang() -> ! {
    loop {
        thread::park();
    }
}

#[test]
#[ignore = "run by fake-helper.sh"]
fn helper_process() {
    let Some(path) = env::var_os("RTFTP_FAKE_HELPER").map(PathBuf::from) else { return };
    let fault = path.file_name().and_then(|name| name.to_str()).expect("a fault").to_owned();
    let replies = OpenOptions::new().write(true).open("/dev/fd/3").expect("the daemon's pipe");
    let directory = path.parent().expect("a directory").to_owned();
    let mut helper = Helper { directory, replies, emulate: false };
    // Stands for qemu. The tests check that it is killed.
    let mut child = Command::new("sh");
    child.args(["-c", "exec sleep 1000 3>&-"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.spawn().expect("a child");
    helper.record("children", child.id().to_string().as_bytes());
    thread::spawn(move || child.wait());
    helper.fail(&fault);
}

impl Helper {
    fn fail(&mut self, fault: &str) -> ! {
        match fault {
            "silent" => hang(),
            "garbage" => {
                self.write(b"HTTP/1.1 200 OK\r\nServer: none\r\n");
                hang()
            }
            "confused" => {
                self.start();
                self.reply(&Reply::NotFound);
                hang()
            }
            "old" => {
                self.write(&wire::greeting(2));
                hang()
            }
            "missing-library" => {
                eprintln!(
                    "rtftp-guestfs: error while loading shared libraries: libguestfs.so.0: cannot open shared object file"
                );
                process::exit(127)
            }
            "environment" => {
                self.start();
                for (name, _) in env::vars_os() {
                    self.record("variables", name.as_bytes());
                }
                let limits = fs::read_to_string("/proc/self/limits").expect("/proc");
                limits.lines().for_each(|line| self.record("limits", line.as_bytes()));
                self.reply(&Reply::Lost("recorded".into()));
                hang()
            }
            "forged-lines" => {
                self.start();
                eprintln!("rtftp-guestfs: \u{1b}[2Jfrom stderr");
                self.reply(&Reply::Lost("\u{1b}[2J\nERROR forged".repeat(50_000)));
                hang()
            }
            "hung-server" => {
                self.start();
                hang()
            }
            "lost" => {
                self.start();
                eprintln!("qemu-img: warning: nothing");
                eprintln!("qemu-img: /tmp/x/overlay1.qcow2: Failed to connect: Connection refused");
                eprintln!("libguestfs: closing");
                self.reply(&Reply::Lost("no disk".into()));
                hang()
            }
            "hung-mount" => {
                self.connected();
                self.reply(&Reply::Reached(Step::Launched));
                hang()
            }
            "broken-kvm" => {
                self.connected();
                if self.emulate {
                    self.launched_and_ready();
                    wait_for_end()
                }
                eprintln!("    -machine accel=kvm:tcg \\\nSeaBIOS");
                hang()
            }
            "slow-kvm" => {
                self.connected();
                eprintln!("    -machine accel=kvm:tcg \\\n[    0.000000] Linux version 6.1");
                for _ in 0..10 {
                    thread::sleep(Duration::from_millis(500));
                    eprint!(".");
                }
                assert!(!self.emulate, "KVM is not broken");
                self.launched_and_ready();
                wait_for_end()
            }
            "broken-both" => {
                self.connected();
                self.reply(&Reply::Lost("no start".into()));
                hang()
            }
            "endless-line" => {
                self.connected();
                io::stderr().write_all(&vec![b'x'; 3_000_000]).expect("written");
                self.launched_and_ready();
                wait_for_end()
            }
            "hung-read" => {
                self.ready();
                hang()
            }
            "half-reply" => {
                self.ready();
                let frame = wire::encode(&Reply::Data(vec![0; 256])).expect("a frame");
                self.write(&frame[..100]);
                hang()
            }
            "too-much" => {
                self.ready();
                self.reply(&Reply::Data(b"123456789".to_vec()));
                hang()
            }
            "exits" => {
                self.ready();
                process::exit(0)
            }
            "works" => {
                self.ready();
                let entry = DirectoryEntry { name: b"a".to_vec(), file_type: FileType::File, size: 3 };
                for reply in [
                    Reply::Opened { id: 7, size: 3 },
                    Reply::Data(b"abc".to_vec()),
                    Reply::Failed("I/O".into()),
                    Reply::Closed,
                    Reply::NotFound,
                    Reply::Forbidden("x".into()),
                    Reply::Listed(vec![entry]),
                ] {
                    self.reply(&reply);
                }
                wait_for_end()
            }
            fault => panic!("unknown fault {fault}"),
        }
    }
}
