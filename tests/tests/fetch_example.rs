//! Runs the core's example `fetch` against the daemon.

use rtftp_tests::{Rtftp, SIZES, noise};

#[expect(dead_code, unreachable_pub, reason = "the example is a program of its own")]
#[path = "../../core/examples/fetch.rs"]
mod example;

#[test]
fn fetches_files_of_all_sizes() {
    let daemon = Rtftp::start();
    for (name, len) in SIZES {
        let expected = noise(len, 1);
        daemon.put(&format!("default/{name}"), &expected);
        let bytes = example::fetch(daemon.address(), name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(bytes == expected, "{name}: received {} bytes", bytes.len());
    }
}

#[test]
fn reports_the_text_of_an_error() {
    let daemon = Rtftp::start();
    let error = example::fetch(daemon.address(), "missing").expect_err("the file does not exist");
    assert_eq!(error.to_string(), "ERROR 1 (file not found): File not found");
}
