//! Child processes: run to completion, or running until dropped.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::poll_until;

/// Runs a program to completion. Panics with its name if it is not installed, and with its standard error if it fails.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Output {
    let output = output(Command::new(program).args(args));
    assert!(output.status.success(), "{program}: {}, {}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a command to completion, whatever its exit status. Panics with the program's name if it is not installed.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    // The mkfs programs are in sbin, which is not in an ordinary user's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    let result = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("MTOOLS_SKIP_CHECK", "1").output();
    result.unwrap_or_else(|error| missing(command, &error))
}

/// Panics with the reason why a program did not start.
#[track_caller]
fn missing(command: &Command, error: &std::io::Error) -> ! {
    let program = command.get_program().display();
    match error.kind() {
        ErrorKind::NotFound => panic!("this test needs the program `{program}`, which is not installed"),
        _ => panic!("`{program}` does not start: {error}"),
    }
}

/// A running child process; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program. Panics with its name if it is not installed.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| missing(command, &error)))
    }

    /// Returns the child, for access to its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        kill(pid, signal).expect("signal a child that has not been reaped");
    }

    /// Returns the peak resident memory in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the state of a process");
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.expect("the line VmHWM")
    }

    /// Returns the open descriptors: paths of files, and the kernel's names for sockets and others.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("the open files of a process");
        // A descriptor that has been closed in the meantime is skipped.
        descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok()).collect()
    }

    /// Returns whether the process has ended and has not been reaped yet.
    pub fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|state| state.starts_with('Z'))
    }

    /// Returns the resident memory in bytes.
    pub fn resident_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Waits for the process to end. Panics after `within`.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        poll_until("the end of a program", within, || self.0.try_wait().expect("wait for a child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too. Both calls fail if the process has already ended, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
