//! The command line of rtftp-etcd.

use std::{env, ffi::OsString, path::PathBuf};

use rtftp_runtime::client::Url;

use crate::parser::{Parsed, Parser};

/// The arguments of the program.
#[derive(Debug)]
pub(crate) struct Job {
    /// The URLs of the members, without a path.
    pub(crate) endpoints: Vec<String>,
    pub(crate) prefix: String,
    pub(crate) root: PathBuf,
    pub(crate) credentials: Credentials,
    pub(crate) once: bool,
}

/// What the program shows to etcd, and expects of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The certificates of trusted authorities.
    pub(crate) ca: PathBuf,
    /// The certificate of this program, and its key.
    pub(crate) identity: Option<[PathBuf; 2]>,
    /// The user, and the file with the password.
    pub(crate) user: Option<(String, PathBuf)>,
}

/// The default of `--ca`: the bundle of Debian.
const DEFAULT_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Parses the arguments after the name of the program.
///
/// # Errors
///
/// Returns the problem with the arguments in one line.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Parsed<Job>, String> {
    let mut parser = Parser::new("rtftp-etcd", args);
    if let Some(text) = parser.help_or_version() {
        return Ok(Parsed::Print(text));
    }
    let root = parser.path("--root-dir")?;
    let endpoints: Option<String> = parser.value("--endpoints", "URLs")?;
    let prefix: Option<String> = parser.value("--prefix", "a text")?;
    let ca = parser.path("--ca")?;
    let identity = [parser.path("--cert")?, parser.path("--key")?];
    let user: Option<String> = parser.value("--user", "a name")?;
    let password = parser.path("--password-file")?;
    let once = parser.flag("--once");
    if let Some(operand) = parser.operands()?.first() {
        return Err(crate::parser::unknown_argument(operand));
    }
    let identity = match identity {
        [Some(certificate), Some(key)] => Some([certificate, key]),
        [None, None] => None,
        _ => return Err("--cert and --key belong together: give both".into()),
    };
    let user = match (user, password.or_else(password_credential)) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) => return Err("--user needs a password: give --password-file FILE".into()),
        (None, _) => None,
    };
    let prefix = prefix.unwrap_or_else(|| "/rtftp/".into());
    if !prefix.ends_with('/') {
        return Err(format!("--prefix: expected a text that ends with `/`, found `{prefix}`"));
    }
    Ok(Parsed::Run(Job {
        endpoints: endpoint_urls(endpoints.as_deref().unwrap_or("http://127.0.0.1:2379"))?,
        prefix,
        root: root.ok_or("--root-dir DIR is missing: give the root directory of rtftp")?,
        credentials: Credentials { ca: ca.unwrap_or_else(|| DEFAULT_CA.into()), identity, user },
        once,
    }))
}

/// Returns the file of the credential `password` of the service (`LoadCredential=` in systemd.exec(5)).
fn password_credential() -> Option<PathBuf> {
    env::var_os("CREDENTIALS_DIRECTORY").map(|directory| PathBuf::from(directory).join("password"))
}

/// Splits the value of `--endpoints`.
fn endpoint_urls(list: &str) -> Result<Vec<String>, String> {
    let endpoint = |text: &str| {
        let text = text.trim();
        let url = Url::parse(text.as_bytes()).map_err(|error| format!("--endpoints: `{text}`: {error}"))?;
        if url.target() != "/" {
            return Err(format!("--endpoints: `{text}`: expected a URL without a path, such as http://10.0.0.1:2379"));
        }
        Ok(url.to_string().trim_end_matches('/').to_owned())
    };
    list.split(',').map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed<Job>, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn only_the_root_is_required() {
        let Ok(Parsed::Run(job)) = parsed("--root-dir /srv/tftp") else { panic!("no job") };
        assert_eq!(job.endpoints, ["http://127.0.0.1:2379"]);
        assert_eq!((&*job.prefix, job.root, job.once), ("/rtftp/", "/srv/tftp".into(), false));
        assert_eq!(job.credentials, Credentials { ca: DEFAULT_CA.into(), identity: None, user: None });
    }

    #[test]
    fn takes_all_options() {
        let line = "-r d --endpoints https://a:1,https://[::1]:2/ --prefix /x/ --ca c --cert=f --key k --user u \
                    --password-file p --once";
        let Ok(Parsed::Run(job)) = parsed(line) else { panic!("no job") };
        assert_eq!(job.endpoints, ["https://a:1", "https://[::1]:2"]);
        let identity = Some(["f".into(), "k".into()]);
        let credentials = Credentials { ca: "c".into(), identity, user: Some(("u".into(), "p".into())) };
        assert_eq!((&*job.prefix, job.credentials, job.once), ("/x/", credentials, true));
    }

    #[test]
    fn reports_wrong_arguments() {
        for (line, message) in [
            ("", "--root-dir DIR is missing: give the root directory of rtftp"),
            ("-r d x", "unknown argument `x`"),
            ("-r d --prefix x", "--prefix: expected a text that ends with `/`, found `x`"),
            ("-r d --cert x", "--cert and --key belong together: give both"),
            ("-r d --user x", "--user needs a password: give --password-file FILE"),
            ("-r d --endpoints a:1", "--endpoints: `a:1`: expected http:// or https:// at its start"),
            (
                "-r d --endpoints http://a/v3",
                "--endpoints: `http://a/v3`: expected a URL without a path, such as http://10.0.0.1:2379",
            ),
        ] {
            match parsed(line) {
                Err(error) => assert_eq!(error, message, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
