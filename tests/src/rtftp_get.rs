//! Runs `rtftp-get`, and provides a server that sends packets from a test.

use std::{
    fs::{self, OpenOptions},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use tempfile::TempDir;

use crate::{binary, poll_until, process::Process};

/// The maximum time for a fetch; the slowest are many small blocks on a busy host.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The maximum time until an expected packet.
const PACKET_LIMIT: Duration = Duration::from_secs(10);

/// Runs `rtftp-get` in a temporary directory.
#[derive(Debug)]
pub struct RtftpGet {
    directory: TempDir,
    /// The command that executes the program, for example in another namespace.
    prefix: Vec<String>,
}

/// The result of a run.
#[derive(Debug)]
pub struct GetResult {
    /// The exit code.
    pub code: Option<i32>,
    /// The standard output.
    pub stdout: Vec<u8>,
    /// The standard error.
    pub stderr: String,
}

impl Default for RtftpGet {
    fn default() -> Self {
        Self::behind(&[])
    }
}

impl RtftpGet {
    /// Uses an empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses an empty directory and executes the program through the command `prefix`.
    pub fn behind(prefix: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self { directory, prefix: prefix.iter().map(|&word| word.to_owned()).collect() }
    }

    /// Returns a path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the sorted names of all files in the directory, including hidden ones.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("its directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    /// Reads a file in the directory.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Runs the program to completion.
    #[track_caller]
    pub fn get(&self, args: &[&str]) -> GetResult {
        self.start(args).end()
    }

    /// Starts the program.
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

/// A running fetch.
#[derive(Debug)]
pub struct Running(Process);

impl Running {
    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Closes the reading end of its standard output, so that each later write fails.
    #[track_caller]
    pub fn close_stdout(&mut self) {
        drop(self.0.child().stdout.take());
        // A program that another test starts at this moment holds the reading end, too, until it is executed.
        let pipe = OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", self.0.id())).expect("its pipe");
        poll_until("a pipe that nobody reads", PACKET_LIMIT, || {
            let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
            poll(&mut polled, PollTimeout::ZERO).expect("a pipe that can be polled");
            polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)).then_some(())
        });
    }

    /// Waits for the program to end.
    #[track_caller]
    pub fn end(mut self) -> GetResult {
        let stdout = self.0.child().stdout.take().map(read_all);
        let stderr = self.0.child().stderr.take().map(read_all);
        let status = self.0.wait(RUN_LIMIT);
        let joined = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            reader.map_or(Vec::new(), |reader| reader.join().expect("a pipe that can be read"))
        };
        let stderr = String::from_utf8(joined(stderr)).expect("messages are text");
        assert!(!stderr.contains("panicked"), "{stderr}");
        GetResult { code: status.code(), stdout: joined(stdout), stderr }
    }
}

/// Reads a pipe to its end on a thread of its own.
fn read_all(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

impl GetResult {
    /// Asserts the exit code and that the standard error contains all these words.
    #[track_caller]
    pub fn assert_exit(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` not found in: {}", self.stderr);
        }
    }
}

/// A TFTP server whose packets are written by the test.
#[derive(Debug)]
pub struct ScriptedServer {
    requests: UdpSocket,
    transfer: UdpSocket,
    client: Option<SocketAddr>,
}

impl ScriptedServer {
    /// Listens on 127.0.0.1 and answers from a second port.
    pub fn new() -> Self {
        Self::answering_from("127.0.0.1")
    }

    /// Listens on 127.0.0.1 and answers from another address.
    pub fn answering_from(address: &str) -> Self {
        let open = |address: &str| {
            let socket = UdpSocket::bind((address, 0)).expect("a port");
            socket.set_read_timeout(Some(PACKET_LIMIT)).expect("a timeout");
            socket
        };
        Self { requests: open("127.0.0.1"), transfer: open(address), client: None }
    }

    /// Returns `HOST:PORT` as an argument for `rtftp-get`.
    pub fn address(&self) -> String {
        self.requests.local_addr().expect("bound").to_string()
    }

    /// Returns the address and port that it answers from.
    pub fn transfer_port(&self) -> SocketAddr {
        self.transfer.local_addr().expect("bound")
    }

    /// Returns the source of the request.
    #[track_caller]
    pub fn client(&self) -> SocketAddr {
        self.client.expect("a request was received before")
    }

    /// Waits for a request.
    #[track_caller]
    pub fn request(&mut self) -> Vec<u8> {
        let mut buf = [0; 1024];
        let (len, client) = self.requests.recv_from(&mut buf).expect("a request");
        self.client = Some(client);
        buf[..len].to_vec()
    }

    /// Returns whether an unread request is in the socket; loopback delivers a request before the sender continues.
    pub fn has_request(&self) -> bool {
        self.requests.set_nonblocking(true).expect("set");
        let has_request = self.requests.peek_from(&mut [0; 1]).is_ok();
        self.requests.set_nonblocking(false).expect("set");
        has_request
    }

    /// Sends a packet to the client.
    #[track_caller]
    pub fn send(&self, packet: &[u8]) {
        self.transfer.send_to(packet, self.client()).expect("sent");
    }

    /// Waits for the next packet of the transfer.
    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        let mut buf = [0; 1024];
        let len = self.transfer.recv(&mut buf).expect("a packet from the client");
        buf[..len].to_vec()
    }
}

impl Default for ScriptedServer {
    fn default() -> Self {
        Self::new()
    }
}
