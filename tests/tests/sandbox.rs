//! The sandbox: the kernel denies everything except reading the served files, and everything served is still readable.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::symlink,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Command, Stdio},
    thread,
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use rtftp_runtime::sandbox::{Sandbox, SandboxError, confine};
use rtftp_tests::{
    DiskConfig, NbdServer, Process, Rtftp, binary, board_config, board_disk, can_unshare, not_tested,
    run_with_bad_arguments,
};
use tempfile::TempDir;

/// Runs a closure on a thread confined to a directory. Returns `false` if the kernel does not support the sandbox.
#[track_caller]
fn confined_to(root: &Path, work: impl FnOnce(&Sandbox) + Send) -> bool {
    let confined = || match confine(root, None, None) {
        Ok(sandbox) => {
            work(&sandbox);
            true
        }
        Err(error @ (SandboxError::Root(_) | SandboxError::Rules(_))) => panic!("{error}"),
        Err(error) => {
            not_tested(error);
            false
        }
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
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
    let name = format!("rtftp-sandbox-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("bound");
    let sleep = Process::start(Command::new("sleep").arg("1000"));
    let outside_program = Pid::from_raw(sleep.id().cast_signed());

    // The root by its real path and by a symbolic link.
    for root in [&root, &also_root] {
        confined_to(root, |sandbox| {
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
            UnixStream::connect(outside.join("socket")).expect("connected");
            std::net::TcpStream::connect(server.local_addr().expect("bound")).expect("connected");
            if !sandbox.not_denied.is_empty() {
                not_tested(format_args!("this kernel does not deny {}", sandbox.not_denied.join(", ")));
                return;
            }
            assert_eq!(error(std::net::TcpListener::bind("127.0.0.1:0")), ErrorKind::PermissionDenied);
            let abstract_socket = SocketAddr::from_abstract_name(&name).expect("a name");
            assert_eq!(error(UnixStream::connect_addr(&abstract_socket)), ErrorKind::PermissionDenied);
            assert_eq!(kill(outside_program, None), Err(Errno::EPERM), "a program outside of the sandbox");
        });
    }
    assert_eq!(fs::read_to_string(&secret).expect("this thread is not confined"), "content");
    drop(socket);
}

#[test]
fn allows_reading_one_more_directory() {
    let top = TempDir::new().expect("a directory");
    let at = |name: &str| top.path().join(name);
    for release in ["releases/1", "releases/2", "private"] {
        fs::create_dir_all(at(release)).expect("created");
        fs::write(at(release).join("file"), release).expect("written");
    }
    symlink("releases/1", at("current")).expect("linked");
    let confined = || match confine(&at("current"), Some(&at("releases")), None) {
        Ok(_) => {
            for release in ["releases/1", "releases/2"] {
                assert_eq!(fs::read_to_string(at(release).join("file")).expect("readable"), release);
            }
            assert_eq!(error(fs::read(at("private/file"))), ErrorKind::PermissionDenied);
            assert_eq!(error(fs::write(at("releases/2/file"), "written")), ErrorKind::PermissionDenied);
        }
        Err(error) => not_tested(error),
    };
    thread::scope(|scope| scope.spawn(confined).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
}

#[test]
fn reports_a_missing_directory_of_allow_read() {
    let output = run_with_bad_arguments(["--root-dir", "/", "--listen-port", "0", "--allow-read", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("--allow-read /nonexistent: No such file or directory"), "{stderr}");
}

/// Asserts that no thread of a daemon, and no program that it starts, can gain privileges.
#[track_caller]
fn assert_no_new_privileges(daemon: &Rtftp) {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process().id())).expect("a running daemon");
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let threads: Vec<String> = status.collect();
    assert!(threads.len() > 2, "{} threads", threads.len());
    for status in threads {
        assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    }
}

#[test]
fn confined_daemon_serves_all_kinds_of_files_and_disks() {
    if !confined_to(Path::new("/tmp"), |_| {}) {
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

    assert_no_new_privileges(&daemon);
}

#[test]
fn no_sandbox_option_disables_it() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--no-sandbox"]);
    daemon.logged(&["sandbox disabled by --no-sandbox"]);
    assert!(daemon.log_lines(&["sandbox enabled"]).is_empty());
    assert_no_new_privileges(&daemon);
}

#[test]
fn serves_file_systems_mounted_below_the_root() {
    const SCRIPT: &str =
        r#"cd "$LIBGUESTFS_RTFTP_TEST_ROOT" && mkdir default && mount --bind "$1" default && shift && exec "$@""#;
    let unshare = ["--user", "--map-root-user", "--mount"];
    if !can_unshare(&unshare) {
        return;
    }
    let source = TempDir::new().expect("a directory");
    fs::write(source.path().join("file"), "mounted").expect("written");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", SCRIPT, "sh"]).arg(source.path()).arg(binary("rtftp")).stdin(Stdio::null());
    let daemon = Rtftp::start_by(&mut command);
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("mounted"));
}
