//! One request of a boot, as the record keeps it: written by its session without a lock, read by whoever asks.

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rtftp_core::{Instant, wire::options::Settings};

use super::snapshot::{self, State, Wall};
use crate::{files::store::Origin, last_seen::LastSeen, text::EscapedName};

/// The longest reason that is kept, in characters.
const REASON: usize = 300;

/// A request and what came of it so far.
#[derive(Debug)]
pub(crate) struct File {
    name: Box<[u8]>,
    began: Instant,
    origin: OnceLock<Origin>,
    sending: OnceLock<Sending>,
    end: OnceLock<End>,
    heard: LastSeen,
    /// When the client last acknowledged more than before.
    moved: AtomicU64,
    acknowledged: AtomicU64,
    retransmitted: AtomicU64,
    copies: AtomicU32,
}

/// How an open file is sent.
#[derive(Debug)]
pub(crate) struct Sending {
    /// In bytes, if it is known.
    pub(crate) size: Option<u64>,
    pub(crate) settings: Settings,
    /// How old the view of the disk was that the file was opened in.
    pub(crate) view_age: Option<Duration>,
}

#[derive(Debug)]
struct End {
    state: State,
    why: Option<Box<str>>,
    at: Instant,
}

impl File {
    /// A request that came now.
    pub(super) fn new(name: &[u8], now: Instant) -> Self {
        Self {
            name: EscapedName::kept(name).into(),
            began: now,
            origin: OnceLock::new(),
            sending: OnceLock::new(),
            end: OnceLock::new(),
            heard: LastSeen::default(),
            moved: AtomicU64::new(now.as_micros()),
            acknowledged: AtomicU64::new(0),
            retransmitted: AtomicU64::new(0),
            copies: AtomicU32::new(0),
        }
    }

    /// Which root the file is from, or which one it was not to be had of.
    pub(super) fn from(&self, origin: Origin) {
        let _ = self.origin.set(origin);
    }

    /// It is open and is being sent.
    pub(super) fn sent_as(&self, now: Instant, sending: Sending) {
        self.moved.store(now.as_micros(), Relaxed);
        let _ = self.sending.set(sending);
    }

    /// A datagram of the client has come. Costs a few stores: it is called for each of them.
    pub(super) fn heard(&self, now: Instant) {
        self.heard.record(now);
    }

    /// How far the transfer is.
    pub(super) fn reached(&self, now: Instant, acknowledged: u64, retransmitted: u64) {
        // Nobody else writes it.
        if self.acknowledged.load(Relaxed) != acknowledged {
            self.acknowledged.store(acknowledged, Relaxed);
            self.moved.store(now.as_micros(), Relaxed);
        }
        self.retransmitted.store(retransmitted, Relaxed);
    }

    /// The client has repeated its request.
    pub(super) fn repeated(&self) {
        self.copies.fetch_add(1, Relaxed);
    }

    /// It is over; what is said of its end after that does not count. Returns whether this was the first word.
    pub(super) fn end(&self, now: Instant, state: State, why: Option<&str>) -> bool {
        self.end.set(End { state, why: why.map(harmless), at: now }).is_ok()
    }

    /// Whether its name, as far as names are kept, is that of another request.
    pub(super) fn is_named_as(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Whether this is its name.
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        *self.name == *EscapedName::kept(name)
    }

    /// How many bytes were acknowledged, and how many packets sent once more.
    pub(super) fn sent(&self) -> (u64, u64) {
        (self.acknowledged.load(Relaxed), self.retransmitted.load(Relaxed))
    }

    /// When the request came.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// When the client last answered, if it has; until then its address may be forged.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.heard.last()
    }

    /// When the client last acknowledged more than before, or else when the file was opened, or asked for.
    pub(super) fn last_moved(&self) -> Instant {
        Instant::from_micros(self.moved.load(Relaxed))
    }

    /// Whether it has been opened and is sent.
    pub(super) fn is_open(&self) -> bool {
        self.sending.get().is_some()
    }

    /// When it was over, if it is.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.end.get().map(|end| end.at)
    }

    /// As it is now.
    pub(super) fn snapshot(&self, now: Wall) -> snapshot::File {
        let (end, sending) = (self.end.get(), self.sending.get());
        let until = end.map_or(now.instant(), |end| end.at);
        let settings = sending.map(|sending| sending.settings);
        snapshot::File {
            name: EscapedName(&self.name).to_string(),
            origin: self.origin.get().map(Origin::to_string),
            state: end.map_or(State::Running, |end| end.state),
            why: end.and_then(|end| end.why.as_deref().map(str::to_owned)),
            began: now.of(self.began),
            seconds: until.since(self.began).as_secs_f64(),
            size: sending.and_then(|sending| sending.size),
            acknowledged: self.acknowledged.load(Relaxed),
            retransmitted: self.retransmitted.load(Relaxed),
            copies: self.copies.load(Relaxed).into(),
            blksize: settings.map_or(0, |settings| settings.blksize),
            windowsize: settings.map_or(0, |settings| settings.windowsize),
            view_age: sending.and_then(|sending| sending.view_age).map(|age| age.as_secs_f64()),
        }
    }

    /// The client it would be a file of in the line of an event.
    pub(super) fn event(&self, client: IpAddr, now: Wall) -> snapshot::Event {
        snapshot::Event { client: client.to_string(), file: self.snapshot(now) }
    }
}

/// A reason without what could harm a terminal or fill memory: a server's own words may be in it.
fn harmless(reason: &str) -> Box<str> {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON).collect()
}
