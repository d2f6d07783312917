//! Tests of starting helpers, with a helper that fails as its name says.

use super::{
    super::{
        child::PASSED_VARIABLES,
        fake::{Fake, patient},
    },
    *,
};

fn launcher(fake: &Fake, timeouts: HelperTimeouts, try_kvm: bool) -> Launcher {
    Launcher { try_kvm: AtomicBool::new(try_kvm), ..Launcher::with_helper(fake.helper.clone(), timeouts) }
}

fn start(launcher: &Launcher) -> Result<(), HelperError> {
    smol::block_on(async {
        launcher.start("disk", b"{}").await?.stop().await;
        Ok(())
    })
}

#[track_caller]
fn fails(fault: &str, timeouts: HelperTimeouts, expected: &str) {
    let fake = Fake::new(fault);
    assert_eq!(start(&launcher(&fake, timeouts, false)).expect_err("a failure").to_string(), expected);
    fake.assert_nothing_is_left();
}

#[test]
fn start_times_out() {
    let timeouts = HelperTimeouts { reply: Duration::from_secs(2), ..patient() };
    fails("silent", timeouts, "connecting to the NBD server: no reply in time");
    fails("hung-server", timeouts, "connecting to the NBD server: no reply in time");
    let timeouts = HelperTimeouts { start: Duration::from_secs(2), ..patient() };
    fails("hung-mount", timeouts, "mounting: no reply in time");
}

#[test]
fn rejects_a_program_that_is_not_a_helper_of_this_version() {
    let invalid = "connecting to the NBD server: rtftp-guestfs sent an invalid message";
    fails("garbage", patient(), invalid);
    fails("confused", patient(), invalid);
    let expected = "connecting to the NBD server: rtftp-guestfs has protocol version 2, rtftp has 3: install the same release \
                    of both";
    fails("old", patient(), expected);
}

#[test]
fn explains_a_failure_by_stderr() {
    fails("lost", patient(), "no disk (Failed to connect: Connection refused)");
    let library = "connecting to the NBD server: rtftp-guestfs exited unexpectedly (rtftp-guestfs: error while loading \
                   shared libraries: libguestfs.so.0: cannot open shared object file)";
    fails("missing-library", patient(), library);
    let nowhere = Launcher::with_helper("/nonexistent".into(), patient());
    let error = start(&nowhere).expect_err("a failure").to_string();
    assert!(error.starts_with("cannot run /nonexistent: "), "{error}");
}

#[test]
fn texts_of_the_helper_are_short_and_on_one_line() {
    let fake = Fake::new("forged-lines");
    let error = start(&launcher(&fake, patient(), false)).expect_err("a failure").to_string();
    println!("{} bytes", error.len());
    assert!(error.starts_with(r"\u{1b}[2J\nERROR forged\u{1b}[2J") && error.len() < 1100, "{error}");
    assert!(error.ends_with(r"(rtftp-guestfs: \u{1b}[2Jfrom stderr)"), "{error}");
    fake.assert_nothing_is_left();
}

#[test]
fn helper_gets_a_listed_environment_and_no_core_dumps() {
    let fake = Fake::new("environment");
    start(&launcher(&fake, patient(), false)).expect_err("a failure");
    let set_here = ["LC_ALL", "XDG_RUNTIME_DIR"];
    let set_by_the_script = ["OLDPWD", "PWD", "RTFTP_FAKE_HELPER", "SHLVL", "_"];
    assert!(env::var_os("CARGO_MANIFEST_DIR").is_some(), "a variable of this process");
    let variables = fake.records("variables");
    println!("the helper's variables: {variables:?}");
    for name in &variables {
        let is_passed = PASSED_VARIABLES.iter().any(|passed| match passed.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == passed,
        });
        assert!(is_passed || set_here.contains(&&**name) || set_by_the_script.contains(&&**name), "{name}");
    }
    for name in ["PATH", "LC_ALL"] {
        assert!(variables.iter().any(|variable| variable == name), "{name}");
    }
    let limits = fake.records("limits");
    let core = limits.iter().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    fake.assert_nothing_is_left();
}

#[test]
fn discards_endless_lines_of_stderr() {
    let fake = Fake::new("endless-line");
    start(&launcher(&fake, patient(), false)).expect("a start");
    fake.assert_nothing_is_left();
}

#[test]
fn detects_broken_kvm_once() {
    let fake = Fake::new("broken-kvm");
    let launcher = launcher(&fake, HelperTimeouts { silence: Duration::from_millis(300), ..patient() }, true);
    start(&launcher).expect("a start without KVM");
    start(&launcher).expect("a start without KVM");
    assert!(!launcher.try_kvm.load(Ordering::Relaxed));
    assert_eq!(fake.children().len(), 3, "one attempt with KVM, two without");
    fake.assert_nothing_is_left();
}

#[test]
fn waits_for_a_slow_appliance_with_console_output() {
    let fake = Fake::new("slow-kvm");
    let launcher = launcher(&fake, HelperTimeouts { silence: Duration::from_secs(4), ..patient() }, true);
    start(&launcher).expect("a start with KVM");
    assert!(launcher.try_kvm.load(Ordering::Relaxed));
}

#[test]
fn does_not_blame_kvm_for_a_disk_that_never_starts() {
    let fake = Fake::new("broken-both");
    let launcher = launcher(&fake, patient(), true);
    assert_eq!(start(&launcher).expect_err("a failure").to_string(), "no start");
    assert!(launcher.try_kvm.load(Ordering::Relaxed));
    fake.assert_nothing_is_left();
}

#[test]
fn cancelling_a_start_ends_its_processes() {
    let fake = Fake::new("hung-mount");
    let launcher = launcher(&fake, patient(), false);
    smol::block_on(future::or(async { drop(launcher.start("disk", b"{}").await) }, fake.has_started()));
    fake.assert_nothing_is_left();
}
