//! An HTTP client that sends requests byte by byte as they are given, from any loopback address.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// The longest wait for a response.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to a server.
#[derive(Debug)]
pub struct HttpClient {
    stream: BufReader<TcpStream>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The code of its status.
    pub status: u16,
    /// The header lines, without the status line.
    pub headers: Vec<String>,
    /// The body, as long as `Content-Length` says.
    pub body: Vec<u8>,
}

/// Connects from this source address.
///
/// # Errors
///
/// There is no such address, or no server.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket.into())
}

impl HttpClient {
    /// Connects from this source address.
    #[track_caller]
    pub fn connect(from: &str, to: SocketAddr) -> Self {
        let stream = connect_from(from.parse().expect("an address"), to).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        stream.set_write_timeout(Some(LIMIT)).expect("set");
        Self { stream: BufReader::new(stream) }
    }

    /// Returns another handle of the connection, to send while this one receives.
    #[track_caller]
    pub fn duplicate(&self) -> Self {
        Self { stream: BufReader::new(self.stream.get_ref().try_clone().expect("a descriptor")) }
    }

    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// The server has closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a request with further header lines, and returns its response.
    ///
    /// # Errors
    ///
    /// The server has closed the connection.
    pub fn request(&mut self, method: &str, target: &str, headers: &[&str]) -> io::Result<HttpResponse> {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: server\r\n{headers}\r\n"))?;
        self.response(method == "HEAD")
    }

    /// Returns the next response, which has no body if it is one to HEAD.
    ///
    /// # Errors
    ///
    /// The server has closed the connection before the end of the response.
    pub fn response(&mut self, is_head: bool) -> io::Result<HttpResponse> {
        let mut response = self.head()?;
        let len = response.header("Content-Length").and_then(|len| len.parse().ok()).unwrap_or(0);
        if !is_head && response.status != 304 {
            response.body = vec![0; len];
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Returns the head of the next response.
    ///
    /// # Errors
    ///
    /// The server has closed the connection.
    pub fn head(&mut self) -> io::Result<HttpResponse> {
        let mut lines = vec![];
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.strip_suffix("\r\n").expect("a line ends with CR LF") {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let line = lines.remove(0);
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {line}"));
        Ok(HttpResponse { status, headers: lines, body: vec![] })
    }

    /// Returns whether the server neither sends nor closes the connection for this time.
    pub fn is_open_for(mut self, time: Duration) -> bool {
        self.stream.get_ref().set_read_timeout(Some(time)).expect("set");
        self.stream.fill_buf().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Returns the bytes until the server closes the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = vec![];
        // A reset ends the connection, too.
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}

impl HttpResponse {
    /// Returns the value of a header, whose name is compared with its case, as GRUB does.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
