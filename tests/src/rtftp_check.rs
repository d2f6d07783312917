//! `rtftp check` under test.

use std::{
    ffi::OsStr,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{Tree, binary, process::output};

/// How long it may take in all, whatever the disks do; an appliance on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// What it found.
#[derive(Debug)]
pub struct CheckResult {
    /// The exit code.
    pub code: Option<i32>,
    /// What was written to standard output.
    pub said: String,
}

impl CheckResult {
    /// Checks a root directory with these arguments.
    #[track_caller]
    pub fn of(root: &Tree, args: &[&str]) -> Self {
        Self::run(&[binary("rtftp").as_os_str()], root, args)
    }

    /// The same, by a command whose first words are these.
    #[track_caller]
    pub fn run(words: &[&OsStr], root: &Tree, args: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).args(words).arg("check").arg(root.path()).args(args);
        let Output { status, stdout, stderr } = output(&mut command);
        assert_eq!(String::from_utf8_lossy(&stderr), "", "nothing is said on standard error");
        Self { code: status.code(), said: String::from_utf8(stdout).expect("text") }
    }

    /// The line of the table that begins with this name, its cells joined by single blanks.
    #[track_caller]
    pub fn row(&self, name: &str) -> String {
        let rows = self.said.lines().take_while(|line| !line.is_empty());
        let cells = rows.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = cells.into_iter().find(|cells| cells.first() == Some(&name));
        row.unwrap_or_else(|| panic!("no row for {name} in\n{}", self.said)).join(" ")
    }

    /// The lines about mistakes.
    pub fn mistakes(&self) -> Vec<&str> {
        self.said.lines().filter_map(|line| line.strip_prefix("  ")).collect()
    }

    /// The JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.said).unwrap_or_else(|error| panic!("{error} in\n{}", self.said))
    }
}
