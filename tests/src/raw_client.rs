//! A TFTP client whose datagrams are written by the test.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// The maximum time until an expected answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A packet from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// OACK: option names and values in order.
    Oack(Vec<(String, String)>),
    /// DATA: block number and payload.
    Data(u16, Vec<u8>),
    /// ERROR: code and text.
    Error(u16, String),
}

impl Answer {
    /// Parses a datagram. Panics if a server must not send it.
    #[track_caller]
    pub fn parse(datagram: &[u8]) -> Self {
        let number = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        match (datagram.len(), datagram.get(1)) {
            (4.., Some(3)) => Self::Data(number(2), datagram[4..].to_vec()),
            (5.., Some(5)) => {
                let (nul, message) = datagram[4..].split_last().expect("a NUL");
                assert!(
                    *nul == 0 && !message.contains(&0),
                    "the text of an ERROR must end with its only NUL: {datagram:?}"
                );
                Self::Error(number(2), text(message))
            }
            (2.., Some(6)) => {
                let fields: Vec<_> = datagram[2..].split(|byte| *byte == 0).map(text).collect();
                assert!(fields.len() % 2 == 1 && fields.last().is_some_and(String::is_empty), "{fields:?}");
                Self::Oack(fields.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
            }
            _ => panic!("not a packet that a server sends: {}", datagram.escape_ascii()),
        }
    }

    /// Returns an OACK with these options, in this order.
    pub fn oack(options: &[(&str, &str)]) -> Self {
        Self::Oack(options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    /// Returns the code of an ERROR. Panics for other packets.
    #[track_caller]
    pub fn code(&self) -> u16 {
        match self {
            Self::Error(code, _) => *code,
            other => panic!("expected an ERROR, got {}", other.summary()),
        }
    }

    /// Returns the block number of a DATA packet. Panics for other packets.
    #[track_caller]
    pub fn block(&self) -> u16 {
        match self {
            Self::Data(number, _) => *number,
            other => panic!("expected DATA, got {other:?}"),
        }
    }

    /// Returns a description without the payload of DATA.
    fn summary(&self) -> String {
        match self {
            Self::Data(number, bytes) => format!("DATA {number} with {} bytes", bytes.len()),
            other => format!("{other:?}"),
        }
    }
}

/// Returns an RRQ in octet mode.
pub fn rrq(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = format!("\0\u{1}{name}\0octet\0").into_bytes();
    for (option, value) in options {
        datagram.extend_from_slice(format!("{option}\0{value}\0").as_bytes());
    }
    datagram
}

/// Returns an ACK.
pub fn ack(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

/// Returns an ERROR.
pub fn error(code: u16, text: &str) -> Vec<u8> {
    [&[0, 5], &code.to_be_bytes()[..], text.as_bytes(), &[0]].concat()
}

/// A TFTP client on a source address of the test's choice.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    /// The source of the last answer: the server's address and port for this transfer.
    peer: Option<SocketAddr>,
}

impl Client {
    /// Returns a client of `server` that sends from any port of the address `from`, which may have a scope: `fe80::5%2`.
    pub fn new(from: &str, server: SocketAddr) -> Self {
        let from = if from.contains(':') { format!("[{from}]:0") } else { format!("{from}:0") };
        Self::at(from.parse().expect("an IP address"), server)
    }

    /// Returns a client of `server` that sends from the address and port `from`.
    pub fn at(from: SocketAddr, server: SocketAddr) -> Self {
        Self { socket: UdpSocket::bind(from).expect("a local address"), server, peer: None }
    }

    /// Accepts answers only from the address and port that the request went to, as behind a NAT or a stateful firewall.
    pub fn behind_nat(self) -> Self {
        self.socket.connect(self.server).expect("a route to the server");
        self
    }

    /// Returns the client's own address and port.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// Sends a datagram to the server's request port.
    pub fn request(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.server).expect("send");
    }

    /// Sends a datagram to the source of the last answer.
    #[track_caller]
    pub fn reply(&self, datagram: &[u8]) {
        self.send_to(datagram, self.peer());
    }

    /// Sends a datagram to any address.
    pub fn send_to(&self, datagram: &[u8], address: SocketAddr) {
        self.socket.send_to(datagram, address).expect("send");
    }

    /// Returns the source of the last answer.
    #[track_caller]
    pub fn peer(&self) -> SocketAddr {
        self.peer.expect("an answer came before")
    }

    /// Returns the next answer, or `None` after `within`.
    pub fn receive_within(&mut self, within: Duration) -> Option<Answer> {
        let deadline = Instant::now() + within;
        let mut buf = vec![0; 65536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            match self.socket.recv_from(&mut buf) {
                Ok((len, peer)) => {
                    self.peer = Some(peer);
                    return Some(Answer::parse(&buf[..len]));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // ICMP port unreachable for an earlier datagram: the transfer's port has been closed.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("receive: {error}"),
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// Returns the next answer. Panics if none arrives in time.
    #[track_caller]
    pub fn receive(&mut self) -> Answer {
        self.receive_within(ANSWER_LIMIT).expect("an answer")
    }

    /// Sends a request and returns the first answer. Panics if none arrives in time.
    #[track_caller]
    pub fn exchange(&mut self, datagram: &[u8]) -> Answer {
        self.request(datagram);
        self.receive()
    }

    /// Acknowledges a block and returns the next answer.
    #[track_caller]
    pub fn acknowledge(&mut self, block: u16) -> Answer {
        self.reply(&ack(block));
        self.receive()
    }

    /// Repeats a request every 250 ms, as boot firmware does, and returns the first answer.
    #[track_caller]
    pub fn request_until_answered(&mut self, datagram: &[u8], within: Duration) -> Answer {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            self.request(datagram);
            if let Some(answer) = self.receive_within(Duration::from_millis(250)) {
                return answer;
            }
        }
        panic!("no answer within {within:?}");
    }

    /// Fetches a file with these options and repeats the request until the server answers.
    ///
    /// # Errors
    ///
    /// Returns the ERROR that the server sent.
    #[track_caller]
    pub fn fetch(&mut self, name: &str, options: &[(&str, &str)]) -> Result<Vec<u8>, Answer> {
        let first = self.request_until_answered(&rrq(name, options), Duration::from_secs(100));
        self.finish(first)
    }

    /// Receives the rest of a file in lock-step, beginning with its first answer.
    ///
    /// # Errors
    ///
    /// Returns the ERROR that the server sent.
    #[track_caller]
    pub fn finish(&mut self, first: Answer) -> Result<Vec<u8>, Answer> {
        self.finish_with(first, |_| {})
    }

    /// Does the same and calls `before` with the number of each block before acknowledging it.
    ///
    /// # Errors
    ///
    /// Returns the ERROR that the server sent.
    #[track_caller]
    pub fn finish_with(&mut self, first: Answer, mut before: impl FnMut(u16)) -> Result<Vec<u8>, Answer> {
        let (mut file, mut last, mut blksize, mut answer) = (Vec::new(), 0_u16, 512, first);
        loop {
            answer = match answer {
                Answer::Oack(options) => {
                    let blksize_option = options.iter().find(|(name, _)| name == "blksize");
                    blksize = blksize_option.map_or(512, |(_, value)| value.parse().expect("a block size"));
                    self.acknowledge(0)
                }
                Answer::Data(number, bytes) if number == last.wrapping_add(1) => {
                    last = number;
                    before(number);
                    file.extend_from_slice(&bytes);
                    if bytes.len() < blksize {
                        self.reply(&ack(last));
                        return Ok(file);
                    }
                    self.acknowledge(last)
                }
                Answer::Data(number, _) => {
                    assert_eq!(number, last, "only the last block may be repeated");
                    self.receive()
                }
                error @ Answer::Error(..) => return Err(error),
            };
        }
    }
}
