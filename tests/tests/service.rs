//! The daemon as a service: what it tells the service manager, the socket it may be given, and SIGHUP.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{self, UnixDatagram},
    },
    process::{self, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use rtftp_tests::{Answer, Client, DiskConfig, Rtftp, binary, closed_port, raw_client::rrq, silent_server};
use tempfile::TempDir;

/// How long a message may take to come.
const SOON: Duration = Duration::from_secs(10);

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _directory: TempDir,
}

impl Manager {
    /// Listens at a path, as systemd does.
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("notify");
        let name = path.display().to_string();
        Self::at(&net::SocketAddr::from_pathname(&path).expect("an address"), name, directory)
    }

    /// Listens at a name in the abstract namespace, as managers of containers do.
    fn without_path() -> Self {
        let name = format!("rtftp-test-{}", process::id());
        let address = net::SocketAddr::from_abstract_name(&name).expect("an address");
        Self::at(&address, format!("@{name}"), TempDir::new().expect("a directory"))
    }

    fn at(address: &net::SocketAddr, name: String, directory: TempDir) -> Self {
        let socket = UnixDatagram::bind_addr(address).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a limit");
        Self { socket, name, _directory: directory }
    }

    /// Starts a daemon, which has to say when it is ready.
    #[track_caller]
    fn start(&self, environment: &[(&str, &str)]) -> Rtftp {
        let mut command = Command::new(binary("rtftp"));
        command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &self.name).envs(environment.iter().copied());
        let daemon = Rtftp::by(&mut command);
        let status = format!("STATUS=serving {} on {}, 0 transfers", daemon.path("").display(), daemon.address());
        assert_eq!(self.receive(), ["READY=1".to_owned(), status.replace("/ on", " on")]);
        daemon
    }

    /// The assignments of the next message.
    #[track_caller]
    fn receive(&self) -> Vec<String> {
        let mut buf = [0; 4096];
        let len = self.socket.recv(&mut buf).expect("a message to the service manager");
        String::from_utf8_lossy(&buf[..len]).lines().map(str::to_owned).collect()
    }

    /// The end of the status in the next message, which is nothing else.
    #[track_caller]
    fn hear_transfers(&self) -> String {
        let message = self.receive();
        match &message[..] {
            [status] if status.starts_with("STATUS=serving ") => status.rsplit(", ").next().map(str::to_owned),
            _ => None,
        }
        .unwrap_or_else(|| panic!("expected a status, found {message:?}"))
    }
}

#[test]
fn the_manager_is_told_of_the_start_of_transfers_of_a_reload_and_of_the_end() {
    let manager = Manager::new();
    let daemon = manager.start(&[]);
    daemon.put("default/file", [1; 1000]);
    let mut client = daemon.client("127.0.0.7");
    let first = client.ask(&rrq("file", &[]));
    assert_eq!(first.block(), 1);
    assert_eq!(manager.hear_transfers(), "1 transfer");

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
    assert!((before - 0.1..monotonic() + 0.1).contains(&time), "{time} is not the time of now, {before}");
    assert_eq!(manager.receive(), ["READY=1"]);

    assert_eq!(client.finish(first).map(|file| file.len()), Ok(1000), "the transfer has gone on");
    assert_eq!(manager.hear_transfers(), "0 transfers");
    daemon.stop(Signal::SIGTERM);
    assert_eq!(manager.receive(), ["STOPPING=1"]);
}

#[test]
fn the_watchdog_hears_of_us_in_half_its_time_while_clients_are_served() {
    let manager = Manager::without_path();
    let daemon = manager.start(&[("WATCHDOG_USEC", "400000")]);
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.receive(), ["WATCHDOG=1"]);
    }
    // The first one comes at once.
    let took = since.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&took), "3 halves of 0.4 s: {took:?}");
    daemon.process().signal(Signal::SIGSTOP);
    manager.socket.set_nonblocking(true).expect("set");
    while manager.socket.recv(&mut [0; 100]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("set");
    manager.socket.set_read_timeout(Some(Duration::from_millis(400))).expect("a limit");
    assert!(manager.socket.recv(&mut [0; 100]).is_err(), "a daemon that hangs does not say that it lives");
    daemon.process().signal(Signal::SIGCONT);
}

#[test]
fn a_watchdog_for_another_process_is_not_ours() {
    let manager = Manager::new();
    let daemon = manager.start(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]);
    daemon.stop(Signal::SIGTERM);
    assert_eq!(manager.receive(), ["STOPPING=1"]);
}

#[test]
fn a_manager_that_is_not_there_stops_nothing() {
    for name in ["/nonexistent/notify", "@", "", &"x".repeat(200)] {
        let daemon = Rtftp::by(Command::new(binary("rtftp")).stdin(Stdio::null()).env("NOTIFY_SOCKET", name));
        daemon.put("default/file", "file");
        assert_eq!(daemon.fetch("127.0.0.7", "file").as_deref(), Ok("file"), "NOTIFY_SOCKET={name}");
    }
}

#[test]
fn sighup_looks_at_all_disks_again_where_nobody_watches_them() {
    let daemon = Rtftp::with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
    let disk = |url: String| DiskConfig::new(url).partition(1, "/");
    daemon.put_disk("127.0.0.7", &disk(closed_port()));
    daemon.put_disk("127.0.0.8", &disk(silent_server()));
    daemon.put("127.0.0.9.nbd", "no description");
    daemon.put("default/file", "file");
    assert_eq!(daemon.fetch("127.0.0.10", "file").as_deref(), Ok("file"));
    assert!(daemon.log_lines(&[".nbd"]).is_empty(), "nobody has asked for a disk yet");
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

/// What becomes the daemon with this as the third file, and more, as systemd does it.
fn activated(descriptor: impl Into<OwnedFd>, count: u32) -> Command {
    const SCRIPT: &str = r#"exec 3<&0 4<&0 </dev/null
        export LISTEN_PID=$$ LISTEN_FDS="$1" LISTEN_FDNAMES=rtftp.socket; shift; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh", &count.to_string()]).arg(binary("rtftp")).stdin(descriptor.into());
    command
}

#[test]
fn a_socket_that_is_handed_over_is_served() {
    let cases = [("127.0.0.1", "127.0.0.7", "127.0.0.1"), ("::1", "::1", "::1"), ("::", "127.0.0.7", "127.0.0.5")];
    for ((bound, from, asked), single_port) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let socket = UdpSocket::bind((bound, 0)).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let mut command = activated(socket, 1);
        if single_port {
            command.arg("--single-port");
        }
        let daemon = Rtftp::by(&mut command);
        assert_eq!(daemon.address(), address, "not what the command line says");
        daemon.logged(&["rtftp.socket", "--listen-port"]);
        daemon.put("default/file", [7; 1000]);
        let asked = SocketAddr::new(asked.parse().expect("an address"), address.port());
        let mut client = Client::new(from, asked);
        let first = client.ask(&rrq("file", &[("blksize", "600")]));
        assert_eq!(first, Answer::oack(&[("blksize", "600")]));
        assert_eq!(client.peer().ip(), asked.ip(), "answers come from the address that was asked");
        assert_eq!(client.peer() == asked, single_port, "from its port only where transfers have none of their own");
        assert_eq!(client.finish(first), Ok(vec![7; 1000]));
    }
}

#[test]
fn a_request_that_has_started_the_service_is_answered() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    // As PassPacketInfo= of our socket unit does.
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).expect("set");
    let mut client = Client::new("127.0.0.7", socket.local_addr().expect("bound"));
    client.request(&rrq("no-such-file", &[]));
    let _daemon = Rtftp::by(&mut activated(socket, 1));
    assert_eq!(client.receive_within(SOON).expect("an answer to the first request").code(), 1);
}

/// What the daemon says and returns when it is handed something else.
#[track_caller]
fn refused(descriptor: impl Into<OwnedFd>, count: u32) -> String {
    let mut command = activated(descriptor, count);
    let Output { status, stderr, .. } = command.args(["--root-dir", "/"]).output().expect("a shell");
    assert_eq!(status.code(), Some(1));
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn a_socket_of_a_wrong_kind_is_a_clear_error() {
    let expected = "socket activation (rtftp.socket): expected a UDP socket (ListenDatagram=69), found ";
    let said = refused(TcpListener::bind("127.0.0.1:0").expect("a port"), 1);
    assert!(said.contains(&format!("{expected}a stream socket, as ListenStream= makes it\n")), "{said}");
    let said = refused(UnixDatagram::unbound().expect("a socket"), 1);
    assert!(said.contains(&format!("{expected}a datagram socket that is not of IPv4 or IPv6\n")), "{said}");
    let said = refused(fs::File::open("/dev/null").expect("a file"), 1);
    assert!(said.contains(&format!("{expected}a file that is no socket\n")), "{said}");
    let said = refused(UdpSocket::bind("127.0.0.1:0").expect("a port"), 2);
    assert!(said.contains("expected one UDP socket, found 2"), "{said}");
}
