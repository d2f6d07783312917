//! One direction of a simulated network.

use super::file::{MARK, Rng};

/// The properties of one direction. The default delivers every datagram at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// The least time that a datagram takes, in microseconds.
    pub delay: u64,
    /// The largest extra time, in microseconds. It keeps the order.
    pub jitter: u64,
    /// The probability that a datagram is lost.
    pub loss: f64,
    /// The probability that a datagram starts a burst, in which everything is lost.
    pub burst: f64,
    /// The longest duration of a burst, in microseconds.
    pub burst_length: u64,
    /// The probability that a datagram arrives twice.
    pub duplicate: f64,
    /// The probability that a datagram takes up to twice as long, so that others overtake it.
    pub reorder: f64,
    /// The time that the bottleneck takes for one datagram, in microseconds.
    pub service: u64,
    /// The length of the queue at the bottleneck, in datagrams; others are lost. 0 means no limit.
    pub queue: u64,
}

/// The datagrams of one direction, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams lost at random or in a burst.
    pub lost: u64,
    /// Datagrams that found the queue full.
    pub overflowed: u64,
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Wire {
    link: Link,
    rng: Rng,
    /// When the queue of the bottleneck is empty, in microseconds.
    busy_until: u64,
    /// The end of the current burst, in microseconds.
    burst_until: u64,
    /// The latest arrival so far, in microseconds.
    latest: u64,
    pub(super) traffic: Traffic,
}

impl Wire {
    pub(super) fn new(link: Link, seed: u64) -> Self {
        Self { link, rng: Rng::new(seed), busy_until: 0, burst_until: 0, latest: 0, traffic: Traffic::default() }
    }

    /// Sends a datagram. Returns its times of arrival: none, one or two.
    pub(super) fn carry(&mut self, now: u64) -> impl Iterator<Item = u64> + use<> {
        self.traffic.sent += 1;
        let first = self.pass(now);
        let again = (first.is_some() && self.rng.chance(self.link.duplicate)).then(|| self.arrival(now)).flatten();
        first.into_iter().chain(again)
    }

    fn pass(&mut self, now: u64) -> Option<u64> {
        if self.rng.chance(self.link.burst) {
            self.burst_until = self.burst_until.max(now + 1 + self.rng.below(self.link.burst_length));
        }
        if now < self.burst_until || self.rng.chance(self.link.loss) {
            self.traffic.lost += 1;
            return None;
        }
        self.arrival(now)
    }

    /// Queues a datagram at the bottleneck.
    fn arrival(&mut self, now: u64) -> Option<u64> {
        let Link { delay, jitter, service, queue, reorder, .. } = self.link;
        let backlog = self.busy_until.saturating_sub(now);
        // One is being worked on; the others wait.
        if queue > 0 && backlog > queue * service {
            self.traffic.overflowed += 1;
            return None;
        }
        self.busy_until = now + backlog + service;
        let arrival = self.busy_until + delay + self.rng.below(jitter + 1);
        if self.rng.chance(reorder) {
            return Some(arrival + self.rng.below(delay + jitter + 1));
        }
        self.latest = self.latest.max(arrival);
        Some(self.latest)
    }
}

/// A datagram in flight. Of a block it keeps only both ends.
#[derive(Debug, Clone)]
pub(super) enum Datagram {
    Short([u8; SHORT], u8),
    Block { header: [u8; 4], len: u32, ends: [u8; 2 * MARK] },
    Long(Box<[u8]>),
}

/// The longest datagram that is kept whole, in bytes: an ACK or the shortest blocks.
const SHORT: usize = 4 + 2 * MARK;

impl Datagram {
    pub(super) fn pack(bytes: &[u8]) -> Self {
        if bytes.len() <= SHORT {
            let mut short = [0; SHORT];
            short[..bytes.len()].copy_from_slice(bytes);
            return Self::Short(short, bytes.len() as u8);
        }
        if !bytes.starts_with(b"\x00\x03") {
            return Self::Long(bytes.into());
        }
        let mut ends = [0; 2 * MARK];
        ends[..MARK].copy_from_slice(&bytes[4..4 + MARK]);
        ends[MARK..].copy_from_slice(&bytes[bytes.len() - MARK..]);
        Self::Block { header: [bytes[0], bytes[1], bytes[2], bytes[3]], len: bytes.len() as u32, ends }
    }

    /// Returns the datagram, except the inside of a block. `scratch` must take the largest datagram.
    pub(super) fn unpack<'a>(&'a self, scratch: &'a mut [u8]) -> &'a [u8] {
        match self {
            Self::Short(bytes, len) => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
            Self::Block { header, len, ends } => {
                let datagram = &mut scratch[..*len as usize];
                let tail = datagram.len() - MARK;
                datagram[..4].copy_from_slice(header);
                datagram[tail..].copy_from_slice(&ends[MARK..]);
                datagram[4..4 + MARK].copy_from_slice(&ends[..MARK]);
                datagram
            }
        }
    }
}
