//! The sandbox: the kernel denies everything except reading the served files, and everything served is still readable.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind, Write},
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use rtftp_runtime::sandbox::{SandboxError, confine};
use rtftp_tests::{DiskConfig, NbdServer, Rtftp, binary, board_config, board_disk};
use tempfile::TempDir;

/// Runs a closure on a thread confined to a directory. Returns `false` if the kernel does not support the sandbox.
#[track_caller]
fn confined_to(root: &Path, work: impl FnOnce() + Send) -> bool {
    let confined = || match confine(root) {
        Ok(_) => {
            work();
            true
        }
        Err(error @ (SandboxError::Root(_) | SandboxError::Rules(_))) => panic!("{error}"),
        Err(error) => not_tested(&error.to_string()),
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Writes to stderr directly: the test harness hides the output of passing tests.
fn not_tested(reason: &str) -> bool {
    writeln!(io::stderr(), "\nNOT TESTED, the sandbox: {reason}\n").expect("stderr");
    false
}

/// Returns the kind of error of an operation that must fail.
#[track_caller]
fn error<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("denied").kind()
}

#[test]
fn denies_everything_except_reading_served_files() {
    let top = TempDir::new().expect("a directory");
    let (root, outside) = (top.path().join("root"), top.path().join("outside"));
    for directory in [&root.join("default"), &outside.join("linked"), &outside.join("etc")] {
        fs::create_dir_all(directory).expect("created");
    }
    let (file, secret, linked) = (root.join("default/file"), outside.join("etc/passwd"), outside.join("linked/file"));
    for path in [&file, &secret, &linked] {
        fs::write(path, "content").expect("written");
    }
    symlink(&secret, root.join("default/passwd")).expect("linked");
    symlink(outside.join("linked"), root.join("10.0.0.1")).expect("linked");
    symlink("default", root.join("10.0.0.2")).expect("linked");
    let also_root = top.path().join("also");
    symlink(&root, &also_root).expect("linked");
    let socket = UnixListener::bind(outside.join("socket")).expect("a socket");
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");

    // The root by its real path and by a symbolic link.
    for root in [&root, &also_root] {
        confined_to(root, || {
            let read = |path: &Path| fs::read_to_string(path);
            for path in
                [&file, &root.join("default/file"), &root.join("10.0.0.1/file"), &root.join("10.0.0.2/file"), &linked]
            {
                assert_eq!(read(path).expect("readable"), "content", "{}", path.display());
            }
            fs::read_dir(root).expect("listable");
            for path in
                [&secret, &root.join("../outside/etc/passwd"), &root.join("default/passwd"), Path::new("/etc/passwd")]
            {
                assert_eq!(error(read(path)), ErrorKind::PermissionDenied, "{}", path.display());
                let on_new_thread = thread::scope(|scope| scope.spawn(|| read(path)).join().expect("no panic"));
                assert_eq!(error(on_new_thread), ErrorKind::PermissionDenied, "from a thread started later");
            }
            assert_eq!(error(fs::read_dir(&outside)), ErrorKind::PermissionDenied);
            assert_eq!(error(fs::write(&file, "written")), ErrorKind::PermissionDenied);
            assert_eq!(error(fs::write(root.join("new"), "written")), ErrorKind::PermissionDenied);
            assert_eq!(error(fs::remove_file(&file)), ErrorKind::PermissionDenied);
            assert_eq!(error(fs::rename(&file, root.join("moved"))), ErrorKind::PermissionDenied);
            assert_eq!(error(Command::new("/bin/sh").arg("-c").arg("true").status()), ErrorKind::PermissionDenied);
            // NBD servers may be anywhere.
            std::os::unix::net::UnixStream::connect(outside.join("socket")).expect("connected");
            std::net::TcpStream::connect(server.local_addr().expect("bound")).expect("connected");
        });
    }
    assert_eq!(fs::read_to_string(&secret).expect("this thread is not confined"), "content");
    drop(socket);
}

/// Returns the threads of a daemon by name, and whether each has `no_new_privs`, which the sandbox sets.
fn confined_threads(daemon: &Rtftp) -> BTreeMap<String, bool> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process().id())).expect("a running daemon");
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    status
        .map(|status| {
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim();
            (field("Name:").to_owned(), field("NoNewPrivs:") == "1")
        })
        .collect()
}

/// Returns whether `no_new_privs` shows the sandbox: it does not if this test already runs with it.
fn can_detect_confinement() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    !status.contains("NoNewPrivs:\t1") || not_tested("this test runs with no_new_privs")
}

#[test]
fn confined_daemon_serves_all_kinds_of_files_and_disks() {
    if !confined_to(Path::new("/tmp"), || {}) {
        return;
    }
    let disk = board_disk(1);
    let (tcp, unix) = (NbdServer::qemu(&disk), NbdServer::unix(&disk));
    let daemon = Rtftp::start();
    daemon.logged(&["sandbox enabled: only files below ", daemon.path("").display().to_string().trim_end_matches('/')]);
    daemon.put("default/local", "local");
    daemon.put("127.0.0.6/own", "own");
    assert_eq!(daemon.fetch("127.0.0.6", "local").as_deref(), Ok("local"));
    assert_eq!(daemon.fetch("127.0.0.6", "own").as_deref(), Ok("own"));
    daemon.connect_disk("127.0.0.7", &board_config(&tcp).tftp_root("/boot"));
    daemon.connect_disk("127.0.0.8", &board_config(&unix).tftp_root("/boot"));
    for client in ["127.0.0.7", "127.0.0.8"] {
        assert_eq!(daemon.fetch(client, "dir/name").as_deref(), Ok("board 1"), "{client}");
    }
    // Resolving a host name reads files outside of the root; the refused connection shows that it worked.
    daemon.put_disk("127.0.0.9", &DiskConfig::new("nbd://localhost:1/disk").partition(1, "/"));
    daemon.wait_for_disk("127.0.0.9", "Connection refused");

    // A description that links to a file outside of the root, created after the daemon was confined.
    let elsewhere = TempDir::new().expect("a directory");
    fs::write(elsewhere.path().join("disk"), board_config(&tcp).to_string()).expect("written");
    symlink(elsewhere.path().join("disk"), daemon.path("127.0.0.10.nbd")).expect("linked");
    daemon.wait_for_disk("127.0.0.10", "Permission denied");

    let threads = confined_threads(&daemon);
    assert!(threads.len() > 2, "{threads:?}");
    for (name, is_confined) in threads {
        assert!(is_confined == (name != "unsandboxed") || !can_detect_confinement(), "{name}: {is_confined}");
    }
}

#[test]
fn no_sandbox_option_disables_it() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--no-sandbox"]);
    daemon.logged(&["sandbox disabled by --no-sandbox"]);
    assert!(daemon.log_lines(&["sandbox enabled"]).is_empty());
    assert!(confined_threads(&daemon).values().all(|is_confined| !is_confined) || !can_detect_confinement());
}

#[test]
fn serves_file_systems_mounted_below_the_root() {
    const SCRIPT: &str =
        r#"mkdir "$RTFTP_TEST_ROOT/default" && mount --bind "$1" "$RTFTP_TEST_ROOT/default" && shift && exec "$@""#;
    let unshare = ["--user", "--map-root-user", "--mount"];
    if !Command::new("unshare").args(unshare).arg("true").status().expect("unshare").success() {
        not_tested("mounts below the root: no permission to mount");
        return;
    }
    let source = TempDir::new().expect("a directory");
    fs::write(source.path().join("file"), "mounted").expect("written");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", SCRIPT, "sh"]).arg(source.path()).arg(binary("rtftp")).stdin(Stdio::null());
    let daemon = Rtftp::start_by(&mut command);
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("mounted"));
}
