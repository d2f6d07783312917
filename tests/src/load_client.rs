//! A load generator: many TFTP clients on one thread, cheap enough to measure a server.

use std::{
    io::{self, ErrorKind, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
    },
};
use rustix::net::connect_unspec;

use crate::raw_client::{Answer, rrq};

/// The parameters of a load: the file, the number of clients and the options.
#[derive(Debug, Clone)]
pub struct Load {
    /// The number of concurrent clients, each with a source address of its own.
    pub clients: u16,
    /// The number of consecutive fetches of each client.
    pub times: u32,
    /// The file name to request.
    pub name: &'static str,
    /// The option `blksize`.
    pub blksize: u16,
    /// The option `windowsize`; not requested if it is 1.
    pub windowsize: u16,
    /// Whether the kernel may deliver several datagrams in one receive call (`UDP_GRO`).
    pub gro: bool,
    /// The fraction of datagrams that is lost, in either direction; deterministic by their order.
    pub loss: f64,
    /// A client repeats its last packet after this time without a datagram.
    pub timeout: Duration,
    /// The maximum duration of the run.
    pub limit: Duration,
}

/// A file that a client requests, and what it must receive: the contents, or nothing if there is no such file.
#[derive(Debug, Clone, Copy)]
pub struct Requested<'f> {
    /// The name in the request.
    pub name: &'f str,
    /// The contents of the file.
    pub contents: Option<&'f [u8]>,
}

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The durations of the fetches that were complete and equal to the file, in ascending order.
    pub complete: Vec<Duration>,
    /// The bytes of these fetches.
    pub bytes: usize,
    /// The times from the start of the run to the end of the last fetch of each client whose fetches were all complete, in ascending
    /// order.
    pub clients: Vec<Duration>,
    /// The number of failed fetches and the reason of the first failure.
    pub failed: (usize, String),
    /// Time from the first request to the end of the last fetch.
    pub wall: Duration,
    /// The number of packets that were repeated.
    pub repeated: u64,
}

impl Report {
    /// Returns the percentile `part` (0 to 1) of the durations in seconds; infinite if fewer fetches were complete.
    pub fn percentile(&self, part: f64) -> f64 {
        let all = self.complete.len() + self.failed.0;
        let index = (all as f64 * part).ceil() as usize;
        self.complete.get(index.saturating_sub(1)).map_or(f64::INFINITY, Duration::as_secs_f64)
    }
}

/// Returns the source address of a client by its number.
pub fn address(client: u16) -> Ipv4Addr {
    let [high, low] = client.to_be_bytes();
    Ipv4Addr::new(127, 1 + high, low, 1)
}

impl Load {
    /// Runs the load against a server and compares every byte with `expected`.
    ///
    /// # Errors
    ///
    /// Fails if the sockets cannot be opened.
    pub fn run(&self, server: SocketAddr, expected: &[u8]) -> io::Result<Report> {
        self.run_files(server, &[Requested { name: self.name, contents: Some(expected) }])
    }

    /// Runs a load in which each client fetches these files one after the other, instead of the file of the load.
    ///
    /// # Errors
    ///
    /// Fails if the sockets cannot be opened.
    pub fn run_files(&self, server: SocketAddr, files: &[Requested<'_>]) -> io::Result<Report> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut report = Report::default();
        let started = Instant::now();
        let count = files.len() * self.times as usize;
        let mut fetches = Vec::new();
        for client in 0..self.clients {
            let socket = self.open_socket(&epoll, client)?;
            fetches.push(Some(self.start_fetch(socket, client, server, files[0])));
        }
        let mut buf = vec![0; 65_536];
        let mut events = vec![EpollEvent::empty(); 256];
        let mut checked = started;
        let mut running = fetches.len();
        // The number of finished and of failed fetches of each client.
        let mut done = vec![(0, 0); fetches.len()];
        while running > 0 && started.elapsed() < self.limit {
            let ready = epoll.wait(&mut events, EpollTimeout::from(20u8))?;
            for event in &events[..ready] {
                let client = event.data() as usize;
                let Some(fetch) = &mut fetches[client] else { continue };
                let Some(end) = fetch.receive(self, &mut buf) else { continue };
                let (finished, failed) = &mut done[client];
                *finished += 1;
                match end {
                    Ok(()) => {
                        report.complete.push(fetch.started.elapsed());
                        report.bytes += fetch.offset;
                    }
                    Err(why) => {
                        *failed += 1;
                        report.fail(why);
                    }
                }
                report.repeated += fetch.repeated;
                let Some(Fetch { socket, .. }) = fetches[client].take() else { continue };
                if *finished < count {
                    release_port(&socket)?;
                    let file = files[*finished % files.len()];
                    fetches[client] = Some(self.start_fetch(socket, client as u16, server, file));
                } else {
                    running -= 1;
                    report.clients.extend((*failed == 0).then(|| started.elapsed()));
                }
            }
            if checked.elapsed() > self.timeout / 10 {
                checked = Instant::now();
                fetches.iter_mut().flatten().for_each(|fetch| fetch.repeat_if_silent(self.timeout));
            }
        }
        fetches.iter().flatten().for_each(|_| report.fail("not complete within the limit".into()));
        report.wall = started.elapsed();
        report.complete.sort();
        Ok(report)
    }

    /// Opens a client's socket, for all its fetches.
    fn open_socket(&self, epoll: &Epoll, client: u16) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((address(client), 0))?;
        socket.set_nonblocking(true)?;
        // Room for windows of large blocks; exceeding the system limit needs root.
        let room = 4 << 20;
        if self.windowsize > 1 && setsockopt(&socket, sockopt::RcvBufForce, &room).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &room)?;
        }
        if self.gro {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(client)))?;
        Ok(socket)
    }

    fn start_fetch<'f>(&self, socket: UdpSocket, client: u16, server: SocketAddr, file: Requested<'f>) -> Fetch<'f> {
        let (blksize, windowsize) = (self.blksize.to_string(), self.windowsize.to_string());
        let options = [("blksize", blksize.as_str()), ("windowsize", windowsize.as_str())];
        let request = rrq(file.name, if self.windowsize == 1 { &options[..1] } else { &options });
        let now = Instant::now();
        let mut fetch = Fetch {
            socket,
            server,
            contents: file.contents,
            connected: false,
            request,
            started: now,
            last_received: now,
            repeated: 0,
            blksize: 512,
            windowsize: 1,
            block: 0,
            acknowledged: 0,
            gap_reported: false,
            offset: 0,
            loss: self.loss,
            random: (u64::from(client) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        };
        fetch.send_request();
        fetch
    }
}

/// Disconnects a socket, which then gets another port with its next datagram, and discards what has arrived for the last one. To
/// open another socket for each fetch would take more time than a small file.
fn release_port(socket: &UdpSocket) -> io::Result<()> {
    connect_unspec(socket)?;
    while socket.recv(&mut [0]).is_ok() {}
    Ok(())
}

impl Report {
    fn fail(&mut self, why: String) {
        self.failed.0 += 1;
        if self.failed.0 == 1 {
            self.failed.1 = why;
        }
    }
}

/// The state of one client's fetch.
struct Fetch<'f> {
    socket: UdpSocket,
    server: SocketAddr,
    /// The expected contents.
    contents: Option<&'f [u8]>,
    /// Whether the socket is connected to the server's port of this transfer.
    connected: bool,
    request: Vec<u8>,
    started: Instant,
    last_received: Instant,
    repeated: u64,
    blksize: usize,
    windowsize: u64,
    /// The last block received in order.
    block: u64,
    acknowledged: u64,
    /// Whether the gap before the blocks that arrive now has been acknowledged.
    gap_reported: bool,
    offset: usize,
    loss: f64,
    random: u64,
}

/// The end of a fetch: complete, or the reason of its failure.
type End = Result<(), String>;

impl Fetch<'_> {
    /// Handles received datagrams, at most eight receive calls at a time. Without windows, a second call would find nothing.
    fn receive(&mut self, load: &Load, buf: &mut [u8]) -> Option<End> {
        for _ in 0..if load.windowsize == 1 { 1 } else { 8 } {
            let (len, segment, from) = match self.receive_some(load.gro, buf) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(format!("receiving: {error}"))),
            };
            for datagram in buf[..len].chunks(segment) {
                if self.is_lost() {
                    continue;
                }
                if !self.connected {
                    if let Err(error) = self.socket.connect(from) {
                        return Some(Err(format!("connecting: {error}")));
                    }
                    self.connected = true;
                }
                if let Some(end) = self.handle(datagram) {
                    return Some(end);
                }
            }
        }
        None
    }

    /// Receives one or several datagrams of equal size; returns the total length, the length of each and the source.
    fn receive_some(&mut self, gro: bool, buf: &mut [u8]) -> io::Result<(usize, usize, SocketAddr)> {
        if !self.connected {
            let (len, from) = self.socket.recv_from(buf)?;
            return Ok((len, len.max(1), from));
        }
        if !gro {
            let len = self.socket.recv(buf)?;
            return Ok((len, len.max(1), self.server));
        }
        let mut control = cmsg_space!(i32);
        let mut iov = [IoSliceMut::new(buf)];
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
        let segment = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
            _ => None,
        });
        Ok((message.bytes, segment.unwrap_or(message.bytes).max(1), self.server))
    }

    fn handle(&mut self, datagram: &[u8]) -> Option<End> {
        self.last_received = Instant::now();
        match datagram {
            [0, 3, high, low, data @ ..] => self.data(u16::from_be_bytes([*high, *low]), data),
            [0, 6, ..] => {
                let Answer::Oack(options) = Answer::parse(datagram) else { return None };
                for (name, value) in options {
                    match (name.to_ascii_lowercase().as_str(), value.parse()) {
                        ("blksize", Ok(value)) => self.blksize = value,
                        ("windowsize", Ok(value)) => self.windowsize = value as u64,
                        _ => return Some(Err(format!("the option {name}={value} was not requested"))),
                    }
                }
                self.acknowledge();
                None
            }
            [0, 5, 0, 1, ..] if self.contents.is_none() => Some(Ok(())),
            [0, 5, ..] => Some(Err(datagram[2..].escape_ascii().to_string())),
            _ => Some(Err(format!("not TFTP: {}", datagram.escape_ascii()))),
        }
    }

    fn data(&mut self, number: u16, data: &[u8]) -> Option<End> {
        if number != (self.block + 1) as u16 {
            // A repeated last block means that its ACK was lost. After a gap the last block in order is acknowledged once, and the rest
            // of the window is ignored (RFC 7440 section 4).
            let ahead = number.wrapping_sub(self.block as u16) < 0x8000;
            if number == self.block as u16 {
                self.acknowledge();
            } else if ahead && !self.gap_reported {
                self.acknowledge();
                self.gap_reported = true;
            }
            return None;
        }
        let end = self.offset + data.len();
        let Some(expected) = self.contents else { return Some(Err("there should be no such file".into())) };
        if expected.get(self.offset..end) != Some(data) {
            return Some(Err(format!("block {} differs from the file", self.block + 1)));
        }
        (self.block, self.offset, self.gap_reported) = (self.block + 1, end, false);
        let last = data.len() < self.blksize;
        if last || self.block == self.acknowledged + self.windowsize {
            self.acknowledge();
        }
        last.then(|| if end == expected.len() { Ok(()) } else { Err(format!("{end} bytes of {}", expected.len())) })
    }

    fn acknowledge(&mut self) {
        self.acknowledged = self.block;
        let [high, low] = (self.block as u16).to_be_bytes();
        if !self.is_lost() {
            // A failed send counts as a lost packet.
            let _ = self.socket.send(&[0, 4, high, low]);
        }
    }

    fn send_request(&mut self) {
        if !self.is_lost() {
            let _ = self.socket.send_to(&self.request, self.server);
        }
    }

    /// Decides whether the next datagram is lost.
    fn is_lost(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 11) as f64) < self.loss * (1u64 << 53) as f64
    }

    fn repeat_if_silent(&mut self, timeout: Duration) {
        if self.last_received.elapsed() <= timeout {
            return;
        }
        self.last_received = Instant::now();
        self.repeated += 1;
        self.gap_reported = false;
        if self.connected { self.acknowledge() } else { self.send_request() }
    }
}
