//! Child processes: run to completion, or running until dropped.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output},
    thread,
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

/// The bytes of standard error that are shown.
const MAX_STDERR: usize = 16 << 10;

/// A running child process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What the program has written to standard error, and its name.
    stderr: Option<(File, String)>,
}

impl Process {
    /// Starts a program. Panics with its name if it is not installed.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap_or_else(|error| missing(command, &error)), stderr: None }
    }

    /// Starts a program whose standard error is shown only if the test fails.
    #[track_caller]
    pub fn start_quietly(command: &mut Command) -> Self {
        let stderr = tempfile::tempfile().expect("a temporary file");
        command.stderr(stderr.try_clone().expect("a second handle"));
        let mut process = Self::start(command);
        process.stderr = Some((stderr, format!("{command:?}")));
        process
    }

    /// Returns the standard error so far of a program that was started quietly.
    pub fn stderr(&self) -> String {
        let Some((stderr, _)) = &self.stderr else { return String::new() };
        let mut text = vec![0; MAX_STDERR];
        let len = stderr.read_at(&mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..len]).trim_end().to_owned()
    }

    /// Returns the child, for access to its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Returns the process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("signal a child that has not been reaped");
    }

    /// Returns the peak resident memory in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the state of a process");
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.expect("the line VmHWM")
    }

    /// Returns the open descriptors: paths of files, and the kernel's names for sockets and others.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the open files of a process");
        // A descriptor that has been closed in the meantime is skipped.
        descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok()).collect()
    }

    /// Returns whether the process has ended and has not been reaped yet.
    pub fn has_ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|state| state.starts_with('Z'))
    }

    /// Returns the resident memory in bytes.
    pub fn resident_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Waits for the process to end. Panics after `within`.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        poll_until("the end of a program", within, || self.child.try_wait().expect("wait for a child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some((_, command)) = self.stderr.as_ref().filter(|_| thread::panicking()) {
            println!("--- standard error of {command}\n{}\n---", self.stderr());
        }
        // SIGKILL ends a stopped process too. Both calls fail if the process has already ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_reason_why_a_program_ends() {
        let mut command = Command::new("sh");
        let mut process = Process::start_quietly(command.args(["-c", "echo the cause >&2; exit 3"]));
        assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(3));
        assert_eq!(process.stderr(), "the cause");
    }
}
