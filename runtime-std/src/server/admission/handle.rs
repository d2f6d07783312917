//! The state that a session, its transfer and the table of sessions share.

use std::{
    fmt::Debug,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rtftp_core::Instant;
use smol::channel::Sender;

use super::{gate::KnownHosts, host::Host};
use crate::{last_seen::LastSeen, net::Route};

/// A copy of a request that arrives within this time of the client's last packet was sent before the client received the first
/// reply.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(1);
/// A client that has sent a packet within this time uses its transfer: another request from its port may be forged.
const ACTIVE_WINDOW: Duration = Duration::from_secs(2);
/// The time without progress after which a session may lose its place, if another client needs it.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The average time between two steps of progress from which a session may lose its place, if another client needs it.
const MAX_GAP: Duration = Duration::from_secs(2);

/// Delivers datagrams to a running transfer.
pub(crate) trait Delivery: Debug + Send + Sync {
    /// Delivers a datagram that has arrived at the shared port, and returns whether the transfer has this route.
    fn deliver(&self, datagram: &[u8], route: Route) -> bool;

    /// Reports that the client has closed its port.
    fn port_closed(&self);

    /// Receives what has arrived by now, and returns whether the transfer has ended.
    fn has_ended(&self) -> bool;
}

/// The state shared by a session and the table.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    pub(super) client: SocketAddr,
    /// The number of the session, in the order of their start.
    pub(super) number: u64,
    last_seen: LastSeen,
    progress: Progress,
    /// Delivers datagrams to the session's transfer, once that runs.
    pub(crate) delivery: OnceLock<Box<dyn Delivery>>,
    /// Ends the client's session before this one, once the client is verified.
    replaces: Mutex<Option<Sender<&'static str>>>,
    /// The reason why the table has ended the session.
    pub(super) end: OnceLock<&'static str>,
    known: Arc<KnownHosts>,
}

impl SessionHandle {
    pub(super) fn new(
        client: SocketAddr,
        number: u64,
        replaces: Option<Sender<&'static str>>,
        known: Arc<KnownHosts>,
    ) -> Self {
        Self {
            client,
            number,
            last_seen: LastSeen::default(),
            progress: Progress::default(),
            delivery: OnceLock::new(),
            replaces: Mutex::new(replaces),
            end: OnceLock::new(),
            known,
        }
    }

    /// Records a packet from the client, and the number of bytes that it has acknowledged. The first one verifies the client.
    pub(crate) fn note(&self, now: Instant, acknowledged: u64) {
        let is_first = !self.is_verified();
        self.last_seen.record(now);
        self.progress.note(now, acknowledged);
        if is_first {
            self.known.insert(Host::of(self.client));
            self.replaces.lock().take().inspect(|stop| _ = stop.close());
        }
    }

    /// Returns whether the client has answered.
    pub(crate) fn is_verified(&self) -> bool {
        self.last_seen.is_verified()
    }

    /// Returns the reason why the table has ended the session, if it has.
    pub(crate) fn end_reason(&self) -> Option<&'static str> {
        self.end.get().copied()
    }

    /// Returns whether a copy of the request can have been sent before the client received a reply, so that it asks for nothing new.
    pub(super) fn explains_copy(&self, now: Instant) -> bool {
        self.last_seen.last().is_none_or(|last| now.since(last) < DUPLICATE_WINDOW)
    }

    /// Returns whether the transfer has ended, with all datagrams that have arrived by now: a further request is a new one.
    pub(super) fn has_ended(&self) -> bool {
        self.delivery.get().is_some_and(|delivery| delivery.has_ended())
    }

    /// Receives what has arrived by now, and returns whether the client is verified by that: under load, its answer waits longest.
    pub(super) fn has_just_answered(&self) -> bool {
        self.has_ended();
        self.is_verified()
    }

    /// Returns whether the client is verified and uses the transfer.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.last_seen.last().is_some_and(|last| now.since(last) < ACTIVE_WINDOW)
    }

    /// Returns the average time between two steps of progress, at least the time since the last one.
    pub(super) fn gap(&self, now: Instant) -> Duration {
        self.progress.gap(now)
    }

    /// Returns whether the session makes less progress than it must, if another client needs its place.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        self.progress.average() >= MAX_GAP || self.progress.pause(now) >= MAX_PAUSE
    }
}

/// The progress of a transfer. Only the transfer writes it.
#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    /// The time of the last step, and the moving average of the time between two, in microseconds.
    last: AtomicU64,
    average: AtomicU64,
}

impl Progress {
    fn note(&self, now: Instant, acknowledged: u64) {
        let (now, last) = (now.as_micros().max(1), self.last.load(Relaxed));
        if last == 0 || self.acknowledged.load(Relaxed) != acknowledged {
            let gap = if last == 0 { 0 } else { now.saturating_sub(last) };
            let average = self.average.load(Relaxed);
            self.average.store(average - average / 8 + gap / 8, Relaxed);
            self.last.store(now, Relaxed);
            self.acknowledged.store(acknowledged, Relaxed);
        }
    }

    fn average(&self) -> Duration {
        Duration::from_micros(self.average.load(Relaxed))
    }

    fn pause(&self, now: Instant) -> Duration {
        now.since(Instant::from_micros(self.last.load(Relaxed)))
    }

    fn gap(&self, now: Instant) -> Duration {
        self.average().max(self.pause(now))
    }
}
