//! Runs `rtftp check` and reads its table and its JSON.

use std::{
    ffi::OsStr,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{Tree, binary, process::output};

/// The maximum time for a run; an appliance on a busy host is slow.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// The result of a run.
#[derive(Debug)]
pub struct CheckResult {
    /// The exit code.
    pub code: Option<i32>,
    /// The standard output.
    pub stdout: String,
}

impl CheckResult {
    /// Checks a root directory with these arguments.
    #[track_caller]
    pub fn of(root: &Tree, args: &[&str]) -> Self {
        Self::run(&[binary("rtftp").as_os_str()], root, args)
    }

    /// Does the same through a command that begins with these words.
    #[track_caller]
    pub fn run(words: &[&OsStr], root: &Tree, args: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.arg(RUN_LIMIT.as_secs().to_string()).args(words).arg("check").arg(root.path()).args(args);
        let Output { status, stdout, stderr } = output(&mut command);
        assert_eq!(String::from_utf8_lossy(&stderr), "", "standard error must be empty");
        Self { code: status.code(), stdout: String::from_utf8(stdout).expect("text") }
    }

    /// Returns the row of the table that begins with this name, its cells joined by single spaces.
    #[track_caller]
    pub fn row(&self, name: &str) -> String {
        let rows = self.stdout.lines().take_while(|line| !line.is_empty());
        let cells = rows.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = cells.into_iter().find(|cells| cells.first() == Some(&name));
        row.unwrap_or_else(|| panic!("no row for {name} in\n{}", self.stdout)).join(" ")
    }

    /// Returns the problems listed below the table.
    pub fn problems(&self) -> Vec<&str> {
        let problems =
            self.stdout.lines().skip_while(|line| !line.ends_with(" problem:") && !line.ends_with(" problems:"));
        problems.filter_map(|line| line.strip_prefix("  ")).collect()
    }

    /// Returns the JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in\n{}", self.stdout))
    }
}
