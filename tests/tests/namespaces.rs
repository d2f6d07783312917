//! Machines that forbid namespaces, such as containers: the tests that need them say so.

use std::{
    env,
    process::{Command, Stdio},
};

use rtftp_tests::{ForeignServer, TftpServerProgram, VethNetwork, can_unshare};

/// Forbids all namespaces in a namespace, and runs a program there.
const SCRIPT: &str = r#"for kind in mnt net pid user; do echo 0 >"/proc/sys/user/max_${kind}_namespaces" || exit 99; done
    exec "$@""#;

#[test]
fn tests_say_that_namespaces_are_forbidden() {
    let namespace = ["--user", "--map-root-user"];
    if !can_unshare(&namespace) {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(namespace).args(["sh", "-c", SCRIPT, "sh"]).arg(env::current_exe().expect("this test"));
    command.args(["--exact", "--ignored", "needs_namespaces"]).stdin(Stdio::null());
    let output = command.output().expect("unshare");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
    assert_eq!(stderr.matches("not tested: needs_namespaces: ").count(), 3, "{stderr}");
    assert!(stderr.contains("No space left on device") || stderr.contains("Operation not permitted"), "{stderr}");
}

#[test]
#[ignore = "run by the test above, where namespaces are forbidden"]
fn needs_namespaces() {
    assert!(!can_unshare(&["--user", "--map-root-user", "--mount"]));
    assert!(ForeignServer::start(TftpServerProgram::Dnsmasq).is_none());
    VethNetwork::test(&[], |_| panic!("a network without a namespace"));
}
