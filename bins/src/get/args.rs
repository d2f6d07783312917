//! The command line of rtftp-get.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::Duration,
};

use pico_args::Arguments;
use rtftp_core::wire::options::{MAX_BLKSIZE, MAX_WINDOWSIZE, RequestedOptions};

use crate::values::{
    Names::{Both, Long},
    operands, path, within,
};

/// What `--help` prints.
const HELP: &str = "\
rtftp-get - fetches a file from a TFTP server, whole or not at all

Usage: rtftp-get HOST[:PORT] FILE [OPTIONS]

HOST is a name or an address; an IPv6 address with a port stands in brackets,
[fe80::1%eth0]:6969. The port is 69 unless given.

Options:
  -o, --output OUT|-        write to this file, or to standard output
                            [default: the last name of FILE, in this directory]
      --blksize BYTES       ask for blocks of this size, 8 to 65464 [default: 1428,
                            which fits Ethernet also over IPv6 and a tunnel]
      --windowsize BLOCKS   ask for windows of this size [default: 16]
      --timeout SECONDS     ask the server to repeat a packet after this time at the
                            latest, 1 to 255 [default: not asked]
      --no-options          ask for none of these, nor for the file's size (RFC 1350)
      --patience SECONDS    give up when the server is silent this long [default: 60]
      --verify LOCAL        compare with a local file; writes nothing unless -o is given
      --trace               print every packet, with the seconds since the start
  -q, --quiet               print errors only
  -h, --help                print this
  -V, --version             print the version

Progress, on a terminal, and all other messages go to standard error.

Exit codes:
  0    fetched, and equal if compared
  1    the server refused; its ERROR is printed
  2    wrong arguments
  3    no answer, the transfer broke off, or the server broke the rules
  4    OUT cannot be written, or LOCAL not be read
  5    LOCAL differs
  130  interrupted
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Print this and leave.
    Print(String),
    /// Fetch.
    Fetch(Job),
}

/// What to fetch, and what to do with it.
#[derive(Debug)]
pub(crate) struct Job {
    /// `HOST[:PORT]`.
    pub(crate) server: String,
    pub(crate) file: Vec<u8>,
    pub(crate) wanted: RequestedOptions,
    pub(crate) patience: Duration,
    pub(crate) output: Destination,
    /// What to compare it with.
    pub(crate) verify: Option<PathBuf>,
    pub(crate) trace: bool,
    pub(crate) quiet: bool,
}

/// Where the file goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    File(PathBuf),
    Stdout,
    Nowhere,
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Action, String> {
    let mut args = Arguments::from_vec(args);
    if args.contains(["-h", "--help"]) {
        return Ok(Action::Print(HELP.into()));
    }
    if args.contains(["-V", "--version"]) {
        return Ok(Action::Print(format!("rtftp-get {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let output = path(&mut args, Both("-o", "--output"), "a file")?;
    let verify = path(&mut args, Long("--verify"), "a file")?;
    let wanted = wanted(&mut args)?;
    let patience = within(&mut args, Long("--patience"), 1..=60)?.unwrap_or(60);
    let trace = args.contains("--trace");
    let quiet = args.contains(["-q", "--quiet"]);
    let [server, file] = <[OsString; 2]>::try_from(operands(args)?).map_err(|rest| match rest.get(2) {
        Some(third) => format!("HOST and FILE were expected, and `{}` is one more", third.to_string_lossy()),
        None => "HOST and FILE are expected: which file is to be fetched, and from where?".into(),
    })?;
    let server = server.into_string().map_err(|server| format!("HOST is no text: `{}`", server.to_string_lossy()))?;
    let output = match output {
        Some(output) if output == OsStr::new("-") => Destination::Stdout,
        Some(output) => Destination::File(output),
        None if verify.is_some() => Destination::Nowhere,
        None => Destination::File(last_name(&file)?),
    };
    let file = file.into_vec();
    let patience = Duration::from_secs(patience);
    Ok(Action::Fetch(Job { server, file, wanted, patience, output, verify, trace, quiet }))
}

/// The options to ask the server for.
fn wanted(args: &mut Arguments) -> Result<RequestedOptions, String> {
    let plain = args.contains("--no-options");
    let blksize = within(args, Long("--blksize"), 8..=MAX_BLKSIZE)?;
    let windowsize = within(args, Long("--windowsize"), 1..=MAX_WINDOWSIZE)?;
    let timeout = within(args, Long("--timeout"), 1..=255)?;
    if !plain {
        // RFC 2348 names 1428: an Ethernet frame holds it beside the headers of IPv6, UDP and TFTP and those of a tunnel.
        return Ok(RequestedOptions {
            blksize: blksize.or(Some(1428)),
            windowsize: windowsize.or(Some(16)),
            timeout,
            tsize: true,
        });
    }
    if blksize.is_some() || windowsize.is_some() || timeout.is_some() {
        return Err("--no-options goes with none of --blksize, --windowsize and --timeout".into());
    }
    Ok(RequestedOptions::default())
}

/// The last name of a path on the server, where `\` may be what `/` is here.
fn last_name(file: &OsStr) -> Result<PathBuf, String> {
    let name = file.as_bytes().rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
    match name {
        b"" | b"." | b".." => Err(format!("`{}` ends with no name of a file: use -o OUT", file.to_string_lossy())),
        name => Ok(PathBuf::from(OsStr::from_bytes(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Action, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[track_caller]
    fn job(line: &str) -> Job {
        match parsed(line) {
            Ok(Action::Fetch(job)) => job,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn everything_but_the_host_and_the_file_has_a_default() {
        let job = job("boot:6969 dir/vmlinuz");
        assert_eq!((&*job.server, &*job.file), ("boot:6969", &b"dir/vmlinuz"[..]));
        assert_eq!(
            job.wanted,
            RequestedOptions { blksize: Some(1428), windowsize: Some(16), timeout: None, tsize: true }
        );
        assert_eq!(job.output, Destination::File("vmlinuz".into()));
        assert_eq!((job.patience, job.verify, job.trace, job.quiet), (Duration::from_secs(60), None, false, false));
    }

    #[test]
    fn options_stand_anywhere() {
        for line in [
            "-o out --blksize 8 boot --windowsize 1 f --timeout 3 --patience 2 -q --trace",
            "boot f -q --trace --output=out --blksize=8 --windowsize=1 --timeout=3 --patience=2",
            "-o=out --quiet --trace --blksize 8 --windowsize 1 --timeout 3 --patience 2 boot f",
        ] {
            let job = job(line);
            assert_eq!((&*job.server, &*job.file), ("boot", &b"f"[..]), "{line}");
            assert_eq!(job.output, Destination::File("out".into()), "{line}");
            let wanted = RequestedOptions { blksize: Some(8), windowsize: Some(1), timeout: Some(3), tsize: true };
            assert_eq!((job.wanted, job.patience), (wanted, Duration::from_secs(2)), "{line}");
            assert!(job.trace && job.quiet, "{line}");
        }
        assert_eq!(job("boot f --no-options").wanted, RequestedOptions::default());
    }

    #[test]
    fn the_file_goes_where_it_is_said() {
        for (line, output) in [
            ("h f -o -", Destination::Stdout),
            ("h f -o=-", Destination::Stdout),
            ("h f --verify local", Destination::Nowhere),
            ("h f --verify local -o out", Destination::File("out".into())),
            (r"h \boot\x64\wdsnbp.com", Destination::File("wdsnbp.com".into())),
            ("h /f", Destination::File("f".into())),
            ("h dir/ -o out", Destination::File("out".into())),
        ] {
            assert_eq!(job(line).output, output, "{line}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            ("", "HOST and FILE are expected: which file is to be fetched, and from where?"),
            ("boot", "HOST and FILE are expected: which file is to be fetched, and from where?"),
            ("boot get f", "HOST and FILE were expected, and `f` is one more"),
            ("boot f --colour", "unknown argument `--colour`"),
            ("boot dir/", "`dir/` ends with no name of a file: use -o OUT"),
            ("boot dir/..", "`dir/..` ends with no name of a file: use -o OUT"),
            ("boot f --blksize 7", "--blksize: expected a whole number from 8 to 65464, found `7`"),
            ("boot f --windowsize 0", "--windowsize: expected a whole number from 1 to 32767, found `0`"),
            ("boot f --timeout 256", "--timeout: expected a whole number from 1 to 255, found `256`"),
            ("boot f --patience 61", "--patience: expected a whole number from 1 to 60, found `61`"),
            (
                "boot f --no-options --blksize 512",
                "--no-options goes with none of --blksize, --windowsize and --timeout",
            ),
            ("boot f -o", "the '-o' option doesn't have an associated value"),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
