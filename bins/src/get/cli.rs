//! The command line of rtftp-get.

use std::{
    ffi::{OsStr, OsString},
    num::NonZeroU8,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::Duration,
};

use rtftp_core::wire::options::{MAX_BLKSIZE, MAX_WINDOWSIZE, RequestedOptions};

use crate::parser::{Parsed, Parser};

/// The arguments of a fetch.
#[derive(Debug)]
pub(crate) struct Job {
    /// `HOST[:PORT]`.
    pub(crate) server: String,
    pub(crate) file: Vec<u8>,
    pub(crate) options: RequestedOptions,
    pub(crate) patience: Duration,
    pub(crate) output: Destination,
    /// The local file to compare with.
    pub(crate) verify: Option<PathBuf>,
    pub(crate) trace: bool,
    pub(crate) quiet: bool,
}

/// The destination of the fetched file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    File(PathBuf),
    Stdout,
    /// The file is only compared.
    Discard,
}

/// Parses the arguments after the name of the program.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Parsed<Job>, String> {
    let mut parser = Parser::new("rtftp-get", args);
    if let Some(text) = parser.help_or_version() {
        return Ok(Parsed::Print(text));
    }
    let output = parser.path("--output")?;
    let verify = parser.path("--verify")?;
    let options = requested_options(&mut parser)?;
    let patience = parser.seconds("--patience", 1..=60)?;
    let trace = parser.flag("--trace");
    let quiet = parser.flag("--quiet");
    let [server, file] = <[OsString; 2]>::try_from(parser.operands()?).map_err(|rest| match rest.get(2) {
        Some(third) => format!("expected HOST and FILE, found a third argument, `{}`", third.to_string_lossy()),
        None => "HOST and FILE are missing: give the server and the file to fetch".into(),
    })?;
    let server =
        server.into_string().map_err(|server| format!("HOST is not valid UTF-8: `{}`", server.to_string_lossy()))?;
    let output = match output {
        Some(output) if output == OsStr::new("-") => Destination::Stdout,
        Some(output) => Destination::File(output),
        None if verify.is_some() => Destination::Discard,
        None => Destination::File(file_name(&file)?),
    };
    Ok(Parsed::Run(Job { server, file: file.into_vec(), options, patience, output, verify, trace, quiet }))
}

/// Returns the TFTP options to request.
fn requested_options(parser: &mut Parser) -> Result<RequestedOptions, String> {
    if parser.flag("--no-options") {
        for excluded in ["--blksize", "--windowsize", "--timeout"] {
            if parser.value::<String>(excluded, "a number")?.is_some() {
                return Err(format!("--no-options and {excluded} cannot be combined"));
            }
        }
        return Ok(RequestedOptions::default());
    }
    Ok(RequestedOptions {
        // RFC 2348 names the default of 1428: it fits into an Ethernet frame beside the headers of IPv6, UDP, TFTP and a tunnel.
        blksize: Some(parser.number("--blksize", 8..=MAX_BLKSIZE)?),
        windowsize: Some(parser.number("--windowsize", 1..=MAX_WINDOWSIZE)?),
        timeout: parser.value("--timeout", "a whole number from 1 to 255")?.map(NonZeroU8::get),
        tsize: true,
    })
}

/// Returns the last component of a path on the server, whose separator may be `/` or `\`.
fn file_name(path: &OsStr) -> Result<PathBuf, String> {
    let name = path.as_bytes().rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
    match name {
        b"" | b"." | b".." => Err(format!("`{}` does not end with a file name: use -o OUT", path.to_string_lossy())),
        name => Ok(PathBuf::from(OsStr::from_bytes(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed<Job>, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[track_caller]
    fn job(line: &str) -> Job {
        match parsed(line) {
            Ok(Parsed::Run(job)) => job,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn only_host_and_file_are_required() {
        let job = job("boot:6969 dir/vmlinuz");
        assert_eq!((&*job.server, &*job.file), ("boot:6969", &b"dir/vmlinuz"[..]));
        assert_eq!(
            job.options,
            RequestedOptions { blksize: Some(1428), windowsize: Some(16), timeout: None, tsize: true }
        );
        assert_eq!(job.output, Destination::File("vmlinuz".into()));
        assert_eq!((job.patience, job.verify, job.trace, job.quiet), (Duration::from_secs(60), None, false, false));
    }

    #[test]
    fn accepts_options_at_any_position() {
        for line in [
            "-o out --blksize 8 boot --windowsize 1 f --timeout 3 --patience 2 -q --trace",
            "boot f -q --trace --output=out --blksize=8 --windowsize=1 --timeout=3 --patience=2",
            "-o=out --quiet --trace --blksize 8 --windowsize 1 --timeout 3 --patience 2 boot f",
        ] {
            let job = job(line);
            assert_eq!((&*job.server, &*job.file), ("boot", &b"f"[..]), "{line}");
            assert_eq!(job.output, Destination::File("out".into()), "{line}");
            let options = RequestedOptions { blksize: Some(8), windowsize: Some(1), timeout: Some(3), tsize: true };
            assert_eq!((job.options, job.patience), (options, Duration::from_secs(2)), "{line}");
            assert!(job.trace && job.quiet, "{line}");
        }
        assert_eq!(job("boot f --no-options").options, RequestedOptions::default());
    }

    #[test]
    fn derives_the_output_from_output_verify_and_file() {
        for (line, output) in [
            ("h f -o -", Destination::Stdout),
            ("h f -o=-", Destination::Stdout),
            ("h f --verify local", Destination::Discard),
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
            ("boot get f", "expected HOST and FILE, found a third argument, `f`"),
            ("boot f --colour", "unknown argument `--colour`"),
            ("boot dir/", "`dir/` does not end with a file name: use -o OUT"),
            ("boot dir/..", "`dir/..` does not end with a file name: use -o OUT"),
            ("boot f --blksize 7", "--blksize: expected a whole number from 8 to 65464, found `7`"),
            ("boot f --windowsize 0", "--windowsize: expected a whole number from 1 to 32767, found `0`"),
            ("boot f --timeout 256", "--timeout: expected a whole number from 1 to 255, found `256`"),
            ("boot f --patience 61", "--patience: expected a whole number from 1 to 60, found `61`"),
            ("boot f --no-options --blksize 512", "--no-options and --blksize cannot be combined"),
            ("boot f -o", "the '-o' option doesn't have an associated value"),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
