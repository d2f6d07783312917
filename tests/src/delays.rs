//! The time that datagrams wait for their answers, at a server and at a program that does nothing else.

use std::{
    fmt,
    fs::{self, File},
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::FileExt,
    path::PathBuf,
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

/// The time that threads of a process have waited for a processor so far: not the fault of the program.
#[derive(Debug)]
pub struct SchedulingDelay(Vec<File>);

impl SchedulingDelay {
    /// Watches the main thread of a process, and those with these names.
    pub fn of(process: u32, names: &[&str]) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a running process");
        let directories = threads.map(|thread| thread.expect("a thread").path());
        let is_watched = |directory: &PathBuf| {
            let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
            directory.ends_with(process.to_string()) || names.contains(&name.trim_end())
        };
        let open = |directory: PathBuf| File::open(directory.join("schedstat")).expect("statistics of a thread");
        Self(directories.filter(is_watched).map(open).collect())
    }

    /// Returns the sum of the delays.
    pub fn total(&self) -> Duration {
        let delay = |file: &File| {
            let mut text = [0; 64];
            let len = file.read_at(&mut text, 0).unwrap_or(0);
            let second = text[..len].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            String::from_utf8_lossy(second).parse().unwrap_or(0)
        };
        Duration::from_nanos(self.0.iter().map(delay).sum())
    }
}

/// Delays of one kind.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    all: Vec<Duration>,
    /// Without the time that the server has waited for a processor.
    own: Vec<Duration>,
}

impl Delays {
    /// Adds a delay, during which the server has waited `scheduling` for a processor.
    pub fn add(&mut self, delay: Duration, scheduling: Duration) {
        self.all.push(delay);
        self.own.push(delay.saturating_sub(scheduling));
    }

    /// Adds all delays of another measurement.
    pub fn extend(&mut self, other: &Self) {
        self.all.extend(&other.all);
        self.own.extend(&other.own);
    }

    /// Returns the number of delays.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Prints the summaries of the delays, and of the server's own share, and returns them in this order.
    pub fn print(&self, whose: &str) -> [Summary; 2] {
        let [all, own] = [&self.all, &self.own].map(|delays| Summary::of(delays));
        println!("{whose}, {} datagrams: {all:?} ms, of which the daemon's own {own:?}", self.count());
        [all, own]
    }
}

/// Some delays: the median, the limits that 99 % and 99.99 % keep, and the maximum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The median.
    pub median: Duration,
    /// The limit of 99 %.
    pub most: Duration,
    /// The limit of 99.99 %.
    pub almost_all: Duration,
    /// The maximum.
    pub worst: Duration,
}

impl Summary {
    fn of(delays: &[Duration]) -> Self {
        let mut sorted = delays.to_owned();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1).expect("a delay");
        let limit_of = |part: f64| sorted[(last as f64 * part) as usize];
        Self { median: limit_of(0.5), most: limit_of(0.99), almost_all: limit_of(0.9999), worst: sorted[last] }
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, most, almost_all, worst } = self;
        let [median, most, almost_all, worst] =
            [median, most, almost_all, worst].map(|delay| delay.as_secs_f64() * 1000.0);
        write!(f, "median {median:.2}, 99 % {most:.1}, 99.99 % {almost_all:.1}, worst {worst:.1}")
    }
}
