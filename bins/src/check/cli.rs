//! The command line of `rtftp check`.

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf};

use rtftp_runtime::check::Limits;

use crate::parser::{Parsed, Parser};

/// The range of time limits in seconds.
pub(crate) const SECONDS: RangeInclusive<u64> = 1..=1_000_000;

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
pub(crate) fn parse(args: Vec<OsString>) -> Result<Parsed<Job>, String> {
    let mut parser = Parser::new("rtftp check", args);
    if let Some(text) = parser.help_or_version() {
        return Ok(Parsed::Print(text));
    }
    let json = parser.flag("--json");
    let root_dir = parser.path("--root-dir")?;
    let open = parser.seconds("--open-limit", SECONDS)?;
    let answer = parser.seconds("--read-limit", SECONDS)?;
    let mut roots = parser.operands()?;
    roots.extend(root_dir.map(OsString::from));
    let mut roots = roots.into_iter();
    let root = roots.next().ok_or("DIR is missing: give the root directory to check")?.into();
    if let Some(second) = roots.next() {
        return Err(format!("expected one directory, found a second one, `{}`", second.to_string_lossy()));
    }
    Ok(Parsed::Run(Job { root, json, limits: Limits { open, answer } }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parsed(line: &str) -> Result<Parsed<Job>, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn takes_the_directory_as_operand_or_option() {
        for line in ["/r", "--root-dir /r", "-r /r", "--root-dir=/r --json", "--json /r"] {
            match parsed(line) {
                Ok(Parsed::Run(job)) => {
                    assert_eq!((job.root, job.json), ("/r".into(), line.contains("--json")), "{line}");
                    assert_eq!(
                        (job.limits.open, job.limits.answer),
                        (Duration::from_secs(120), Duration::from_secs(10))
                    );
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        match parsed("/r --open-limit 3 --read-limit 2") {
            Ok(Parsed::Run(job)) => {
                assert_eq!((job.limits.open, job.limits.answer), (Duration::from_secs(3), Duration::from_secs(2)));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("", "DIR is missing: give the root directory to check"),
            ("/r /s", "expected one directory, found a second one, `/s`"),
            ("/r -r /s", "expected one directory, found a second one, `/s`"),
            ("/r --listen-port 69", "unknown argument `--listen-port`"),
            ("/r --open-limit 0", "--open-limit: expected a whole number from 1 to 1000000, found `0`"),
        ] {
            assert_eq!(parsed(line).err().as_deref(), Some(message), "{line}");
        }
    }
}
