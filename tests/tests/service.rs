//! The daemon as a service: notifications, watchdog, socket activation and SIGHUP.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{self, UnixDatagram, UnixListener},
    },
    panic::resume_unwind,
    process::{self, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::Signal,
        socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rtftp_tests::{
    Answer, Authority, Client, DiskConfig, HungThread, Rtftp, activated, binary, can_unshare, closed_port,
    http_client::HttpClient, poll_until, raw_client::rrq, run, silent_server,
};
use tempfile::TempDir;

/// The maximum time to wait for a message.
const MESSAGE_LIMIT: Duration = Duration::from_secs(10);

/// The notification socket of a service manager.
struct ServiceManager {
    socket: UnixDatagram,
    name: String,
    _directory: TempDir,
}

impl ServiceManager {
    /// Creates a socket with a path, as systemd does.
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("notify");
        let name = path.display().to_string();
        Self::bind(&net::SocketAddr::from_pathname(&path).expect("an address"), name, directory)
    }

    /// Creates a socket in the abstract namespace, as container managers do.
    fn abstract_socket() -> Self {
        let name = format!("rtftp-test-{}", process::id());
        let address = net::SocketAddr::from_abstract_name(&name).expect("an address");
        Self::bind(&address, format!("@{name}"), TempDir::new().expect("a temporary directory"))
    }

    fn bind(address: &net::SocketAddr, name: String, directory: TempDir) -> Self {
        let socket = UnixDatagram::bind_addr(address).expect("a socket");
        socket.set_read_timeout(Some(MESSAGE_LIMIT)).expect("a timeout");
        Self { socket, name, _directory: directory }
    }

    /// Starts a daemon and asserts that it reports readiness.
    #[track_caller]
    fn start(&self, environment: &[(&str, &str)]) -> Rtftp {
        let mut command = Command::new(binary("rtftp"));
        command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &self.name).envs(environment.iter().copied());
        let daemon = Rtftp::start_by(&mut command);
        let status = format!("STATUS=serving {} on {}, 0 transfers", daemon.path("").display(), daemon.address());
        assert_eq!(self.receive(), ["READY=1".to_owned(), status.replace("/ on", " on")]);
        daemon
    }

    /// Returns the assignments in the next message.
    #[track_caller]
    fn receive(&self) -> Vec<String> {
        let mut buf = [0; 4096];
        let len = self.socket.recv(&mut buf).expect("a message to the service manager");
        String::from_utf8_lossy(&buf[..len]).lines().map(str::to_owned).collect()
    }

    /// Returns the number of transfers, such as `1 transfer`, in the next message, which must be a status.
    #[track_caller]
    fn receive_transfers(&self) -> String {
        let message = self.receive();
        match &message[..] {
            [status] if status.starts_with("STATUS=serving ") => status.rsplit(", ").next().map(str::to_owned),
            _ => None,
        }
        .unwrap_or_else(|| panic!("expected a status, found {message:?}"))
    }
}

#[test]
fn notifies_of_readiness_transfers_reload_and_stop() {
    let manager = ServiceManager::new();
    let daemon = manager.start(&[]);
    daemon.put("default/file", [1; 1000]);
    let mut client = daemon.client("127.0.0.7");
    let first = client.exchange(&rrq("file", &[]));
    assert_eq!(first.block(), 1);
    assert_eq!(manager.receive_transfers(), "1 transfer");

    let monotonic = || -> f64 {
        let uptime = fs::read_to_string("/proc/uptime").expect("/proc");
        uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).expect("a number")
    };
    let before = monotonic();
    daemon.process().signal(Signal::SIGHUP);
    let message = manager.receive();
    let [reloading, time] = &message[..] else { panic!("expected two assignments, found {message:?}") };
    assert_eq!(reloading, "RELOADING=1");
    let time = time.strip_prefix("MONOTONIC_USEC=").and_then(|time| time.parse::<u64>().ok()).expect("a time");
    let time = Duration::from_micros(time).as_secs_f64();
    assert!((before - 0.1..monotonic() + 0.1).contains(&time), "{time} is not the current time, {before}");
    assert_eq!(manager.receive(), ["READY=1"]);

    assert_eq!(client.finish(first).map(|file| file.len()), Ok(1000), "the transfer continues");
    assert_eq!(manager.receive_transfers(), "0 transfers");
    daemon.stop(Signal::SIGTERM);
    assert_eq!(manager.receive(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=5000000"]);
}

/// Ends a daemon with a thread that hangs, and asserts that it takes 4 s at most.
fn end_in_time(daemon: Rtftp, thread: HungThread) {
    let since = Instant::now();
    if thread.id() != Pid::from_raw(daemon.process().id().cast_signed()) {
        // The process has ended once this test has waited for the thread.
        daemon.process().signal(Signal::SIGTERM);
        poll_until("the end of the thread", MESSAGE_LIMIT, || {
            let status = waitpid(thread.id(), Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
            (status != Ok(WaitStatus::StillAlive)).then_some(())
        });
    }
    daemon.stop(Signal::SIGTERM);
    println!("ended after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_millis(4500), "{:?}", since.elapsed());
}

#[test]
fn ends_within_4_s_while_the_main_thread_hangs() {
    let mut command = Command::new(binary("rtftp"));
    let daemon = Rtftp::start_by(command.stdin(Stdio::null()));
    if let Some(thread) = HungThread::of(daemon.process(), "rtftp") {
        end_in_time(daemon, thread);
    }
}

#[test]
fn serves_local_files_and_ends_within_4_s_while_the_thread_for_disks_hangs() {
    let daemon = Rtftp::start();
    daemon.put("default/file", "short");
    daemon.put_disk("127.0.0.6", &DiskConfig::new(silent_server()).partition(0, "/"));
    daemon.client("127.0.0.6").request(&rrq("file", &[]));
    let Some(thread) = HungThread::of(daemon.process(), "disks") else { return };
    daemon.client("127.0.0.6").request(&rrq("file", &[]));
    let since = Instant::now();
    assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("short"));
    println!("a local file after {:?}", since.elapsed());
    end_in_time(daemon, thread);
}

#[test]
fn notifies_watchdog_twice_per_interval() {
    let manager = ServiceManager::abstract_socket();
    let daemon = manager.start(&[("WATCHDOG_USEC", "400000")]);
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.receive(), ["WATCHDOG=1"]);
    }
    // The first notification is sent immediately.
    let took = since.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&took), "three intervals of 0.2 s: {took:?}");
    daemon.process().signal(Signal::SIGSTOP);
    manager.socket.set_nonblocking(true).expect("set");
    while manager.socket.recv(&mut [0; 100]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("set");
    manager.socket.set_read_timeout(Some(Duration::from_millis(400))).expect("a timeout");
    assert!(manager.socket.recv(&mut [0; 100]).is_err(), "a stopped daemon sends no watchdog notification");
    daemon.process().signal(Signal::SIGCONT);
}

#[test]
fn notifies_no_watchdog_while_the_thread_for_disks_hangs() {
    let manager = ServiceManager::new();
    let daemon = manager.start(&[("WATCHDOG_USEC", "400000")]);
    let Some(thread) = HungThread::of(daemon.process(), "disks") else { return };
    daemon.logged(&["the watchdog is not notified: the thread that reads disks has not answered for 0.2 s"]);
    manager.socket.set_nonblocking(true).expect("set");
    while manager.socket.recv(&mut [0; 100]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("set");
    thread.resume();
    assert_eq!(manager.receive(), ["WATCHDOG=1"], "again");
}

#[test]
fn ignores_watchdog_of_another_process() {
    let manager = ServiceManager::new();
    let daemon = manager.start(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]);
    daemon.stop(Signal::SIGTERM);
    assert_eq!(manager.receive(), ["STOPPING=1", "EXTEND_TIMEOUT_USEC=5000000"]);
}

#[test]
fn starts_without_a_service_manager() {
    for name in ["/nonexistent/notify", "@", "", &"x".repeat(200)] {
        let daemon = Rtftp::start_by(Command::new(binary("rtftp")).stdin(Stdio::null()).env("NOTIFY_SOCKET", name));
        daemon.put("default/file", "file");
        assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("file"), "NOTIFY_SOCKET={name}");
    }
}

#[test]
fn sighup_reloads_all_disks_without_monitoring() {
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    let disk = |url: String| DiskConfig::new(url).partition(1, "/");
    daemon.put_disk("127.0.0.7", &disk(closed_port()));
    daemon.put_disk("127.0.0.8", &disk(silent_server()));
    daemon.put("127.0.0.9.nbd", "no description");
    daemon.put("default/file", "file");
    assert_eq!(daemon.fetch("127.0.0.10", "file").as_deref(), Ok("file"));
    assert!(daemon.log_lines(&[".nbd"]).is_empty(), "no request for a disk yet");
    daemon.process().signal(Signal::SIGHUP);
    daemon.logged(&["reloaded", "3 .nbd files"]);
    daemon.logged(&["127.0.0.7.nbd", "refused"]);
    daemon.logged(&["127.0.0.9.nbd", "line 1"]);

    fs::remove_file(daemon.path("127.0.0.7.nbd")).expect("removed");
    daemon.process().signal(Signal::SIGHUP);
    daemon.logged(&["127.0.0.7.nbd", "removed"]);
    daemon.logged(&["reloaded", "2 .nbd files"]);
    assert_eq!(daemon.fetch("127.0.0.10", "file").as_deref(), Ok("file"));
}

#[test]
fn serves_activated_socket() {
    let cases = [("127.0.0.1", "127.0.0.7", "127.0.0.1"), ("::1", "::1", "::1"), ("::", "127.0.0.7", "127.0.0.5")];
    for ((bound, from, server), single_port) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let socket = UdpSocket::bind((bound, 0)).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let mut command = activated(socket, 1);
        if single_port {
            command.arg("--single-port");
        }
        let daemon = Rtftp::start_by(&mut command);
        assert_eq!(daemon.address(), address, "the activated address replaces that of the command line");
        daemon.logged(&["rtftp.socket", "--listen-port"]);
        daemon.put("default/file", [7; 1000]);
        let server = SocketAddr::new(server.parse().expect("an address"), address.port());
        let mut client = Client::new(from, server);
        let first = client.exchange(&rrq("file", &[("blksize", "600")]));
        assert_eq!(first, Answer::oack(&[("blksize", "600")]));
        assert_eq!(client.peer().ip(), server.ip(), "answers come from the address of the request");
        assert_eq!(client.peer() == server, single_port, "only a single-port daemon answers from its port");
        assert_eq!(client.finish(first), Ok(vec![7; 1000]));
    }
}

#[test]
fn serves_an_address_that_the_machine_gets_after_the_start() {
    assert!(include_str!("../../bins/pkg/systemd/rtftp.socket").lines().any(|line| line == "FreeBind=yes"));
    if !can_unshare(&["--net"]) {
        return;
    }
    // The namespace belongs to the thread.
    let tested = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        run("ip", ["link", "set", "lo", "up"]);
        let address = SocketAddrV4::new([10, 9, 0, 1].into(), 6969);
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None).expect("a socket");
        bind(socket.as_raw_fd(), &SockaddrIn::from(address)).expect_err("the machine does not have the address");
        setsockopt(&socket, sockopt::IpFreebind, &true).expect("set");
        bind(socket.as_raw_fd(), &SockaddrIn::from(address)).expect("bound");
        let daemon = Rtftp::start_by(&mut activated(socket, 1));
        daemon.put("default/file", "x");
        run("ip", ["address", "add", "10.9.0.1/32", "dev", "lo"]);
        assert_eq!(Client::new("127.0.0.1", address.into()).fetch("file", &[]), Ok(b"x".into()));
    });
    tested.join().unwrap_or_else(|panic| resume_unwind(panic));
}

#[test]
fn the_name_of_an_activated_socket_selects_https() {
    let files = tempfile::tempdir().expect("a directory");
    Authority::new("authority").issue(2100, files.path());
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| files.path().join(name));
    for (name, protocol, status) in [("https", "HTTPS", 400), ("rtftp.socket", "HTTP", 404)] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        let mut command = activated(socket, 1);
        command.env("NAME", name);
        if name == "https" {
            command.args(["--https", "443"]).arg("--tls-certificate").arg(&certificate).arg("--tls-key").arg(&key);
        }
        let daemon = Rtftp::start_by(&mut command);
        assert_eq!(daemon.served_at(&format!("serving files over {protocol} on ")), address);
        // Only the port of HTTPS refuses a request without TLS.
        let response = HttpClient::connect("127.0.0.1", address).request("GET", "/missing", &[]).expect("a response");
        assert_eq!(response.status, status, "{name}");
    }
    let mut command = activated(TcpListener::bind("127.0.0.1:0").expect("a free port"), 1);
    let output =
        command.env("NAME", "https").args(["--root-dir", "/", "--listen-port", "0"]).output().expect("a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("--https, --tls-certificate and --tls-key are missing"), "{stderr}");
}

#[test]
fn answers_request_that_started_the_service() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    // As PassPacketInfo= in the socket unit does.
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).expect("set");
    let mut client = Client::new("127.0.0.7", socket.local_addr().expect("bound"));
    client.request(&rrq("no-such-file", &[]));
    let _daemon = Rtftp::start_by(&mut activated(socket, 1));
    assert_eq!(client.receive_within(MESSAGE_LIMIT).expect("an answer to the first request").code(), 1);
}

/// Starts a daemon with an unsuitable socket and returns its error message.
#[track_caller]
fn activation_error(descriptor: impl Into<OwnedFd>, count: u32) -> String {
    let mut command = activated(descriptor, count);
    let Output { status, stderr, .. } = command.args(["--root-dir", "/"]).output().expect("a shell");
    assert_eq!(status.code(), Some(1));
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn rejects_unsuitable_sockets() {
    let unix = tempfile::tempdir().expect("a directory");
    let expected = "socket activation (rtftp.socket): expected a UDP socket (ListenDatagram=69) or a TCP socket for HTTP \
                    (ListenStream=80), found ";
    let stderr = activation_error(UnixListener::bind(unix.path().join("socket")).expect("a socket"), 1);
    assert!(
        stderr.contains(&format!("{expected}a stream socket that does not listen for TCP connections\n")),
        "{stderr}"
    );
    let stderr = activation_error(UnixDatagram::unbound().expect("a socket"), 1);
    assert!(stderr.contains(&format!("{expected}a datagram socket that is neither IPv4 nor IPv6\n")), "{stderr}");
    let stderr = activation_error(fs::File::open("/dev/null").expect("a file"), 1);
    assert!(stderr.contains(&format!("{expected}a file that is not a socket\n")), "{stderr}");
    let stderr = activation_error(UdpSocket::bind("127.0.0.1:0").expect("a port"), 2);
    assert!(stderr.contains("expected one socket for each protocol"), "{stderr}");
}
