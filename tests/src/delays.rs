//! The time that datagrams wait for their answers, at a server and at a program that does nothing else.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// The time after which an echo is lost.
const ECHO_LIMIT: Duration = Duration::from_secs(5);

/// A program that returns each datagram to its sender, on a thread of its own: the delay of an answer that costs nothing, on this
/// machine, at this time.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
}

impl Echo {
    /// Starts the thread, which runs as long as the test.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a local port");
        let address = socket.local_addr().expect("bound");
        thread::spawn(move || {
            let mut buf = [0; 512];
            loop {
                match socket.recv_from(&mut buf) {
                    Ok((len, from)) => _ = socket.send_to(&buf[..len], from),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "the echo"),
                }
            }
        });
        Self { address }
    }

    /// Returns the delay of one datagram and its echo. Panics if there is none.
    #[track_caller]
    pub fn measure(&self) -> Duration {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a local port");
        socket.set_read_timeout(Some(ECHO_LIMIT)).expect("set");
        let sent = Instant::now();
        socket.send_to(b"echo", self.address).expect("sent");
        socket.recv(&mut [0; 8]).expect("an echo");
        sent.elapsed()
    }
}

/// Delays of one kind.
#[derive(Debug, Clone, Default)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// Adds a delay.
    pub fn add(&mut self, delay: Duration) {
        self.0.push(delay);
    }

    /// Adds all delays of another measurement.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// Returns the number of delays.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the median, the 99th percentile and the maximum. Panics if there is none.
    pub fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1).expect("a delay");
        Summary { median: sorted[last / 2], most: sorted[last * 99 / 100], worst: sorted[last] }
    }

    /// Prints the summary, and returns it.
    pub fn print(&self, whose: &str) -> Summary {
        let summary = self.summary();
        let Summary { median, most, worst } = summary;
        println!("{whose}: {} datagrams wait {median:?} (median), {most:?} (99 %), {worst:?} (worst)", self.count());
        summary
    }
}

/// The median, the 99th percentile and the maximum of some delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The median.
    pub median: Duration,
    /// The 99th percentile.
    pub most: Duration,
    /// The maximum.
    pub worst: Duration,
}
