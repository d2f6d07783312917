//! The command line of `rtftp-get`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::Duration,
};

use pico_args::Arguments;
use rtftp::{
    arguments::{flag, number, number_if_given, operands, path},
    options,
};
use rtftp_core::wire::options::{MAX_BLKSIZE, MAX_WINDOWSIZE, RequestedOptions};

/// The action that the command line requests.
#[derive(Debug)]
pub(crate) enum Action {
    /// Print a text and exit.
    Print(String),
    /// Fetch a file.
    Fetch(Job),
}

/// The arguments of a fetch.
#[derive(Debug)]
pub(crate) struct Job {
    /// `HOST[:PORT]`.
    pub(crate) server: String,
    pub(crate) file: Vec<u8>,
    pub(crate) requested: RequestedOptions,
    pub(crate) patience: Duration,
    pub(crate) output: Destination,
    /// The local file to compare with.
    pub(crate) verify: Option<PathBuf>,
    pub(crate) trace: bool,
    pub(crate) quiet: bool,
}

/// The destination of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    File(PathBuf),
    Stdout,
    Nowhere,
}

/// Parses the arguments after the program name.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Action, String> {
    let mut args = Arguments::from_vec(args);
    if flag(&mut args, &options::HELP) {
        return Ok(Action::Print(options::GET.help()));
    }
    if flag(&mut args, &options::VERSION) {
        return Ok(Action::Print(format!("rtftp-get {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let output = path(&mut args, &options::OUTPUT, "a file")?;
    let verify = path(&mut args, &options::VERIFY, "a file")?;
    let requested = requested_options(&mut args)?;
    let patience = number(&mut args, &options::PATIENCE, 1..=60)?;
    let trace = flag(&mut args, &options::TRACE);
    let quiet = flag(&mut args, &options::QUIET);
    let [server, file] = <[OsString; 2]>::try_from(operands(args)?).map_err(|rest| match rest.get(2) {
        Some(third) => format!("expected HOST and FILE only, found `{}`", third.to_string_lossy()),
        None => "HOST and FILE are missing: give the server and the file to fetch".into(),
    })?;
    let server =
        server.into_string().map_err(|server| format!("HOST is not valid UTF-8: `{}`", server.to_string_lossy()))?;
    let output = match output {
        Some(output) if output == OsStr::new("-") => Destination::Stdout,
        Some(output) => Destination::File(output),
        None if verify.is_some() => Destination::Nowhere,
        None => Destination::File(last_name(&file)?),
    };
    let file = file.into_vec();
    let patience = Duration::from_secs(patience);
    Ok(Action::Fetch(Job { server, file, requested, patience, output, verify, trace, quiet }))
}

/// Parses the options to request from the server.
fn requested_options(args: &mut Arguments) -> Result<RequestedOptions, String> {
    let plain = flag(args, &options::NO_OPTIONS);
    let timeout = number_if_given(args, &options::TIMEOUT, 1..=255)?;
    if !plain {
        // RFC 2348 suggests 1428: an Ethernet frame holds it with the headers of IPv6, UDP, TFTP and a tunnel.
        let blksize = Some(number(args, &options::BLKSIZE, 8..=MAX_BLKSIZE)?);
        let windowsize = Some(number(args, &options::WINDOWSIZE, 1..=MAX_WINDOWSIZE)?);
        return Ok(RequestedOptions { blksize, windowsize, timeout, tsize: true });
    }
    let blksize = number_if_given(args, &options::BLKSIZE, 8..=MAX_BLKSIZE)?;
    let windowsize = number_if_given(args, &options::WINDOWSIZE, 1..=MAX_WINDOWSIZE)?;
    if blksize.is_some() || windowsize.is_some() || timeout.is_some() {
        return Err("--no-options excludes --blksize, --windowsize and --timeout".into());
    }
    Ok(RequestedOptions::default())
}

/// Returns the last name of a path on the server, which may use `\` as separator.
fn last_name(file: &OsStr) -> Result<PathBuf, String> {
    let name = file.as_bytes().rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
    match name {
        b"" | b"." | b".." => Err(format!("`{}` does not end with a file name: use -o OUT", file.to_string_lossy())),
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
    fn only_the_host_and_the_file_are_required() {
        let job = job("boot:6969 dir/vmlinuz");
        assert_eq!((&*job.server, &*job.file), ("boot:6969", &b"dir/vmlinuz"[..]));
        assert_eq!(
            job.requested,
            RequestedOptions { blksize: Some(1428), windowsize: Some(16), timeout: None, tsize: true }
        );
        assert_eq!(job.output, Destination::File("vmlinuz".into()));
        assert_eq!((job.patience, job.verify, job.trace, job.quiet), (Duration::from_secs(60), None, false, false));
    }

    #[test]
    fn options_may_be_at_any_position() {
        for line in [
            "-o out --blksize 8 boot --windowsize 1 f --timeout 3 --patience 2 -q --trace",
            "boot f -q --trace --output=out --blksize=8 --windowsize=1 --timeout=3 --patience=2",
            "-o=out --quiet --trace --blksize 8 --windowsize 1 --timeout 3 --patience 2 boot f",
        ] {
            let job = job(line);
            assert_eq!((&*job.server, &*job.file), ("boot", &b"f"[..]), "{line}");
            assert_eq!(job.output, Destination::File("out".into()), "{line}");
            let requested = RequestedOptions { blksize: Some(8), windowsize: Some(1), timeout: Some(3), tsize: true };
            assert_eq!((job.requested, job.patience), (requested, Duration::from_secs(2)), "{line}");
            assert!(job.trace && job.quiet, "{line}");
        }
        assert_eq!(job("boot f --no-options").requested, RequestedOptions::default());
    }

    #[test]
    fn selects_the_destination() {
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
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("", "HOST and FILE are missing: give the server and the file to fetch"),
            ("boot", "HOST and FILE are missing: give the server and the file to fetch"),
            ("boot get f", "expected HOST and FILE only, found `f`"),
            ("boot f --colour", "unknown argument `--colour`"),
            ("boot dir/", "`dir/` does not end with a file name: use -o OUT"),
            ("boot dir/..", "`dir/..` does not end with a file name: use -o OUT"),
            ("boot f --blksize 7", "--blksize: expected a whole number from 8 to 65464, found `7`"),
            ("boot f --windowsize 0", "--windowsize: expected a whole number from 1 to 32767, found `0`"),
            ("boot f --timeout 256", "--timeout: expected a whole number from 1 to 255, found `256`"),
            ("boot f --patience 61", "--patience: expected a whole number from 1 to 60, found `61`"),
            ("boot f --no-options --blksize 512", "--no-options excludes --blksize, --windowsize and --timeout"),
            ("boot f -o", "the '-o' option doesn't have an associated value"),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
