//! The helper as a child process: its pipes, its process group and its end.

use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{Resource, Rlimit, prlimit};
use smol::{
    Task,
    channel::Receiver,
    future,
    io::{AsyncReadExt, AsyncWriteExt},
    lock::RwLockReadGuardArc,
};
use tempfile::TempDir;

use super::{
    stderr::{self, Log},
    wire::{self, GREETING_LEN, Reply, Request},
};
use crate::unsandboxed;

/// The time limit for a helper to exit by itself.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// The variables of the daemon's environment that the helper gets; `*` matches any end.
pub(super) const PASSED_VARIABLES: [&str; 5] = ["HOME", "LIBGUESTFS_*", "PATH", "SUPERMIN_*", "TMPDIR"];

/// A running helper. Dropping it kills it and all processes that it started, and deletes its temporary files.
#[derive(Debug)]
pub(super) struct Child {
    // Dropped first: the helper exits at the end of its stdin.
    stdin: Async<ChildStdin>,
    stdout: Async<ChildStdout>,
    group: Group,
    log: Arc<Log>,
    log_task: Task<()>,
}

impl Child {
    /// Starts the program `helper` in a process group of its own. Holds the lock `running` until the group has ended.
    pub(super) async fn spawn(helper: PathBuf, disk: &str, running: RwLockReadGuardArc<()>) -> io::Result<Self> {
        // A sandboxed thread would sandbox the helper.
        let (mut child, group) = unsandboxed::unblock(move || Group::start(&helper, running)).await?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the helper has no pipes"));
        };
        let (log_task, log) = stderr::read(stderr, disk)?;
        Ok(Self { stdin: Async::new(stdin)?, stdout: Async::new(stdout)?, group, log, log_task })
    }

    /// Returns the directory for the helper's temporary files.
    pub(super) fn directory(&self) -> &Path {
        self.group.resources.as_ref().map_or(Path::new(""), |(directory, _)| directory.path())
    }

    /// Returns the log of the helper's stderr.
    pub(super) fn log(&self) -> Arc<Log> {
        self.log.clone()
    }

    /// Receives the greeting. Returns the helper's version of the protocol.
    pub(super) async fn receive_greeting(&mut self) -> io::Result<u32> {
        let mut greeting = [0; GREETING_LEN];
        self.stdout.read_exact(&mut greeting).await?;
        wire::parse_greeting(&greeting)
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stdin.write_all(&wire::encode(request)?).await
    }

    /// Receives the next reply. An error of kind `InvalidData` means that it is not one.
    pub(super) async fn receive(&mut self) -> io::Result<Reply> {
        let mut prefix = [0; 4];
        self.stdout.read_exact(&mut prefix).await?;
        let mut message = vec![0; wire::message_len(prefix)?];
        self.stdout.read_exact(&mut message).await?;
        wire::decode(&message)
    }

    /// Ends the helper and waits until it is gone. Returns the line of its stderr that explains the end.
    pub(super) async fn end(self) -> Option<String> {
        let Self { stdin, stdout, group, log, log_task } = self;
        drop((stdin, stdout));
        group.end().await;
        // Stderr ends now, unless a process outside the group has inherited it.
        let limit = async {
            Timer::after(EXIT_GRACE).await;
        };
        future::or(log_task, limit).await;
        log.last_cause()
    }
}

/// The process group of a helper.
#[derive(Debug)]
struct Group {
    leader: Pid,
    /// Kept until the group has ended: the directory for temporary files and the lock. `None` once the end has begun.
    resources: Option<(TempDir, RwLockReadGuardArc<()>)>,
}

impl Group {
    /// Starts the program with pipes. Blocks.
    fn start(helper: &Path, running: RwLockReadGuardArc<()>) -> io::Result<(process::Child, Self)> {
        let directory = tempfile::Builder::new().prefix("rtftp-").tempdir()?;
        let mut command = Command::new(helper);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_clear().envs(env::vars_os().filter(|(name, _)| is_passed(name)));
        // The log searches messages for English words.
        command.env("LC_ALL", "C");
        // libguestfs creates its sockets there, unless their paths would exceed the size of a socket address.
        if directory.path().as_os_str().len() + "/libguestfsXXXXXX/guestfsd.sock".len() < 108 {
            command.env("XDG_RUNTIME_DIR", directory.path());
        }
        let child = command.spawn()?;
        let leader = Pid::from_raw(child.id().cast_signed());
        disable_core_dumps(&child);
        Ok((child, Self { leader, resources: Some((directory, running)) }))
    }

    /// Ends the group and waits for that.
    async fn end(mut self) {
        if let Some(ended) = self.begin_end() {
            // Closed without a message if no thread could be started.
            let _ = ended.recv().await;
        }
    }

    /// Starts to end the group on a thread of its own, so that it is not cancelled with the caller.
    fn begin_end(&mut self) -> Option<Receiver<()>> {
        let resources = self.resources.take()?;
        let leader = self.leader;
        Some(unsandboxed::spawn(move || {
            kill_group(leader);
            drop(resources);
        }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.begin_end();
    }
}

/// Returns whether the helper gets a variable of the daemon's environment. Others may be secrets, or change what libraries do.
fn is_passed(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    PASSED_VARIABLES.iter().any(|passed| match passed.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == passed.as_bytes(),
    })
}

/// Disables core dumps of the helper and of the processes that it starts: they would contain files of the disk.
fn disable_core_dumps(child: &process::Child) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = prlimit(Some(rustix::process::Pid::from_child(child)), Resource::Core, none) {
        log::debug!("cannot disable the helper's core dumps: {error}");
    }
}

/// Waits up to [`EXIT_GRACE`] for the leader to exit, kills the group and reaps its processes. Blocks.
fn kill_group(leader: Pid) {
    // The leader is not reaped before the group is killed: until then its process ID cannot be reused.
    let state = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let deadline = Instant::now() + EXIT_GRACE;
    while waitid(Id::Pid(leader), state) == Ok(WaitStatus::StillAlive) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = killpg(leader, Signal::SIGKILL);
    // Reaps the leader and, if this is the first process of a container, its orphans.
    while matches!(waitpid(Pid::from_raw(-leader.as_raw()), None), Ok(_) | Err(Errno::EINTR)) {}
}
