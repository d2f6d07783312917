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

/// What `rtftp check --help` prints.
const HELP: &str = "\
rtftp check - looks for mistakes in a root directory and on the disks that it names

Usage: rtftp check DIR [OPTIONS]

Reads every .nbd file in DIR as the server does, connects to its disk, and prints a line for each:
what is on the disk, what is mounted and who reads it, the files that a client can get, what is
probably its kernel, and which partitions are in use (mounted by their owner, or never unmounted).
Below that is a line for every mistake. Nothing is written, and a server that runs is not disturbed.

Options:
  -r, --root-dir DIR          the same as DIR
      --json                  print one JSON document instead
      --open-limit SECONDS    how long opening a disk may take in all; connecting to its server,
                              at most 5 [default: 120]
      --read-limit SECONDS    how long one answer of an open disk may take [default: 10]
  -h, --help                  print this

Exit code 0 if all is well, 1 if something is wrong, 2 for wrong arguments.
";

/// What is to be looked at, and how.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) root: PathBuf,
    pub(crate) json: bool,
    pub(crate) limits: Limits,
}

/// Reads the arguments after `check`.
///
/// # Errors
///
/// What is wrong, in one line.
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
    let root = roots.next().ok_or("DIR is missing: which directory is to be checked?")?.into();
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
    fn the_directory_is_said_in_either_way() {
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
    fn mistakes_are_named() {
        for (line, message) in [
            ("check", "DIR is missing: which directory is to be checked?"),
            ("check /r /s", "expected one directory, found a second one, `/s`"),
            ("check /r -r /s", "expected one directory, found a second one, `/s`"),
            ("check /r --listen-port 69", "unknown argument `--listen-port`"),
            ("check /r --open-limit 0", "--open-limit: expected a whole number from 1 to 1000000, found `0`"),
        ] {
            assert_eq!(parsed(line).err().as_deref(), Some(message), "{line}");
        }
    }
}
