//! NBD servers: qemu-nbd, nbdkit, a silent server and a closed port.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::Duration,
};

use crate::{Disk, Process, poll_until};

/// A running NBD server that exports one disk on a free TCP port; killed when dropped.
#[derive(Debug)]
pub struct NbdServer {
    process: Process,
    address: Option<SocketAddr>,
    url: String,
}

impl NbdServer {
    /// Exports a disk with `qemu-nbd --persistent` under a name that needs percent-encoding in the URI.
    #[track_caller]
    pub fn qemu(disk: &Disk) -> Self {
        let image = disk.path().display().to_string();
        Self::start(
            &["qemu-nbd", "--persistent", "--shared=0", "--format=raw", "--export-name=a board's disk", &image],
            "/a%20board's%20disk",
        )
    }

    /// Exports a disk with `nbdkit` under the empty export name.
    #[track_caller]
    pub fn nbdkit(disk: &Disk) -> Self {
        Self::start(&["nbdkit", "--foreground", "file", &disk.path().display().to_string()], "")
    }

    /// Exports a disk with `qemu-nbd`, which serves one connection at a time.
    #[track_caller]
    pub fn qemu_single(disk: &Disk) -> Self {
        Self::start(&["qemu-nbd", "--persistent", "--format=raw", &disk.path().display().to_string()], "")
    }

    /// Exports a disk with `nbdkit` through a filter with these parameters.
    #[track_caller]
    pub fn nbdkit_with(disk: &Disk, filter: &str, parameters: &[&str]) -> Self {
        let (filter, image) = (format!("--filter={filter}"), disk.path().display().to_string());
        let command = ["nbdkit", "--foreground", &filter, "file", &image];
        Self::start(&[&command, parameters].concat(), "")
    }

    /// Exports each file of a directory under its name, on a Unix socket.
    #[track_caller]
    pub fn directory(directory: &Path, socket: &Path) -> Self {
        Self::start_unix(socket, &format!("dir={}", directory.display()))
    }

    /// Kills the server and returns its address for [`NbdServer::restart_at`].
    pub fn kill(self) -> SocketAddr {
        self.address.expect("a server on TCP")
    }

    /// Exports a disk with `nbdkit` on the address of a server that was killed.
    #[track_caller]
    pub fn restart_at(address: SocketAddr, disk: &Disk) -> Self {
        let listener = TcpListener::bind(address).expect("the address of a killed server");
        Self::start_on(listener, &["nbdkit", "--foreground", "file", &disk.path().display().to_string()], "")
    }

    /// Exports a disk with `nbdkit` on a Unix socket beside the image.
    #[track_caller]
    pub fn unix(disk: &Disk) -> Self {
        let image = disk.path();
        Self::start_unix(&image.with_file_name("nbd.sock"), &format!("file={}", image.display()))
    }

    /// Exports a disk with `qemu-nbd` on a Unix socket beside the image.
    #[track_caller]
    pub(crate) fn qemu_unix(disk: &Disk) -> Self {
        let socket = disk.path().with_file_name("nbd.sock");
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=0", "--format=raw", "--socket"]).arg(&socket).arg(disk.path());
        Self::listen_on(&socket, &mut command)
    }

    #[track_caller]
    fn start_unix(socket: &Path, files: &str) -> Self {
        Self::start_unix_with(socket, &["file", files])
    }

    /// Starts `nbdkit` with these arguments on a Unix socket.
    #[track_caller]
    pub(crate) fn start_unix_with(socket: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--unix"]).arg(socket).args(arguments);
        Self::listen_on(socket, &mut command)
    }

    /// Starts a server that listens on a Unix socket: a program and its arguments.
    #[track_caller]
    pub fn unix_with(socket: &Path, command: &[&str]) -> Self {
        Self::listen_on(socket, Command::new(command[0]).args(&command[1..]))
    }

    #[track_caller]
    fn listen_on(socket: &Path, command: &mut Command) -> Self {
        let process = Process::start_quietly(command);
        poll_until("the socket of the NBD server", Duration::from_secs(10), || socket.exists().then_some(()));
        Self { process, address: None, url: format!("nbd+unix:///?socket={}", socket.display()) }
    }

    /// Returns the server with a URI that asks for TLS.
    pub(crate) fn with_tls(mut self) -> Self {
        self.url = self.url.replacen("nbd", "nbds", 1);
        self
    }

    /// Returns the server with these parameters in its URI.
    #[must_use]
    pub fn with_parameters(mut self, parameters: &str) -> Self {
        self.url = format!("{}?{parameters}", self.url);
        self
    }

    /// Waits until a program listens that was started with a port, and exports the disk under the name `disk`.
    #[track_caller]
    pub(crate) fn listening(process: Process, address: SocketAddr) -> Self {
        poll_until("the NBD server to listen", Duration::from_secs(10), || TcpStream::connect(address).ok());
        Self { process, address: Some(address), url: format!("nbd://{address}/disk") }
    }

    /// Returns the NBD URI.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts a server on a socket that already listens (socket activation), so that no other process can take the port.
    #[track_caller]
    fn start(command: &[&str], path: &str) -> Self {
        Self::start_on(listener().0, command, path)
    }

    #[track_caller]
    pub(crate) fn start_on(listener: TcpListener, command: &[&str], path: &str) -> Self {
        const SCRIPT: &str = r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@""#;
        let installed = Command::new(command[0]).arg("--version").stdout(Stdio::null()).status();
        assert!(installed.is_ok(), "this test needs the program `{}`, which is not installed", command[0]);
        let address = listener.local_addr().expect("a bound socket");
        let mut server = Command::new("sh");
        server.args(["-c", SCRIPT, "sh"]).args(command).stdin(OwnedFd::from(listener));
        let process = Process::start_quietly(&mut server);
        let mut magic = [0; 8];
        let mut stream = TcpStream::connect(address).expect("the socket listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.read_exact(&mut magic).unwrap_or_else(|error| panic!("{command:?} does not answer: {error}"));
        assert_eq!(&magic, b"NBDMAGIC");
        Self { process, address: Some(address), url: format!("nbd://{address}{path}") }
    }
}

/// Listens on a free port of an address that no other process uses, so that the port stays free after the server ends.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 100 + high % 100, low, COUNT.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

/// Returns the URI of a server that accepts connections and never sends a byte while the test runs.
pub fn silent_server() -> String {
    let (listener, address) = listener();
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    format!("nbd://{address}/disk")
}

/// Returns the URI of a port that refuses connections.
pub fn closed_port() -> String {
    format!("nbd://{}/disk", listener().1)
}
