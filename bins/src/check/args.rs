//! The command line of `rtftp check`.

use std::{ffi::OsString, path::PathBuf};

use pico_args::Arguments;
use rtftp_runtime::check::Limits;

use crate::{
    args::{Action, seconds},
    values::{
        Names::{Both, Long},
        operands, path,
    },
};

/// The text of `rtftp check --help`.
const HELP: &str = "\
rtftp check - checks a root directory and the disks that it describes

Usage: rtftp check DIR [OPTIONS]

Reads each .nbd file in DIR as the server does, connects to its disk, and prints a line with the
partitions, the mounts and the backend, the number of files that the client can read, the most
likely kernel, and the partitions in use (mounted elsewhere, or not unmounted cleanly). A line for
each problem follows. The check writes nothing and does not disturb a running server.

Options:
  -r, --root-dir DIR          the same as DIR
      --json                  print one JSON document instead
      --open-limit SECONDS    time limit for opening a disk; connecting to its NBD server is limited
                              to 5 seconds [default: 120]
      --read-limit SECONDS    time limit for one answer of an open disk [default: 10]
  -h, --help                  print this help

Exit code 0 without problems, 1 with problems, 2 for wrong arguments.
";

/// The arguments of a check.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) root: PathBuf,
    pub(crate) json: bool,
    pub(crate) limits: Limits,
}

/// Parses the arguments after `check`.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Action, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Action::Print(HELP.into()));
    }
    let json = args.contains("--json");
    let root_dir = path(&mut args, Both("-r", "--root-dir"), "a directory")?;
    let open = seconds(&mut args, Long("--open-limit"), 120)?;
    let answer = seconds(&mut args, Long("--read-limit"), 10)?;
    let mut roots = operands(args)?;
    roots.extend(root_dir.map(OsString::from));
    let mut roots = roots.into_iter();
    let root = roots.next().ok_or("DIR is missing: give the root directory to check")?.into();
    if let Some(second) = roots.next() {
        return Err(format!("expected one directory, found a second one, `{}`", second.to_string_lossy()));
    }
    Ok(Action::Check(Job { root, json, limits: Limits { open, answer } }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parsed(line: &str) -> Result<Action, String> {
        crate::args::parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn takes_the_directory_as_operand_or_option() {
        for line in ["check /r", "check --root-dir /r", "check -r /r", "check --root-dir=/r --json", "check --json /r"]
        {
            match parsed(line) {
                Ok(Action::Check(job)) => {
                    assert_eq!((job.root, job.json), ("/r".into(), line.contains("--json")), "{line}");
                    assert_eq!(
                        (job.limits.open, job.limits.answer),
                        (Duration::from_secs(120), Duration::from_secs(10))
                    );
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        match parsed("check /r --open-limit 3 --read-limit 2") {
            Ok(Action::Check(job)) => {
                assert_eq!((job.limits.open, job.limits.answer), (Duration::from_secs(3), Duration::from_secs(2)));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("check", "DIR is missing: give the root directory to check"),
            ("check /r /s", "expected one directory, found a second one, `/s`"),
            ("check /r -r /s", "expected one directory, found a second one, `/s`"),
            ("check /r --listen-port 69", "unknown argument `--listen-port`"),
            ("check /r --open-limit 0", "--open-limit: expected a whole number from 1 to 1000000, found `0`"),
        ] {
            assert_eq!(parsed(line).err().as_deref(), Some(message), "{line}");
        }
    }
}
