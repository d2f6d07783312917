//! A load generator: many HTTP clients on one thread, cheap enough to measure a server.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{
    http_client::connect_from,
    load_client::{Report, Requested, address},
};

/// The parameters of a load.
#[derive(Debug, Clone, Copy)]
pub struct HttpLoad {
    /// The number of concurrent clients, each with a source address and a connection of its own.
    pub clients: u16,
    /// The number of times that each client requests everything, over one connection if the server keeps it open.
    pub times: u32,
    /// The path to request.
    pub path: &'static str,
    /// The maximum duration of the run.
    pub limit: Duration,
}

impl HttpLoad {
    /// Runs the load against a server and compares every byte with `expected`.
    ///
    /// # Errors
    ///
    /// Fails if the sockets cannot be opened.
    pub fn run(&self, server: SocketAddr, expected: &[u8]) -> io::Result<Report> {
        self.run_files(server, &[Requested { name: self.path.trim_start_matches('/'), contents: Some(expected) }])
    }

    /// Runs a load in which each client requests these files one after the other, instead of the path of the load.
    ///
    /// # Errors
    ///
    /// Fails if the sockets cannot be opened.
    pub fn run_files(&self, server: SocketAddr, files: &[Requested<'_>]) -> io::Result<Report> {
        let count = self.times * files.len() as u32;
        let file = |left: u32| files[(count - left) as usize % files.len()];
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut report = Report::default();
        let begun = Instant::now();
        let mut fetches = Vec::new();
        for client in 0..self.clients {
            let mut fetch = Fetch::new(self.open(&epoll, client, server)?, count);
            fetch.request(file(count))?;
            fetches.push(Some(fetch));
        }
        let (mut buf, mut events) = (vec![0; 256 << 10], vec![EpollEvent::empty(); 256]);
        let mut running = fetches.len();
        while running > 0 && begun.elapsed() < self.limit {
            let ready = epoll.wait(&mut events, EpollTimeout::from(100u8))?;
            for event in &events[..ready] {
                let client = event.data() as usize;
                let Some(fetch) = &mut fetches[client] else { continue };
                match fetch.receive(&mut buf) {
                    Ok(false) => continue,
                    Ok(true) => {
                        report.complete.push(fetch.begun.elapsed());
                        report.bytes += file(fetch.left).contents.map_or(0, <[u8]>::len);
                        fetch.left -= 1;
                        if fetch.left > 0 {
                            if fetch.is_last {
                                *fetch = Fetch::new(self.open(&epoll, client as u16, server)?, fetch.left);
                            }
                            fetch.request(file(fetch.left))?;
                            continue;
                        }
                        report.clients.push(begun.elapsed());
                    }
                    Err(error) => {
                        report.failed.0 += fetch.left as usize;
                        report.failed.1 = error.to_string();
                    }
                }
                fetches[client] = None;
                running -= 1;
            }
        }
        for fetch in fetches.iter().flatten() {
            report.failed.0 += fetch.left as usize;
            report.failed.1 = "not complete within the limit".into();
        }
        report.wall = begun.elapsed();
        report.complete.sort();
        Ok(report)
    }

    /// Connects a client, and waits for its packets. Closing the socket ends that.
    fn open(&self, epoll: &Epoll, client: u16, server: SocketAddr) -> io::Result<TcpStream> {
        let stream = connect_from(address(client).into(), server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(client)))?;
        Ok(stream)
    }
}

/// The requests of one client.
struct Fetch<'f> {
    stream: TcpStream,
    /// The contents of the requested file, if it exists.
    contents: Option<&'f [u8]>,
    /// The length of the body.
    size: usize,
    /// The number of requests that are not complete.
    left: u32,
    /// When the present request was sent.
    begun: Instant,
    /// The head of the response, until it is complete.
    head: Vec<u8>,
    /// The number of bytes of the body that have been received; `None` before the body.
    received: Option<usize>,
    /// Whether the server closes the connection after this response.
    is_last: bool,
}

impl<'f> Fetch<'f> {
    fn new(stream: TcpStream, left: u32) -> Self {
        Self {
            stream,
            contents: None,
            size: 0,
            left,
            begun: Instant::now(),
            head: vec![],
            received: None,
            is_last: false,
        }
    }

    /// Sends a request, for which the socket has space.
    fn request(&mut self, file: Requested<'f>) -> io::Result<()> {
        (self.begun, self.received, self.contents) = (Instant::now(), None, file.contents);
        self.head.clear();
        self.stream.write_all(format!("GET /{} HTTP/1.1\r\nHost: server\r\n\r\n", file.name).as_bytes())
    }

    /// Receives what has arrived. Returns whether the response is complete.
    fn receive(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        for _ in 0..8 {
            let len = match self.stream.read(buf) {
                Ok(0) => return Err(io::Error::other("the server closed the connection")),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let mut body = &buf[..len];
            let at = match self.received {
                Some(at) => at,
                None => {
                    let known = self.head.len();
                    self.head.extend_from_slice(body);
                    let Some(end) = self.head.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
                    body = &body[end + 4 - known..];
                    self.read_head(end)?;
                    0
                }
            };
            let end = at + body.len();
            if self.contents.is_some_and(|contents| contents.get(at..end) != Some(body)) {
                return Err(io::Error::other(format!("the bytes from {at} on differ from the file")));
            }
            self.received = Some(end);
            if end >= self.size {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_head(&mut self, end: usize) -> io::Result<()> {
        let head = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
        let size = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let status = if self.contents.is_some() { "200" } else { "404" };
        let is_expected = head.split(' ').nth(1).is_some_and(|found| found.starts_with(status));
        self.size = size
            .filter(|size| is_expected && self.contents.is_none_or(|contents| contents.len() == *size))
            .ok_or_else(|| io::Error::other(format!("unexpected response: {head}")))?;
        self.is_last = head.starts_with("http/1.0") || head.lines().any(|line| line == "connection: close");
        Ok(())
    }
}
