//! rtftp-get under test, and a server that says what a test says.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{binary, process::Process};

/// How long a fetch may take; the longest are many small blocks on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a packet may take that must come.
const SOON: Duration = Duration::from_secs(10);

/// A directory in which rtftp-get runs.
#[derive(Debug)]
pub struct RtftpGet {
    directory: TempDir,
    /// What goes before the program's name, to run it somewhere else.
    prefix: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub struct GetResult {
    /// The exit code.
    pub code: Option<i32>,
    /// What was written to standard output.
    pub stdout: Vec<u8>,
    /// What was said on standard error.
    pub said: String,
}

impl Default for RtftpGet {
    fn default() -> Self {
        Self::behind(&[])
    }
}

impl RtftpGet {
    /// Runs it in an empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, by a program that runs another one and has these words before it.
    pub fn behind(prefix: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self { directory, prefix: prefix.iter().map(|&word| word.to_owned()).collect() }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files in its directory, hidden ones too, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("its directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    /// The bytes of a file in its directory.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Runs it to its end with these arguments.
    #[track_caller]
    pub fn get(&self, args: &[&str]) -> GetResult {
        self.start(args).end()
    }

    /// Starts it with these arguments.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        let mut words = self.prefix.iter().map(String::as_str);
        let program = binary("rtftp-get");
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(args).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Process::start(&mut command))
    }
}

/// A fetch that goes on.
#[derive(Debug)]
pub struct Running(Process);

impl Running {
    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Closes what its standard output goes to.
    pub fn close_stdout(&mut self) {
        drop(self.0.child().stdout.take());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> GetResult {
        let stdout = self.0.child().stdout.take().map(read_all);
        let stderr = self.0.child().stderr.take().map(read_all);
        let status = self.0.wait(PATIENCE);
        let joined = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            reader.map_or(Vec::new(), |reader| reader.join().expect("a pipe that can be read"))
        };
        let said = String::from_utf8(joined(stderr)).expect("messages are text");
        assert!(!said.contains("panicked"), "{said}");
        GetResult { code: status.code(), stdout: joined(stdout), said }
    }
}

/// Reads a pipe to its end beside everything else.
fn read_all(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

impl GetResult {
    /// Asserts how it ended and that its words hold these.
    #[track_caller]
    pub fn ended(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        for word in words {
            assert!(self.said.contains(word), "`{word}` is missing in: {}", self.said);
        }
    }
}

/// A server that a test plays itself, packet by packet.
#[derive(Debug)]
pub struct ScriptedServer {
    requests: UdpSocket,
    transfer: UdpSocket,
    client: Option<SocketAddr>,
}

impl ScriptedServer {
    /// A server at 127.0.0.1 that answers from a second port there.
    pub fn new() -> Self {
        Self::answering_from("127.0.0.1")
    }

    /// A server at 127.0.0.1 that answers from another address.
    pub fn answering_from(address: &str) -> Self {
        let open = |address: &str| {
            let socket = UdpSocket::bind((address, 0)).expect("a port");
            socket.set_read_timeout(Some(SOON)).expect("a timeout");
            socket
        };
        Self { requests: open("127.0.0.1"), transfer: open(address), client: None }
    }

    /// `HOST:PORT`, as rtftp-get takes it.
    pub fn address(&self) -> String {
        self.requests.local_addr().expect("bound").to_string()
    }

    /// The port it answers from.
    pub fn transfer_port(&self) -> SocketAddr {
        self.transfer.local_addr().expect("bound")
    }

    /// Where the request came from.
    #[track_caller]
    pub fn client(&self) -> SocketAddr {
        self.client.expect("a request came before")
    }

    /// Waits for a request.
    #[track_caller]
    pub fn request(&mut self) -> Vec<u8> {
        let mut buf = [0; 1024];
        let (len, client) = self.requests.recv_from(&mut buf).expect("a request");
        self.client = Some(client);
        buf[..len].to_vec()
    }

    /// Whether a request has come that nobody has waited for; one that was sent on this machine is here by now.
    pub fn was_asked(&self) -> bool {
        self.requests.set_nonblocking(true).expect("set");
        let asked = self.requests.peek_from(&mut [0; 1]).is_ok();
        self.requests.set_nonblocking(false).expect("set");
        asked
    }

    /// Sends a packet to the client.
    #[track_caller]
    pub fn say(&self, packet: &[u8]) {
        self.transfer.send_to(packet, self.client()).expect("sent");
    }

    /// Waits for the next packet of the transfer.
    #[track_caller]
    pub fn hear(&self) -> Vec<u8> {
        let mut buf = [0; 1024];
        let len = self.transfer.recv(&mut buf).expect("a packet of the client");
        buf[..len].to_vec()
    }
}

impl Default for ScriptedServer {
    fn default() -> Self {
        Self::new()
    }
}
