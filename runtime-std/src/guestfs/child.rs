//! The helper as a child process: its pipes, what it says on stderr, and its end.

use std::{
    collections::VecDeque,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use smol::{
    Async, Task, Timer, future,
    io::{AsyncReadExt, AsyncWriteExt},
    lock::RwLockReadGuardArc,
};
use tempfile::TempDir;

use super::wire::{self, Reply, Request};
use crate::unsandboxed;

/// How long a helper may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// How many lines of stderr are kept, and how many bytes of each.
const LINES: usize = 20;
const LINE: usize = 500;

/// A running helper. Dropping it kills it, all it started, and its temporary files.
#[derive(Debug)]
pub(super) struct Child {
    // Dropped first: the end of its stdin asks the helper to end.
    stdin: Async<ChildStdin>,
    stdout: Async<ChildStdout>,
    group: Group,
    stderr: Stderr,
}

impl Child {
    /// Starts the program `helper` in a process group of its own. Holds `living` until it is gone.
    pub(super) async fn spawn(helper: PathBuf, disk: &str, living: RwLockReadGuardArc<()>) -> io::Result<Self> {
        // A sandbox would be the helper's, too.
        let (mut child, group) = unsandboxed::unblock(move || Group::start(&helper, living)).await?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("no pipes to the helper"));
        };
        Ok(Self { stdin: Async::new(stdin)?, stdout: Async::new(stdout)?, group, stderr: Stderr::read(stderr, disk)? })
    }

    /// The directory for the helper's temporary files.
    pub(super) fn folder(&self) -> &Path {
        self.group.held.as_ref().map_or(Path::new(""), |(folder, _)| folder.path())
    }

    /// Sends a request.
    pub(super) async fn tell(&mut self, request: &Request) -> io::Result<()> {
        self.stdin.write_all(&request.encode()).await
    }

    /// Waits for the next reply; an error of the kind `InvalidData` is one that is none.
    pub(super) async fn listen(&mut self) -> io::Result<Reply> {
        let mut header = [0; wire::HEADER];
        self.stdout.read_exact(&mut header).await?;
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let (kind, len) = wire::header(header).map_err(malformed)?;
        let mut body = vec![0; len];
        self.stdout.read_exact(&mut body).await?;
        Reply::decode(kind, body).map_err(malformed)
    }

    /// Returns when an appliance was started under KVM and its kernel has then said nothing for this long.
    pub(super) async fn silence(log: Arc<Log>, limit: Duration) {
        loop {
            let quiet_since = log.appliance_heard();
            let until = quiet_since.unwrap_or_else(Instant::now) + limit;
            Timer::at(until).await;
            if quiet_since.is_some() && log.appliance_heard() == quiet_since {
                return;
            }
        }
    }

    /// What the helper has said on stderr.
    pub(super) fn log(&self) -> Arc<Log> {
        Arc::clone(&self.stderr.log)
    }

    /// Ends the helper, waits until it is gone, and gives the line of its stderr that explains most.
    pub(super) async fn end(self) -> Option<String> {
        let Self { stdin, stdout, group, stderr } = self;
        drop((stdin, stdout));
        group.end().await;
        // Its stderr has an end now, unless somebody outside the group has kept it.
        let limit = async {
            Timer::after(GRACE).await;
        };
        future::or(stderr.task, limit).await;
        stderr.log.telling()
    }
}

/// The process group of a helper.
#[derive(Debug)]
struct Group {
    leader: Pid,
    /// Where its temporary files are, and what tells that it lives. `None` when the end has begun.
    held: Option<(TempDir, RwLockReadGuardArc<()>)>,
}

impl Group {
    /// Starts the program with pipes. Blocks.
    fn start(helper: &Path, living: RwLockReadGuardArc<()>) -> io::Result<(process::Child, Self)> {
        let folder = tempfile::Builder::new().prefix("rtftp-").tempdir()?;
        let mut command = Command::new(helper);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Messages are read by our log and by us.
        command.env("LC_ALL", "C");
        // Where libguestfs makes its sockets, if their paths fit into a socket's address.
        if folder.path().as_os_str().len() + "/libguestfsXXXXXX/guestfsd.sock".len() < 108 {
            command.env("XDG_RUNTIME_DIR", folder.path());
        }
        let child = command.spawn()?;
        let leader = Pid::from_raw(child.id().cast_signed());
        Ok((child, Self { leader, held: Some((folder, living)) }))
    }

    async fn end(mut self) {
        if let Some(buried) = self.bury() {
            // No message if there was no thread to do it.
            let _ = buried.recv().await;
        }
    }

    /// Begins the end on a thread that may block, so that it takes place whatever happens to the caller.
    fn bury(&mut self) -> Option<smol::channel::Receiver<()>> {
        let held = self.held.take()?;
        let leader = self.leader;
        Some(unsandboxed::spawn(move || {
            bury(leader);
            drop(held);
        }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.bury();
    }
}

/// Gives the leader of a group its grace, kills the group and leaves no zombie of it.
fn bury(leader: Pid) {
    // The leader is not reaped before the group is killed: until then nobody else can get its number.
    let state = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let until = Instant::now() + GRACE;
    while waitid(Id::Pid(leader), state) == Ok(WaitStatus::StillAlive) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = killpg(leader, Signal::SIGKILL);
    // The leader, and where we are the first process of a container, its orphans.
    while matches!(waitpid(Pid::from_raw(-leader.as_raw()), None), Ok(_) | Err(Errno::EINTR)) {}
}

/// The task that reads stderr, and what it has read.
#[derive(Debug)]
struct Stderr {
    log: Arc<Log>,
    task: Task<()>,
}

impl Stderr {
    fn read(stderr: ChildStderr, disk: &str) -> io::Result<Self> {
        let mut stderr = Async::new(stderr)?;
        let log = Arc::new(Log::default());
        let (lines, disk) = (Arc::clone(&log), disk.to_owned());
        let task = smol::spawn(async move {
            let mut line = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut chunk).await {
                for part in chunk[..len].split_inclusive(|&byte| byte == b'\n') {
                    // The rest of a line without end goes nowhere.
                    line.extend_from_slice(&part[..part.len().min(LINE.saturating_sub(line.len()))]);
                    if part.ends_with(b"\n") {
                        lines.add(&line, &disk);
                        line.clear();
                    } else {
                        lines.hear();
                    }
                }
            }
            lines.add(&line, &disk);
        });
        Ok(Self { log, task })
    }
}

/// The last lines of a helper's stderr.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    /// When the appliance's kernel was last heard of, or KVM was started for it.
    heard: Option<Instant>,
    /// Whether that kernel has spoken.
    booted: bool,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8], disk: &str) {
        let line: String = String::from_utf8_lossy(line)
            .trim_end()
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .collect();
        if line.is_empty() {
            return;
        }
        log::debug!("{disk}: {line}");
        let mut lines = self.lines();
        // The command line of qemu is shown, one option a line. Nothing is expected from the appliance earlier: the first start
        // on a machine prepares it, which takes its time. And its firmware does not count, that speaks even where the
        // kernel never comes up.
        lines.booted |= line.contains("Linux version");
        if lines.booted || line.contains("accel=kvm") {
            lines.heard = Some(Instant::now());
        }
        if lines.lines.len() == LINES {
            lines.lines.pop_front();
        }
        lines.lines.push_back(line);
    }

    fn hear(&self) {
        let mut lines = self.lines();
        if lines.booted {
            lines.heard = Some(Instant::now());
        }
    }

    fn appliance_heard(&self) -> Option<Instant> {
        self.lines().heard
    }

    /// The last line that names a cause: our own, qemu's without the name of its temporary file, or of the appliance's kernel.
    fn telling(&self) -> Option<String> {
        let tells = |line: &&String| {
            let ours = line.contains("rtftp-guestfs: ");
            let of_qemu = line.starts_with("qemu-") && line.contains(": ") && !line.contains(": warning: ");
            ours || of_qemu || line.contains("I/O error")
        };
        let lines = self.lines();
        let line = lines.lines.iter().rev().find(tells)?;
        Some(line.split_once(".qcow2: ").map_or(line.as_str(), |(_, cause)| cause).to_owned())
    }
}
