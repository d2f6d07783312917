//! The command line of `rtftp check`.

use std::{ffi::OsString, net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use rtftp_runtime::check::Limits;

use crate::{
    http::ListenAddress,
    parser::{Parsed, Parser},
};

/// The range of time limits in seconds.
pub(crate) const SECONDS: RangeInclusive<u64> = 1..=1_000_000;

/// The arguments of a check.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) root: PathBuf,
    pub(crate) json: bool,
    pub(crate) limits: Limits,
    /// The start of the server's URLs, and the start of paths that it removes; `None` without HTTP.
    pub(crate) http: Option<(String, String)>,
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
    let http = http_urls(&mut parser)?;
    let mut roots = parser.operands()?;
    roots.extend(root_dir.map(OsString::from));
    let mut roots = roots.into_iter();
    let root = roots.next().ok_or("DIR is missing: give the root directory to check")?.into();
    if let Some(second) = roots.next() {
        return Err(format!("expected one directory, found a second one, `{}`", second.to_string_lossy()));
    }
    Ok(Parsed::Run(Job { root, json, limits: Limits { open, answer }, http }))
}

/// Returns the start of the server's URLs, and the start of paths that it removes.
fn http_urls(parser: &mut Parser) -> Result<Option<(String, String)>, String> {
    let [plain, encrypted] = ["--http", "--https"].map(|option| parser.value(option, "IP:PORT or PORT"));
    let address = match (plain?, encrypted?) {
        (Some(_), Some(_)) => return Err("--http and --https cannot be combined: check shows one kind of URL".into()),
        (Some(address), None) => Some(start_of_urls("http", 80, address)),
        (None, encrypted) => encrypted.map(|address| start_of_urls("https", 443, address)),
    };
    let prefix = parser.value::<String>("--http-prefix", "a path")?;
    if prefix.is_some() && address.is_none() {
        return Err("--http-prefix needs --http or --https".into());
    }
    Ok(address.map(|address| (address, prefix.unwrap_or_default())))
}

/// Returns the start of the URLs of a server that listens on this address, with `SERVER` for an address that is not known.
fn start_of_urls(scheme: &str, default_port: u16, listen: ListenAddress) -> String {
    let (host, port) = match listen {
        ListenAddress::One(SocketAddr::V4(address)) => (address.ip().to_string(), address.port()),
        ListenAddress::One(SocketAddr::V6(address)) => (format!("[{}]", address.ip()), address.port()),
        ListenAddress::All(port) => (String::new(), port),
    };
    let host = if matches!(&*host, "" | "0.0.0.0" | "[::]") { "SERVER" } else { &host };
    if port == default_port { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
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
    fn makes_urls_of_the_http_address() {
        for (line, expected) in [
            ("/r", None),
            ("/r --http 80", Some(("http://SERVER", ""))),
            ("/r --http 0.0.0.0:8080", Some(("http://SERVER:8080", ""))),
            ("/r --http [::]:80", Some(("http://SERVER", ""))),
            ("/r --http 10.0.0.1:8080 --http-prefix /boot", Some(("http://10.0.0.1:8080", "/boot"))),
            ("/r --https 443 --http-prefix b", Some(("https://SERVER", "b"))),
            ("/r --https 10.0.0.1:80", Some(("https://10.0.0.1:80", ""))),
            ("/r --http [fe80::1]:80", Some(("http://[fe80::1]", ""))),
        ] {
            let Ok(Parsed::Run(job)) = parsed(line) else { panic!("{line}") };
            assert_eq!(job.http, expected.map(|(address, prefix)| (address.into(), prefix.into())), "{line}");
        }
    }

    #[test]
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("", "DIR is missing: give the root directory to check"),
            ("/r /s", "expected one directory, found a second one, `/s`"),
            ("/r -r /s", "expected one directory, found a second one, `/s`"),
            ("/r --listen-port 69", "unknown argument `--listen-port`"),
            ("/r --http here", "--http: expected IP:PORT or PORT, found `here`"),
            ("/r --http-prefix /boot", "--http-prefix needs --http or --https"),
            ("/r --http 80 --https 443", "--http and --https cannot be combined: check shows one kind of URL"),
            ("/r --open-limit 0", "--open-limit: expected a whole number from 1 to 1000000, found `0`"),
        ] {
            assert_eq!(parsed(line).err().as_deref(), Some(message), "{line}");
        }
    }
}
