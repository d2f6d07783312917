//! The command line: what is understood, what is refused, and how.

use nix::sys::signal::Signal;
use rtftp_tests::{Rtftp, run_with_bad_arguments};

/// Asserts exit code 2 and a message that names the mistake.
#[track_caller]
fn refused(args: &[&str], named: &str) {
    let output = run_with_bad_arguments(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(named), "{args:?} should be answered with `{named}`: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn help_and_version_are_told_on_stdout() {
    let help = run_with_bad_arguments(["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success());
    let options = [
        "--listen-ip",
        "--listen-port",
        "--root-dir",
        "--idle-timeout",
        "--monitor-configs",
        "--log-level",
        "--status-socket",
        "--status-listen",
    ];
    for option in options.into_iter().chain(["--help", "--version", "-l", "-p", "-r", "-t", "-m"]) {
        assert!(text.contains(option), "{option} is missing in\n{text}");
    }
    let version = run_with_bad_arguments(["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_are_named_and_end_with_code_2() {
    refused(&["--listen-ipp", "127.0.0.1"], "--listen-ipp");
    refused(&["surplus"], "surplus");
    refused(&["--listen-ip", "localhost:69"], "localhost:69");
    refused(&["--listen-ip", "10.0.0.256"], "10.0.0.256");
    refused(&["--listen-port", "65536"], "65536");
    refused(&["--listen-port", "tftp"], "tftp");
    refused(&["--idle-timeout", "-1"], "-1");
    refused(&["--idle-timeout", "soon"], "soon");
    refused(&["--monitor-configs=maybe"], "maybe");
    refused(&["--port-range", "50999-50000"], "50999-50000");
    refused(&["--log-level", "loud"], "loud");
    refused(&["--listen-port"], "--listen-port");
}

#[test]
fn a_missing_root_directory_is_named() {
    let output = run_with_bad_arguments(["-l", "127.0.0.1", "-p", "0", "-r", "/nowhere/at/all", "-t", "60"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at/all"));
}

#[test]
fn every_form_of_monitor_configs_is_understood() {
    let forms: [&[&str]; 7] = [
        &[],
        &["--monitor-configs"],
        &["--monitor-configs=true"],
        &["--monitor-configs=false"],
        &["--monitor-configs", "false"],
        &["-m"],
        &["-m", "false"],
    ];
    for form in forms {
        Rtftp::with("127.0.0.1", 60, form).stop(Signal::SIGTERM);
    }
}

#[test]
fn either_signal_ends_it_and_port_0_gives_each_its_own() {
    let (one, other) = (Rtftp::start(), Rtftp::start());
    assert_ne!(one.address(), other.address());
    one.stop(Signal::SIGTERM);
    other.stop(Signal::SIGINT);
}

#[test]
fn a_quiet_daemon_still_says_where_it_listens() {
    let daemon = Rtftp::with("127.0.0.1", 60, &["--log-level", "debug"]);
    assert!(daemon.address().port() != 0);
}
