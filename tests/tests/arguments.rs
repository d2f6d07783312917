//! The command line of rtftp: accepted forms and usage errors.

use nix::sys::signal::Signal;
use rtftp_tests::{Rtftp, run_with_bad_arguments};

/// Asserts exit code 2 and a message that contains `problem`.
#[track_caller]
fn assert_usage_error(args: &[&str], problem: &str) {
    let output = run_with_bad_arguments(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(stderr.contains(problem), "{args:?}: no `{problem}` in {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn prints_help_and_version_to_standard_output() {
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
fn explains_an_address_that_the_machine_does_not_have() {
    // An address for documentation (RFC 5737).
    let output = run_with_bad_arguments(["--listen-ip", "192.0.2.1", "--listen-port", "6969", "--root-dir", "/"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for words in ["cannot listen on 192.0.2.1, port 6969: ", "does not have the address", "FreeBind=yes"] {
        assert!(stderr.contains(words), "no `{words}` in {stderr}");
    }
}

#[test]
fn reports_invalid_arguments_with_exit_code_2() {
    assert_usage_error(&["--listen-ipp", "127.0.0.1"], "--listen-ipp");
    assert_usage_error(&["surplus"], "surplus");
    assert_usage_error(&["--listen-ip", "localhost:69"], "localhost:69");
    assert_usage_error(&["--listen-ip", "10.0.0.256"], "10.0.0.256");
    assert_usage_error(&["--listen-port", "65536"], "65536");
    assert_usage_error(&["--listen-port", "tftp"], "tftp");
    assert_usage_error(&["--idle-timeout", "-1"], "-1");
    assert_usage_error(&["--idle-timeout", "soon"], "soon");
    assert_usage_error(&["--monitor-configs=maybe"], "maybe");
    assert_usage_error(&["--port-range", "50999-50000"], "50999-50000");
    assert_usage_error(&["--log-level", "loud"], "loud");
    assert_usage_error(&["--listen-port"], "--listen-port");
}

#[test]
fn reports_missing_root_directory() {
    let output = run_with_bad_arguments(["-l", "127.0.0.1", "-p", "0", "-r", "/nowhere/at/all", "-t", "60"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at/all"));
}

#[test]
fn accepts_every_form_of_monitor_configs() {
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
        Rtftp::start_with("127.0.0.1", 60, form).stop(Signal::SIGTERM);
    }
}

#[test]
fn port_0_selects_a_free_port_and_both_signals_end_the_daemon() {
    let (one, other) = (Rtftp::start(), Rtftp::start());
    assert_ne!(one.address(), other.address());
    one.stop(Signal::SIGTERM);
    other.stop(Signal::SIGINT);
}

#[test]
fn logs_its_address_at_level_debug() {
    let daemon = Rtftp::start_with("127.0.0.1", 60, &["--log-level", "debug"]);
    assert!(daemon.address().port() != 0);
}
