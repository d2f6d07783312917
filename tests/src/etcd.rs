//! etcd, and rtftp-etcd beside it.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{self, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    authority::Authority,
    daemon::binary,
    poll_until,
    process::{Process, output},
};

/// The time for what happens at once on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);
/// The maximum number of operations in a transaction of etcd.
const MAX_OPERATIONS: usize = 128;

/// A member of a cluster of etcd, which keeps its data and its address while it is stopped. Killed when dropped.
#[derive(Debug)]
pub struct EtcdServer {
    process: Option<Process>,
    name: String,
    /// The addresses for clients and for other members.
    client: SocketAddr,
    peer: SocketAddr,
    /// The names and the addresses of all members.
    cluster: String,
    is_secure: bool,
    arguments: Vec<String>,
    data: TempDir,
}

impl EtcdServer {
    /// Starts a cluster of one member.
    #[track_caller]
    pub fn start() -> Self {
        Self::cluster(1).remove(0)
    }

    /// Starts a cluster of one member that has a certificate of this authority, and requires one of clients. Its files are in a directory.
    #[track_caller]
    pub fn start_secure(authority: &Authority, files: &Path) -> Self {
        let path = |name: &str| files.join(name).display().to_string();
        fs::write(path("authority.pem"), authority.certificate()).expect("written");
        let mut server = Self::cluster_of(1).remove(0);
        let address = server.client.ip().to_string();
        authority.issue_to(&[&address], 2100, files, "etcd");
        let [authority, cert, key] = ["authority.pem", "etcd-cert.pem", "etcd-key.pem"].map(path);
        let options = ["--client-cert-auth", "--trusted-ca-file", &authority, "--cert-file", &cert, "--key-file", &key];
        server.arguments = options.map(str::to_owned).to_vec();
        server.is_secure = true;
        server.launch();
        server.wait();
        server
    }

    /// Starts a cluster.
    #[track_caller]
    pub fn cluster(members: usize) -> Vec<Self> {
        let mut servers = Self::cluster_of(members);
        servers.iter_mut().for_each(Self::launch);
        servers.iter().for_each(Self::wait);
        servers
    }

    /// Returns the members of a cluster, not started yet.
    fn cluster_of(members: usize) -> Vec<Self> {
        let member = |number| Self {
            process: None,
            name: format!("member{number}"),
            client: unused_address(),
            peer: unused_address(),
            cluster: String::new(),
            is_secure: false,
            arguments: vec![],
            data: data_directory(),
        };
        let mut servers: Vec<Self> = (0..members).map(member).collect();
        let names = servers.iter().map(|server| format!("{}=http://{}", server.name, server.peer));
        let cluster = names.collect::<Vec<_>>().join(",");
        servers.iter_mut().for_each(|server| server.cluster.clone_from(&cluster));
        servers
    }

    /// Starts the member again after [`Self::kill`].
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        self.wait();
    }

    /// Starts the member again without its data.
    #[track_caller]
    pub fn lose_data(&mut self) {
        self.kill();
        self.data = data_directory();
        self.restart();
    }

    /// Ends the member as a loss of power does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops the member, which keeps its connections, or continues it.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running member").signal(signal);
    }

    #[track_caller]
    fn launch(&mut self) {
        let url = format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.client);
        let peer = format!("http://{}", self.peer);
        let mut command = Command::new("etcd");
        command.args(["--name", &self.name, "--initial-cluster", &self.cluster, "--data-dir"]).arg(self.data.path());
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]).args(&self.arguments);
        // That of Debian 12 runs on other machines than PCs only with this.
        command.env("ETCD_UNSUPPORTED_ARCH", "arm64").stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(Process::start_quietly(&mut command));
    }

    /// Waits until the member has a leader.
    #[track_caller]
    fn wait(&self) {
        poll_until("the start of etcd", LIMIT, || {
            let process = self.process.as_ref().expect("a running member");
            assert!(!process.has_ended(), "etcd ended:\n{}", process.stderr());
            // With TLS the port is open only then.
            let is_ready = if self.is_secure { process.stderr().contains("serving client") } else { self.is_healthy() };
            is_ready.then_some(())
        });
    }

    /// Returns whether the member has a leader.
    fn is_healthy(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(self.client)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| answer.contains(r#""health":"true""#))
    }

    /// Returns the URL for clients.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.client)
    }

    /// Runs etcdctl with this member.
    #[track_caller]
    pub fn control(&self, arguments: &[&str]) -> Output {
        let output = self.try_control(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {}, {stderr}", output.status);
        output
    }

    /// Runs etcdctl with this member, which may fail.
    #[track_caller]
    pub fn try_control(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        output(command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint()]).args(arguments))
    }

    /// Puts a value.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.control(&["put", "--", key, value]);
    }

    /// Deletes a key.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.control(&["del", "--", key]);
    }

    /// Puts many values, which are of printable ASCII characters.
    #[track_caller]
    pub fn put_all(&self, values: &[(String, String)]) {
        for values in values.chunks(MAX_OPERATIONS) {
            let lines: String = values.iter().map(|(key, value)| format!("put {key} {value:?}\n")).collect();
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint(), "txn"]);
            let mut control = Process::start_quietly(command.stdin(Stdio::piped()).stdout(Stdio::null()));
            // No conditions, these operations, none otherwise.
            let mut stdin = control.child().stdin.take().expect("a pipe");
            stdin.write_all(format!("\n{lines}\n\n").as_bytes()).expect("written");
            drop(stdin);
            assert!(control.wait(LIMIT).success(), "{}", control.stderr());
        }
    }

    /// Returns the revision of the store, and compacts all before it.
    #[track_caller]
    pub fn compact(&self) -> i64 {
        let status = self.control(&["get", "no such key", "--write-out", "json"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
        let revision = status["header"]["revision"].as_i64().expect("a revision");
        self.control(&["compact", &revision.to_string()]);
        revision
    }
}

/// Returns an address that no other test uses, also while its program is stopped.
fn unused_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // 127.64.0.0/10 has 22 bits: 16 of the process, 6 of the address in it.
    let number = (process::id() & 0xffff) << 6 | NEXT.fetch_add(1, Ordering::Relaxed) & 0x3f;
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | number);
    let listener = TcpListener::bind((IpAddr::from(ip), 0)).expect("an address");
    listener.local_addr().expect("an address")
}

/// Returns a directory, in memory if possible: etcd waits for the disk at each change.
fn data_directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a directory")
}

/// A running rtftp-etcd. Killed when dropped.
#[derive(Debug)]
pub struct RtftpEtcd(Process);

impl RtftpEtcd {
    /// Starts the program on a root directory.
    #[track_caller]
    pub fn start(root: &Path, arguments: &[&str]) -> Self {
        Self(Process::start_quietly(Self::command(root, arguments).stdin(Stdio::null())))
    }

    /// Runs the program with `--once`.
    #[track_caller]
    pub fn once(root: &Path, arguments: &[&str]) -> Output {
        output(Self::command(root, arguments).arg("--once"))
    }

    fn command(root: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("rtftp-etcd"));
        command.arg("--root-dir").arg(root).args(arguments);
        command
    }

    /// Returns the process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.0.stderr()
    }

    /// Waits until the log contains a text this number of times.
    #[track_caller]
    pub fn wait_for(&self, text: &str, times: usize) {
        poll_until(&format!("{times} times `{text}` in the log"), LIMIT, || {
            let log = self.log();
            assert!(!self.0.has_ended(), "rtftp-etcd ended:\n{log}");
            (log.matches(text).count() >= times).then_some(())
        });
    }
}
