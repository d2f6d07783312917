//! The daemon with the file capability of `bins/pkg/Containerfile`, as an ordinary user, as in a container.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::unistd::geteuid;
use rtftp_tests::{Process, binary, not_tested, poll_until, run};
use tempfile::TempDir;

/// The user in the container.
const USER: &str = "969";
/// Runs a program as this user in a network of its own.
const SCRIPT: &str = "ip link set lo up && exec setpriv --reuid=969 --regid=969 --clear-groups --inh-caps=-all \"$@\"";

/// Returns the capability that the file gets, from its `setcap` line.
fn file_capability() -> &'static str {
    let recipe = include_str!("../../bins/pkg/Containerfile");
    assert!(recipe.contains(&format!("\nUSER {USER}:{USER}\n")), "{recipe}");
    let words = recipe.lines().find_map(|line| line.trim().strip_prefix("&& setcap ")).expect("a line with setcap");
    words.split(' ').next().expect("a capability")
}

/// Installs the programs in a directory that every user can read, with this capability of the daemon.
fn installed(capability: &str) -> Option<(TempDir, PathBuf)> {
    if !geteuid().is_root() {
        not_tested("setting a file capability needs root");
        return None;
    }
    let directory = TempDir::new().expect("a temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("a mode");
    let program = directory.path().join("rtftp");
    fs::copy(binary("rtftp"), &program).expect("a copy");
    run("setcap", [capability.as_ref(), program.as_os_str()]);
    Some((directory, program))
}

/// Starts the daemon on a port, and returns its log when it listens or has failed.
#[track_caller]
fn log_of_daemon(program: &Path, port: &str, limits: &[&str]) -> String {
    let directory = program.parent().expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", SCRIPT, "sh"]).args(limits).arg(program);
    command.args(["--listen-ip", "127.0.0.1", "--listen-port", port, "--root-dir"]).arg(directory).stdin(Stdio::null());
    let daemon = Process::start_quietly(&mut command);
    poll_until("the start of the daemon", Duration::from_secs(10), || {
        let log = daemon.stderr();
        (log.contains("listening on ") || daemon.has_ended()).then(|| daemon.stderr())
    })
}

#[test]
fn opens_port_69_with_the_capability_of_its_file() {
    let Some((_directory, program)) = installed(file_capability()) else { return };
    let log = log_of_daemon(&program, "69", &[]);
    assert!(log.contains("listening on 127.0.0.1:69"), "{log}");
}

/// As in a pod in the network of the host: `drop: [ALL], add: [NET_BIND_SERVICE]`.
#[test]
fn opens_port_69_without_any_other_capability() {
    let Some((_directory, program)) = installed(file_capability()) else { return };
    let log = log_of_daemon(&program, "69", &["--bounding-set=-all,+net_bind_service"]);
    assert!(log.contains("listening on 127.0.0.1:69"), "{log}");
}

#[test]
fn starts_on_a_high_port_where_the_capability_is_forbidden() {
    let Some((_directory, program)) = installed(file_capability()) else { return };
    for limits in [&["--bounding-set=-all"][..], &["--bounding-set=-all", "--no-new-privs"]] {
        let log = log_of_daemon(&program, "6969", limits);
        assert!(log.contains("listening on 127.0.0.1:6969"), "{limits:?}: {log}");
        let log = log_of_daemon(&program, "69", limits);
        assert!(log.contains("the capability CAP_NET_BIND_SERVICE)"), "{limits:?}: {log}");
    }
}
