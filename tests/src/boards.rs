//! Boards that boot: TFTP clients with the timers of real firmware, each with an address and a thread of its own.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::{
    load_client::Requested,
    raw_client::{ack, rrq},
};

/// The block size that boards request.
const BLKSIZE: usize = 1468;
/// The number of times that a board starts a file again.
const MAX_RESTARTS: u32 = 6;

/// Firmware, by its timers. It ignores ICMP, repeats its last packet when nothing new comes, and after some copies gives up and starts the
/// file again, from another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoardFirmware {
    /// 10 times 5 s.
    UBoot,
    /// 0.25 s, doubled until it exceeds 10 s.
    Ipxe,
    /// 2 s, for 30 s.
    RaspberryPi,
}

impl BoardFirmware {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::UBoot, Self::Ipxe, Self::RaspberryPi];

    /// Returns the time to wait after this number of copies of a packet; `None` if it gives up.
    fn wait(self, copies: u32) -> Option<Duration> {
        match self {
            Self::UBoot => (copies < 10).then_some(Duration::from_secs(5)),
            Self::Ipxe => (copies < 6).then(|| Duration::from_millis(250 << copies)),
            Self::RaspberryPi => (copies < 15).then_some(Duration::from_secs(2)),
        }
    }
}

/// A boot that was complete, with the right contents of all files.
#[derive(Debug, Clone, Copy)]
pub struct CompleteBoot {
    /// The firmware of the board.
    pub firmware: BoardFirmware,
    /// The time from the first request to the end of the last file.
    pub duration: Duration,
    /// The number of files that were started again.
    pub restarts: u32,
}

/// Boards that boot at the same time from one address.
#[derive(Debug, Clone, Copy)]
pub struct Boards<'f> {
    /// The number of boards. Each third one has the same firmware.
    pub count: u16,
    /// The address of the server.
    pub server: SocketAddr,
    /// The files that each board loads, one after the other.
    pub files: &'f [Requested<'f>],
}

/// Returns the address of a board: from 10.8.0.0/16, which the test's network must have.
pub fn board_address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 8, high, low)
}

impl Boards<'_> {
    /// Boots all boards. Calls `meanwhile` with the counter of loaded bytes. Returns the boots in the order of the boards, or the reason
    /// why one is not complete.
    pub fn boot(&self, meanwhile: impl FnOnce(&AtomicU64)) -> Vec<Result<CompleteBoot, String>> {
        let loaded = AtomicU64::new(0);
        thread::scope(|scope| {
            let board = |number| Board {
                firmware: BoardFirmware::ALL[usize::from(number) % 3],
                address: board_address(number),
                server: self.server,
                loaded: &loaded,
            };
            let boards = (1..=self.count).map(board);
            let boots: Vec<_> = boards.map(|board| scope.spawn(move || board.boot(self.files))).collect();
            meanwhile(&loaded);
            boots.into_iter().map(|boot| boot.join().expect("a board")).collect()
        })
    }

    /// Returns the number of bytes that all boards load.
    pub fn bytes(&self) -> u64 {
        let of_one: usize = self.files.iter().filter_map(|file| Some(file.contents?.len())).sum();
        u64::from(self.count) * of_one as u64
    }

    /// Lets each board try once to load the first file. Returns the number of boards that have it; the others received nothing new for
    /// some time.
    pub fn load_once(&self, patience: Duration) -> usize {
        let loaded = AtomicU64::new(0);
        let load = |number| {
            let firmware = BoardFirmware::UBoot;
            let board = Board { firmware, address: board_address(number), server: self.server, loaded: &loaded };
            board.attempt(self.files[0], |copies| (copies == 0).then_some(patience)).expect("the right contents")
        };
        thread::scope(|scope| {
            let boards: Vec<_> = (1..=self.count).map(|number| scope.spawn(move || load(number))).collect();
            boards.into_iter().map(|board| usize::from(board.join().expect("a board"))).sum()
        })
    }
}

/// A board.
#[derive(Clone, Copy)]
struct Board<'c> {
    firmware: BoardFirmware,
    address: Ipv4Addr,
    server: SocketAddr,
    /// Counts the bytes that all boards have loaded.
    loaded: &'c AtomicU64,
}

impl Board<'_> {
    fn boot(&self, files: &[Requested<'_>]) -> Result<CompleteBoot, String> {
        let started = Instant::now();
        let mut restarts = 0;
        for file in files {
            while !self.attempt(*file, |copies| self.firmware.wait(copies))? {
                restarts += 1;
                if restarts > MAX_RESTARTS {
                    return Err(format!("{}: {:?} gave up {}", self.address, self.firmware, file.name));
                }
            }
        }
        Ok(CompleteBoot { firmware: self.firmware, duration: started.elapsed(), restarts })
    }

    /// Tries to load a file. Returns `false` if the firmware gives up, or the server sends an ERROR.
    fn attempt(&self, file: Requested<'_>, wait: impl Fn(u32) -> Option<Duration>) -> Result<bool, String> {
        let failed = |what: &str| Err(format!("{}: {}: {what}", self.address, file.name));
        // Not connected, so that ICMP errors are ignored.
        let socket = UdpSocket::bind((self.address, 0)).map_err(|error| error.to_string())?;
        let (mut packet, mut to) = (rrq(file.name, &[("blksize", &BLKSIZE.to_string())]), self.server);
        let (mut peer, mut blksize, mut block, mut offset, mut copies) = (None, 512, 0_u16, 0, 0);
        let contents = file.contents.unwrap_or_default();
        let mut buf = [0; 2048];
        let mut timeout = None;
        loop {
            // A lost packet and one that cannot be sent are the same to a board.
            let _ = socket.send_to(&packet, to);
            let Some(mut left) = wait(copies) else { return Ok(false) };
            let deadline = Instant::now() + left;
            // Until there is something to send.
            packet = loop {
                if timeout != Some(left) {
                    socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a timeout");
                    timeout = Some(left);
                }
                let (len, from) = match socket.recv_from(&mut buf) {
                    Ok(received) => received,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        copies += 1;
                        break packet;
                    }
                    Err(error) => return failed(&error.to_string()),
                };
                if from.ip() != self.server.ip() {
                    return failed(&format!("a reply from {from} instead of {}", self.server.ip()));
                }
                if peer.is_some_and(|peer| peer != from) {
                    continue;
                }
                peer = Some(from);
                to = from;
                match &buf[..len] {
                    [0, 3, high, low, data @ ..] if u16::from_be_bytes([*high, *low]) == block.wrapping_add(1) => {
                        let end = offset + data.len();
                        if contents.get(offset..end) != Some(data) {
                            return failed("other contents");
                        }
                        (block, offset, copies) = (block.wrapping_add(1), end, 0);
                        self.loaded.fetch_add(data.len() as u64, Relaxed);
                        if data.len() < blksize {
                            // If this ACK is lost, the server repeats the block in vain.
                            let _ = socket.send_to(&ack(block), to);
                            return if end == contents.len() { Ok(true) } else { failed("only a part") };
                        }
                        break ack(block);
                    }
                    [0, 6, ..] if block == 0 => {
                        blksize = BLKSIZE;
                        break ack(0);
                    }
                    [0, 5, ..] => return Ok(false),
                    // A copy of an earlier packet. iPXE acknowledges it, and waits anew; the others do not wait longer.
                    _ if self.firmware == BoardFirmware::Ipxe => break packet,
                    _ => left = deadline.saturating_duration_since(Instant::now()),
                }
            };
        }
    }
}

/// Returns the percentile `part` (0 to 1) of some durations in seconds.
pub fn percentile(durations: impl IntoIterator<Item = Duration>, part: f64) -> f64 {
    let mut durations: Vec<_> = durations.into_iter().collect();
    durations.sort();
    let index = (durations.len() as f64 * part).ceil() as usize;
    durations.get(index.saturating_sub(1)).map_or(f64::NAN, Duration::as_secs_f64)
}
