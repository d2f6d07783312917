//! The command line of rtftp-get.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    num::NonZeroU8,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::Duration,
};

use rtftp_core::wire::options::{MAX_BLKSIZE, MAX_WINDOWSIZE, RequestedOptions};
use rtftp_runtime::client::{InvalidUrl, Url};

use crate::parser::{Parsed, Parser};

/// The arguments of a fetch.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) source: Source,
    pub(crate) patience: Duration,
    /// The local file to compare with.
    pub(crate) verify: Option<PathBuf>,
    /// The file with the certificates of trusted authorities.
    pub(crate) ca: PathBuf,
    pub(crate) trace: bool,
    pub(crate) quiet: bool,
}

/// The files to fetch.
#[derive(Debug)]
pub(crate) enum Source {
    Tftp(TftpFile, Destination),
    Http(Vec<(Url, Destination)>),
}

/// A file on a TFTP server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TftpFile {
    /// `HOST[:PORT]`.
    pub(crate) server: String,
    pub(crate) path: Vec<u8>,
    pub(crate) options: RequestedOptions,
}

/// The destination of the fetched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    File(PathBuf),
    Stdout,
    /// The file is only compared.
    Discard,
}

/// The options that have no meaning over HTTP.
const TFTP_OPTIONS: [&str; 4] = ["--blksize", "--windowsize", "--timeout", "--no-options"];

/// The default of `--ca`: the bundle of Debian.
const DEFAULT_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Parses the arguments after the name of the program.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Parsed<Job>, String> {
    let is_given = |option: &&str| {
        let mut names = args.iter().filter_map(|arg| arg.to_str()?.split('=').next());
        names.any(|name| name == *option)
    };
    let tftp_option = TFTP_OPTIONS.into_iter().find(is_given);
    let mut parser = Parser::new("rtftp-get", args);
    if let Some(text) = parser.help_or_version() {
        return Ok(Parsed::Print(text));
    }
    let output = parser.path("--output")?;
    let verify = parser.path("--verify")?;
    let ca = parser.path("--ca")?;
    let options = requested_options(&mut parser)?;
    let patience = parser.seconds("--patience", 1..=60)?;
    let trace = parser.flag("--trace");
    let quiet = parser.flag("--quiet");
    let operands = parser.operands()?;
    let output = match output {
        Some(output) if output == OsStr::new("-") => Some(Destination::Stdout),
        Some(output) => Some(Destination::File(output)),
        None => verify.is_some().then_some(Destination::Discard),
    };
    let is_url = |operand: &OsString| Url::parse(operand.as_bytes()) != Err(InvalidUrl::Scheme);
    let is_ca_given = ca.is_some();
    let ca = ca.unwrap_or_else(|| DEFAULT_CA.into());
    let source = match (operands.first().is_some_and(is_url), tftp_option) {
        (true, Some(option)) => return Err(format!("{option} is an option of TFTP: leave it out for a URL")),
        (true, None) => Source::Http(urls(&operands, output)?),
        (false, _) if is_ca_given => return Err("--ca needs a URL that begins with https://".into()),
        (false, _) => tftp_source(operands, options, output)?,
    };
    Ok(Parsed::Run(Job { source, patience, verify, ca, trace, quiet }))
}

/// Returns the file on a TFTP server that HOST and FILE name.
fn tftp_source(
    operands: Vec<OsString>,
    options: RequestedOptions,
    output: Option<Destination>,
) -> Result<Source, String> {
    let [server, file] = <[OsString; 2]>::try_from(operands).map_err(|rest| match rest.get(2) {
        Some(third) => format!("expected HOST and FILE, found a third argument, `{}`", third.to_string_lossy()),
        None => "HOST and FILE are missing: give the server and the file to fetch".into(),
    })?;
    let server =
        server.into_string().map_err(|server| format!("HOST is not valid UTF-8: `{}`", server.to_string_lossy()))?;
    let output = match output {
        Some(output) => output,
        None => Destination::File(file_name(&file)?),
    };
    Ok(Source::Tftp(TftpFile { server, path: file.into_vec(), options }, output))
}

/// Returns the URLs of files, and where each file is written.
fn urls(operands: &[OsString], output: Option<Destination>) -> Result<Vec<(Url, Destination)>, String> {
    let mut urls = Vec::with_capacity(operands.len());
    for operand in operands {
        let url =
            Url::parse(operand.as_bytes()).map_err(|error| format!("`{}`: {error}", operand.to_string_lossy()))?;
        urls.push(url);
    }
    if let Some(output) = output {
        let one = <[Url; 1]>::try_from(urls).map_err(|_| "-o and --verify need exactly one URL")?;
        return Ok(one.into_iter().zip([output]).collect());
    }
    let mut names = BTreeSet::new();
    let with_name = |url: Url| {
        let name = url.file_name().ok_or_else(|| format!("`{url}` does not end with a file name: use -o OUT"))?;
        let path = PathBuf::from(OsString::from_vec(name));
        if names.insert(path.clone()) {
            return Ok((url, Destination::File(path)));
        }
        Err(format!("two URLs end with `{}`: fetch them one by one with -o OUT", path.display()))
    };
    urls.into_iter().map(with_name).collect()
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

    /// Returns the file and the output of a fetch over TFTP.
    #[track_caller]
    fn tftp(line: &str) -> (TftpFile, Destination) {
        match job(line).source {
            Source::Tftp(file, output) => (file, output),
            Source::Http(urls) => panic!("{line}: {urls:?}"),
        }
    }

    #[test]
    fn only_host_and_file_are_required() {
        let options = RequestedOptions { blksize: Some(1428), windowsize: Some(16), timeout: None, tsize: true };
        let file = TftpFile { server: "boot:6969".into(), path: b"dir/vmlinuz".into(), options };
        assert_eq!(tftp("boot:6969 dir/vmlinuz"), (file, Destination::File("vmlinuz".into())));
        let job = job("boot:6969 dir/vmlinuz");
        assert_eq!((job.patience, job.verify, job.trace, job.quiet), (Duration::from_secs(60), None, false, false));
    }

    #[test]
    fn accepts_options_at_any_position() {
        for line in [
            "-o out --blksize 8 boot --windowsize 1 f --timeout 3 --patience 2 -q --trace",
            "boot f -q --trace --output=out --blksize=8 --windowsize=1 --timeout=3 --patience=2",
            "-o=out --quiet --trace --blksize 8 --windowsize 1 --timeout 3 --patience 2 boot f",
        ] {
            let options = RequestedOptions { blksize: Some(8), windowsize: Some(1), timeout: Some(3), tsize: true };
            let file = TftpFile { server: "boot".into(), path: b"f".into(), options };
            assert_eq!(tftp(line), (file, Destination::File("out".into())), "{line}");
            let job = job(line);
            assert_eq!((job.patience, job.trace, job.quiet), (Duration::from_secs(2), true, true), "{line}");
        }
        assert_eq!(tftp("boot f --no-options").0.options, RequestedOptions::default());
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
            assert_eq!(tftp(line).1, output, "{line}");
        }
    }

    #[test]
    fn takes_one_or_more_urls() {
        for (line, expected) in [
            ("http://h/a/f", vec![("http://h/a/f", Destination::File("f".into()))]),
            ("http://h/ -o -", vec![("http://h/", Destination::Stdout)]),
            ("HTTP://h/f --verify local", vec![("http://h/f", Destination::Discard)]),
            (
                "http://h/a http://g/b%20c?d",
                vec![
                    ("http://h/a", Destination::File("a".into())),
                    ("http://g/b%20c?d", Destination::File("b c".into())),
                ],
            ),
        ] {
            let Source::Http(urls) = job(line).source else { panic!("{line}") };
            let urls: Vec<_> = urls.iter().map(|(url, output)| (url.to_string(), output.clone())).collect();
            let expected: Vec<_> = expected.into_iter().map(|(url, output)| (url.to_owned(), output)).collect();
            assert_eq!(urls, expected, "{line}");
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
            ("http://boot/f --blksize=512", "--blksize is an option of TFTP: leave it out for a URL"),
            ("boot f --ca ca.pem", "--ca needs a URL that begins with https://"),
            ("http://boot/f --no-options", "--no-options is an option of TFTP: leave it out for a URL"),
            ("http://boot/ --trace", "`http://boot/` does not end with a file name: use -o OUT"),
            ("http://boot/a/f http://boot/b/f", "two URLs end with `f`: fetch them one by one with -o OUT"),
            ("http://boot/f http://boot/g -o out", "-o and --verify need exactly one URL"),
            ("http://boot/f g", "`g`: expected http:// or https:// at its start"),
            ("http://::1/f", "`http://::1/f`: expected HOST or HOST:PORT after http://, an IPv6 address as [ADDRESS]"),
            ("boot f -o", "the '-o' option doesn't have an associated value"),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
