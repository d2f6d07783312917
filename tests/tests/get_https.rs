//! rtftp-get over HTTPS.

use std::fs;

use rtftp_tests::{Authority, GetResult, Rtftp, RtftpGet, assert_same, noise};
use tempfile::TempDir;

/// A daemon with HTTP and HTTPS, and the directory with its certificate.
struct Https {
    daemon: Rtftp,
    plain: String,
    encrypted: String,
    files: TempDir,
}

/// Starts a daemon whose certificate ends at the start of this year.
fn start(end: i32) -> Https {
    let files = TempDir::new().expect("a directory");
    for (name, authority) in ["other.pem", "ca.pem"].map(|name| (name, Authority::new(name))) {
        authority.issue(end, files.path());
        fs::write(files.path().join(name), authority.certificate()).expect("written");
    }
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| path(&files, name));
    let tls = ["--https", "127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[&tls[..], &["--http", "127.0.0.1:0"]].concat());
    let plain = daemon.served_at("serving files over HTTP on ").to_string();
    let encrypted = daemon.served_at("serving files over HTTPS on ").to_string();
    Https { daemon, plain, encrypted, files }
}

fn path(files: &TempDir, name: &str) -> String {
    files.path().join(name).display().to_string()
}

impl Https {
    /// Fetches URLs, trusting the authority in this file; asserts that no file remains unless the exit code is 0.
    #[track_caller]
    fn get(&self, ca: &str, args: &[&str]) -> (GetResult, RtftpGet) {
        let getter = RtftpGet::new();
        let got = getter.get(&[args, &["--ca", &path(&self.files, ca)]].concat());
        if got.code != Some(0) {
            assert_eq!(getter.files(), Vec::<String>::new(), "{}", got.stderr);
        }
        (got, getter)
    }
}

#[test]
fn fetches_from_a_server_whose_authority_is_trusted() {
    let https = start(2100);
    let large = noise(5_000_003, 2);
    https.daemon.put("default/large", &large);
    https.daemon.put("default/empty", "");
    let url = format!("https://{}", https.encrypted);
    let (got, getter) = https.get("ca.pem", &[&format!("{url}/large"), &format!("{url}/empty"), "--trace"]);
    got.assert_exit(0, &[&format!("{url}/large: 5000003 bytes in "), "/empty: 0 bytes in ", "Host: 127.0.0.1:"]);
    assert_same(&getter.read("large"), &large, "the file");
    assert_eq!(getter.read("empty"), b"");
    assert_eq!(got.stderr.matches(" encrypted with TLS 1.3").count(), 1, "one connection: {}", got.stderr);
    let (got, _) = https.get("ca.pem", &[&format!("{url}/missing")]);
    got.assert_exit(1, &["404 Not Found: check the path"]);
}

#[test]
fn rejects_a_server_that_cannot_prove_its_name() {
    let https = start(2100);
    https.daemon.put("default/f", "abc");
    let (got, _) = https.get("other.pem", &[&format!("https://{}/f", https.encrypted)]);
    got.assert_exit(3, &["127.0.0.1:", "no connection with TLS: invalid peer certificate", "the file of --ca"]);
    let localhost = format!("https://{}/f", https.encrypted.replace("127.0.0.1", "localhost"));
    let (got, _) = https.get("ca.pem", &[&localhost]);
    got.assert_exit(3, &["no connection with TLS: invalid peer certificate", "localhost"]);
    let expired = start(2001);
    let (got, _) = expired.get("ca.pem", &[&format!("https://{}/f", expired.encrypted)]);
    got.assert_exit(3, &["no connection with TLS: invalid peer certificate", "expired"]);
}

#[test]
fn reports_a_server_without_tls_and_one_with_it() {
    let https = start(2100);
    let (got, _) = https.get("ca.pem", &[&format!("https://{}/f", https.plain)]);
    got.assert_exit(3, &["no connection with TLS", "is this an HTTPS server?"]);
    let (got, _) = https.get("ca.pem", &[&format!("http://{}/f", https.encrypted)]);
    got.assert_exit(1, &["400 Bad Request: does the server expect https:// in the URL?"]);
}

#[test]
fn reports_certificates_that_cannot_be_read() {
    let https = start(2100);
    let url = format!("https://{}/f", https.encrypted);
    let (got, _) = https.get("missing.pem", &[&url]);
    got.assert_exit(4, &["missing.pem: No such file or directory", "--ca FILE"]);
    let (got, _) = https.get("key.pem", &[&url]);
    got.assert_exit(4, &["key.pem: no certificate in the PEM format"]);
}
