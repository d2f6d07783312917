//! A thread of a program that hangs, as in a system call that never returns.

use std::fs;

use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use crate::{Process, not_tested};

/// A thread that was stopped. It stays stopped until [`resume`](Self::resume), or until the test's thread ends.
#[derive(Debug)]
pub struct HungThread(Pid);

impl HungThread {
    /// Stops the thread of this name. Returns `None` if that is not allowed.
    #[track_caller]
    pub fn of(process: &Process, name: &str) -> Option<Self> {
        let threads = fs::read_dir(format!("/proc/{}/task", process.id())).expect("a running process");
        let thread = threads
            .map(|thread| thread.expect("a thread").path())
            .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|found| found.trim_end() == name));
        let id = thread.expect("a thread of this name").file_name().and_then(|id| id.to_str()?.parse().ok());
        let thread = Pid::from_raw(id.expect("a number"));
        if let Err(error) = ptrace::seize(thread, ptrace::Options::empty()) {
            not_tested(format_args!("ptrace: {error}"));
            return None;
        }
        ptrace::interrupt(thread).expect("interrupted");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("stopped");
        Some(Self(thread))
    }

    /// Returns the ID of the thread.
    pub fn id(&self) -> Pid {
        self.0
    }

    /// Lets the thread continue.
    #[track_caller]
    pub fn resume(self) {
        ptrace::detach(self.0, None).expect("continued");
    }
}
