//! What a test says on a machine where it cannot run.

use std::{
    fmt::Display,
    io::{Write as _, stderr},
    process::Command,
    thread,
};

use crate::process::output;

/// Prints that the current test, or a part of it, does not run on this machine. Only a missing privilege or program is a reason.
pub fn not_tested(reason: impl Display) {
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    // The test harness captures the output of `eprintln!`.
    let _ = writeln!(stderr(), "\nnot tested: {test}: {reason}");
}

/// Returns whether a process may create the namespaces of these arguments of unshare(1). Otherwise prints that the test does not run:
/// containers, and some distributions for ordinary users, forbid namespaces.
pub fn can_unshare(args: &[&str]) -> bool {
    let tried = output(Command::new("unshare").args(args).arg("true"));
    if !tried.status.success() {
        not_tested(String::from_utf8_lossy(&tried.stderr).trim());
    }
    tried.status.success()
}
