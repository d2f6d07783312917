//! Network namespaces: that of the test, and others beside it.

use std::{
    ffi::OsStr,
    fs,
    panic::resume_unwind,
    process::{Command, Output},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};

use crate::{Process, not_tested, poll_until, run};

/// Runs a test on a thread that is in a network namespace of its own.
///
/// Creating network namespaces needs root. Without this privilege, also in most containers, the test says so and does nothing.
#[track_caller]
pub(crate) fn in_new_network(test: impl FnOnce() + Send) {
    let tested = || unshare(CloneFlags::CLONE_NEWNET).map(|()| test());
    // The namespace belongs to the thread, so the test gets a thread of its own.
    let tested = thread::scope(|scope| scope.spawn(tested).join());
    if let Err(error) = tested.unwrap_or_else(|panic| resume_unwind(panic)) {
        not_tested(format_args!("no permission to create a network namespace: {error}"));
    }
}

/// A network namespace beside that of the test, which exists until this is dropped.
#[derive(Debug)]
pub struct Namespace {
    process: Process,
}

impl Namespace {
    /// Creates a namespace. Only its loopback interface is up.
    #[track_caller]
    pub(crate) fn create() -> Self {
        let own = fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        let process = Process::start(Command::new("unshare").args(["--net", "sleep", "3600"]));
        let namespace = Self { process };
        let path = format!("/proc/{}/ns/net", namespace.id());
        poll_until("a network namespace", Duration::from_secs(10), || {
            fs::read_link(&path).is_ok_and(|other| other != own).then_some(())
        });
        namespace.run("ip link set lo up");
        namespace
    }

    /// Returns the ID of a process that is in the namespace.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns a command that runs a program in the namespace, under the same process ID.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id().to_string(), "--net"]).arg(program);
        command
    }

    /// Runs a command in the namespace; the words are separated by single spaces.
    #[track_caller]
    pub fn run(&self, command: &str) -> Output {
        let id = self.id().to_string();
        run("nsenter", ["--target", &id, "--net"].into_iter().chain(command.split(' ')))
    }

    /// Sets a parameter of the kernel below `/proc/sys/net`.
    #[track_caller]
    pub fn set(&self, parameter: &str, value: u32) {
        let set = format!("echo {value} >/proc/sys/net/{parameter}");
        run("nsenter", ["--target", &self.id().to_string(), "--net", "sh", "-c", &set]);
    }

    /// Returns whether an interface has this IPv4 address.
    pub fn has_address(&self, address: &str) -> bool {
        let addresses = self.run("ip -oneline -4 address show");
        String::from_utf8_lossy(&addresses.stdout).contains(&format!(" {address}/"))
    }
}

/// Runs a command in the namespace of this thread; the words are separated by single spaces.
#[track_caller]
pub(crate) fn run_words(command: &str) {
    let (program, args) = command.split_once(' ').expect("a program and its arguments");
    run(program, args.split(' '));
}
