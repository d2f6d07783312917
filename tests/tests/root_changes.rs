//! Changes of the root directory while the daemon runs: its entries, its links, and the directory itself.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    NbdServer, Rtftp, assert_same, binary, board_config, board_disk, can_unshare, noise, not_tested, poll_until,
    raw_client::rrq, run,
};
use tempfile::TempDir;

const BOARD: &str = "127.0.0.7";
const SOON: Duration = Duration::from_secs(10);

/// Starts a daemon in a mount namespace of its own after a command that sees its root directory as `$ROOT`.
fn start_after(command: &str) -> Rtftp {
    let script = format!(r#"ROOT=$LIBGUESTFS_RTFTP_TEST_ROOT; {command}; exec "$@""#);
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-ec", &script, "sh"]).arg(binary("rtftp")).stdin(Stdio::null());
    Rtftp::start_by(&mut unshare)
}

/// Runs a command in the mount namespace of a daemon.
#[track_caller]
fn run_in_namespace(daemon: &Rtftp, args: &[&str]) {
    let id = daemon.process().id().to_string();
    run("nsenter", ["--target", &id, "--mount"].iter().chain(args));
}

/// Asserts that a request gets this ERROR, and that exactly one log line about it contains these words.
#[track_caller]
fn assert_error(daemon: &Rtftp, name: &str, code: u16, words: &str) {
    let answer = daemon.client(BOARD).exchange(&rrq(name, &[]));
    assert_eq!(answer.code(), code, "{name}: {answer:?}");
    daemon.logged(&[BOARD, name, words]);
    assert_eq!(daemon.log_lines(&[BOARD, name]).len(), 1, "{:?}", daemon.log_lines(&[name]));
}

/// With overlayfs, a change of a layer below changes neither the times of the directory nor those that the daemon has seen.
#[test]
fn sighup_reads_a_root_that_does_not_show_its_changes() {
    let layers = TempDir::new().expect("a directory");
    let layer = |name: &str| -> PathBuf { layers.path().join(name) };
    for directory in ["lower/default", "upper", "work"] {
        fs::create_dir_all(layer(directory)).expect("created");
    }
    fs::write(layer("lower/default/file"), "default").expect("written");
    let path = layers.path().display();
    let options = format!("lowerdir={path}/lower,upperdir={path}/upper,workdir={path}/work");
    let mount = |at: &str| format!("mount -t overlay overlay -o {options} {at}");
    // Containers, and old kernels for ordinary users, forbid it.
    let probe = Command::new("unshare").args(["--mount", "sh", "-c", &mount(&format!("{path}/lower"))]).output();
    let probe = probe.expect("unshare");
    if !probe.status.success() {
        return not_tested(String::from_utf8_lossy(&probe.stderr).trim());
    }
    let daemon = start_after(&mount("$ROOT"));
    let changed = fs::metadata(layer("upper")).expect("an upper layer").ctime();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    poll_until("times that are old enough to be trusted", SOON, || (now() > changed + 4).then_some(()));
    assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok("default"));
    fs::create_dir(layer("lower").join(BOARD)).expect("created");
    fs::write(layer("lower").join(BOARD).join("file"), "own").expect("written");
    assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok("default"), "the daemon cannot see the change");
    daemon.process().signal(Signal::SIGHUP);
    poll_until("the board's own file", SOON, || (daemon.fetch(BOARD, "file").as_deref() == Ok("own")).then_some(()));
}

#[test]
fn replaced_root_asks_for_a_restart_while_the_sandbox_is_active() {
    let daemon = Rtftp::start();
    if daemon.log_lines(&["sandbox enabled"]).is_empty() {
        return not_tested("this kernel has no Landlock");
    }
    daemon.put("default/file", "old");
    assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok("old"));
    let root = daemon.path("");
    let root = Path::new(root.to_str().expect("UTF-8").trim_end_matches('/'));
    let old = root.with_extension("old");
    fs::rename(root, &old).expect("renamed");
    daemon.put("default/new-file", "new");
    assert_error(&daemon, "new-file", 0, "it is another directory than at the start: restart rtftp");
    fs::remove_dir_all(&old).expect("removed");
}

#[test]
fn root_mounted_over_asks_for_a_restart_while_the_sandbox_is_active() {
    if !can_unshare(&["--mount"]) {
        return;
    }
    let daemon = start_after("mkdir $ROOT/default");
    if daemon.log_lines(&["sandbox enabled"]).is_empty() {
        return not_tested("this kernel has no Landlock");
    }
    let late = TempDir::new().expect("a directory");
    fs::create_dir(late.path().join("default")).expect("created");
    fs::write(late.path().join("default/late-file"), "late").expect("written");
    assert_eq!(daemon.fetch(BOARD, "early-file"), Err(1));
    let (late, root) = (late.path().display().to_string(), daemon.path("").display().to_string());
    run_in_namespace(&daemon, &["mount", "--bind", &late, &root]);
    assert_error(&daemon, "late-file", 0, "it is another directory than at the start: restart rtftp");
    run_in_namespace(&daemon, &["umount", &root]);
    daemon.put("default/late-file", "below");
    assert_eq!(daemon.fetch(BOARD, "late-file").as_deref(), Ok("below"), "the directory of the start is back");
}

#[test]
fn link_to_a_new_place_asks_for_a_restart_while_the_sandbox_is_active() {
    let releases = TempDir::new().expect("a directory");
    for release in ["1", "2"] {
        fs::create_dir(releases.path().join(release)).expect("created");
        fs::write(releases.path().join(release).join("file"), release).expect("written");
    }
    let daemon = Rtftp::start();
    if daemon.log_lines(&["sandbox enabled"]).is_empty() {
        return not_tested("this kernel has no Landlock");
    }
    symlink(releases.path().join("1"), daemon.path("default")).expect("linked");
    assert_error(&daemon, "file", 2, "restart rtftp: its sandbox allows the old target only");
    fs::remove_file(daemon.path("default")).expect("removed");
    // A link inside of the root can be swapped at any time.
    daemon.put("releases/1/boot", "1");
    daemon.put("releases/2/boot", "2");
    for release in ["1", "2"] {
        symlink(format!("releases/{release}"), daemon.path("swapped")).expect("linked");
        fs::rename(daemon.path("swapped"), daemon.path("default")).expect("renamed");
        assert_eq!(daemon.fetch(BOARD, "boot").as_deref(), Ok(release));
    }
}

/// A deployment: each release is a directory of its own, and a link to the present one is the root.
#[test]
fn serves_each_release_that_the_root_is_linked_to() {
    let top = TempDir::new().expect("a directory");
    let releases = top.path().join("releases");
    for release in ["1", "2", "3"] {
        let directory = releases.join(release).join("default");
        fs::create_dir_all(&directory).expect("created");
        fs::write(directory.join("file"), release).expect("written");
        fs::write(directory.join(format!("only-{release}")), noise(100_000, 1)).expect("written");
    }
    const SCRIPT: &str =
        r#"rmdir "$LIBGUESTFS_RTFTP_TEST_ROOT"; ln -s "$1/1" "$LIBGUESTFS_RTFTP_TEST_ROOT"; shift; exec "$@""#;
    let start = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-ec", SCRIPT, "sh"]).arg(&releases).arg(binary("rtftp")).args(arguments);
        Rtftp::start_by(command.stdin(Stdio::null()))
    };
    let link_to = |daemon: &Rtftp, release: &str| {
        let root = PathBuf::from(daemon.path("").display().to_string().trim_end_matches('/'));
        symlink(releases.join(release), root.with_extension("next")).expect("linked");
        fs::rename(root.with_extension("next"), &root).expect("renamed");
    };
    let allowed = releases.display().to_string();
    for arguments in [&["--allow-read", &*allowed][..], &["--no-sandbox"]] {
        let daemon = start(arguments);
        assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok("1"));
        let mut running = daemon.client("127.0.0.8");
        let first = running.exchange(&rrq("only-1", &[]));
        for release in ["2", "3", "1", "2"] {
            link_to(&daemon, release);
            assert_eq!(daemon.fetch(BOARD, "file").as_deref(), Ok(release), "{arguments:?}");
            assert_eq!(daemon.fetch(BOARD, &format!("only-{release}")).map(|file| file.is_empty()), Ok(false));
        }
        assert_eq!(daemon.fetch(BOARD, "only-1"), Err(1), "{arguments:?}");
        assert_same(&running.finish(first).expect("a file"), &noise(100_000, 1), "a transfer that began before");
    }
    let daemon = start(&[]);
    if daemon.log_lines(&["sandbox enabled"]).is_empty() {
        return not_tested("this kernel has no Landlock");
    }
    assert_eq!(daemon.fetch(BOARD, "only-1").map(|file| file.is_empty()), Ok(false));
    link_to(&daemon, "2");
    assert_error(&daemon, "file", 0, "it is another directory than at the start: restart rtftp");
}

#[test]
fn unusable_entry_of_a_client_never_serves_default() {
    let disk = board_disk(1);
    let server = NbdServer::nbdkit(&disk);
    let daemon = Rtftp::start();
    for name in ["dangling", "a-file", "dangling-nbd", "directory-nbd"] {
        daemon.put(&format!("default/{name}"), "default");
    }
    let (own, description) = (daemon.path(BOARD), daemon.path(&format!("{BOARD}.nbd")));
    symlink("nowhere", &own).expect("linked");
    assert_error(&daemon, "dangling", 0, "it is a symbolic link to a directory that does not exist");
    fs::remove_file(&own).expect("removed");
    fs::write(&own, "").expect("written");
    assert_error(&daemon, "a-file", 0, "it is a file: expected a directory");
    fs::remove_file(&own).expect("removed");
    symlink("nowhere", &description).expect("linked");
    assert_eq!(daemon.client(BOARD).exchange(&rrq("dangling-nbd", &[])).code(), 0);
    daemon.wait_for_disk(BOARD, "it is a symbolic link to a file that does not exist");
    fs::remove_file(&description).expect("removed");
    fs::create_dir(&description).expect("created");
    assert_eq!(daemon.client(BOARD).exchange(&rrq("directory-nbd", &[])).code(), 0);
    daemon.wait_for_disk(BOARD, "directory");
    fs::remove_dir(&description).expect("removed");
    daemon.put_disk(BOARD, &board_config(&server).tftp_root("/boot"));
    assert_eq!(daemon.fetch(BOARD, "dir/name").as_deref(), Ok("board 1"), "repaired");
}
