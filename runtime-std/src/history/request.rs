//! The record of one request: updated by its session without a lock, read by snapshots at any time.

use std::{
    borrow::Borrow,
    fmt,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rtftp_core::Instant;

use super::{
    snapshot::{self, Protocol, State},
    wall_clock::WallClock,
};
use crate::{
    last_seen::LastSeen,
    text::{EscapedName, printable_within},
};

/// Longer reasons are cut off, in characters.
const MAX_REASON_CHARS: usize = 300;

/// The record of one request.
#[derive(Debug)]
pub(crate) struct Record {
    /// The requested name as it is displayed.
    name: Box<str>,
    protocol: Protocol,
    received: Instant,
    /// The time of the boot's first request.
    boot_began: OnceLock<Instant>,
    origin: OnceLock<Box<str>>,
    boot_entry: OnceLock<Box<str>>,
    transfer: OnceLock<TransferStart>,
    end: OnceLock<End>,
    last_seen: LastSeen,
    /// The same for all requests of the client.
    client_seen: Arc<LastSeen>,
    /// The time at which `acknowledged` last increased, in microseconds of the clock.
    last_progress: AtomicU64,
    acknowledged: AtomicU64,
    retransmitted: AtomicU64,
    copies: AtomicU32,
}

/// The settings with which a transfer starts.
#[derive(Debug)]
pub(crate) struct TransferStart {
    /// The size of the file in bytes, if it is known.
    pub(crate) size: Option<u64>,
    /// The size of a block in bytes.
    pub(crate) block_size: u16,
    /// The number of blocks in a window.
    pub(crate) window_size: u16,
    /// The age of the disk's snapshot, for a file on a disk.
    pub(crate) snapshot_age: Option<Duration>,
    /// The client's port of a TFTP transfer; 0 if it is not known.
    pub(crate) client_port: u16,
}

#[derive(Debug)]
struct End {
    state: State,
    reason: Option<Box<str>>,
    at: Instant,
}

impl Record {
    /// Creates the record of a request received now. `client_seen` is shared by all requests of the client.
    pub(super) fn new(protocol: Protocol, file_name: &[u8], now: Instant, client_seen: Arc<LastSeen>) -> Self {
        Self {
            name: EscapedName(file_name).to_string().into(),
            protocol,
            received: now,
            boot_began: OnceLock::new(),
            origin: OnceLock::new(),
            boot_entry: OnceLock::new(),
            transfer: OnceLock::new(),
            end: OnceLock::new(),
            last_seen: LastSeen::default(),
            client_seen,
            last_progress: AtomicU64::new(now.as_micros()),
            acknowledged: AtomicU64::new(0),
            retransmitted: AtomicU64::new(0),
            copies: AtomicU32::new(0),
        }
    }

    /// Creates the record of a request of an earlier run that was received then. `seen` is the time of the client's last answer.
    pub(super) fn restored(
        file: snapshot::File,
        received: Instant,
        seen: Option<Instant>,
        client_seen: Arc<LastSeen>,
    ) -> Self {
        let record = Self { name: file.name.into(), ..Self::new(file.protocol, b"", received, client_seen) };
        file.origin.into_iter().for_each(|origin| record.set_origin(origin));
        file.boot_entry.into_iter().for_each(|title| record.set_boot_entry(&title));
        if file.blksize > 0 {
            let snapshot_age = file.snapshot_age.and_then(|age| Duration::try_from_secs_f64(age).ok());
            let (block_size, window_size) = (file.blksize, file.windowsize);
            let start = TransferStart { size: file.size, block_size, window_size, snapshot_age, client_port: 0 };
            record.start_transfer(received, start);
        }
        seen.into_iter().for_each(|seen| record.last_seen.record(seen));
        record.note_progress(seen.unwrap_or(received), file.acknowledged, file.retransmitted);
        record.copies.store(u32::try_from(file.copies).unwrap_or(u32::MAX), Relaxed);
        let seconds = Duration::try_from_secs_f64(file.seconds).unwrap_or_default();
        record.finish(received.after(seconds), file.state, file.why.as_deref());
        record
    }

    /// Records the time of the boot's first request.
    pub(super) fn set_boot_began(&self, began: Instant) {
        let _ = self.boot_began.set(began);
    }

    /// Returns the time of the boot's first request.
    pub(super) fn boot_began(&self) -> Instant {
        *self.boot_began.get().unwrap_or(&self.received)
    }

    /// Records the root in which the file was found, or could not be read.
    pub(super) fn set_origin(&self, origin: impl fmt::Display) {
        let _ = self.origin.set(origin.to_string().into());
    }

    /// Returns the root in which the file was found, or could not be read.
    pub(super) fn origin(&self) -> Option<&str> {
        self.origin.get().map(AsRef::as_ref)
    }

    /// Records the title of the boot entry whose kernel the file is.
    pub(super) fn set_boot_entry(&self, title: &str) {
        let _ = self.boot_entry.set(title.into());
    }

    /// Records that the file is open and its transfer starts.
    pub(super) fn start_transfer(&self, now: Instant, start: TransferStart) {
        self.last_progress.store(now.as_micros(), Relaxed);
        let _ = self.transfer.set(start);
    }

    /// Records a datagram from the client.
    pub(super) fn note_activity(&self, now: Instant) {
        self.last_seen.record(now);
        self.client_seen.record(now);
    }

    /// Records the progress of the transfer. Returns whether these are the first bytes that the client has acknowledged.
    pub(super) fn note_progress(&self, now: Instant, acknowledged: u64, retransmitted: u64) -> bool {
        // The session is the only writer.
        let before = self.acknowledged.load(Relaxed);
        if before != acknowledged {
            self.acknowledged.store(acknowledged, Relaxed);
            self.last_progress.store(now.as_micros(), Relaxed);
        }
        self.retransmitted.store(retransmitted, Relaxed);
        before == 0 && acknowledged > 0
    }

    /// Counts a copy of the request.
    pub(super) fn note_copy(&self) {
        self.copies.fetch_add(1, Relaxed);
    }

    /// Finishes the request. Returns `false` if it was finished before; then nothing changes.
    pub(super) fn finish(&self, now: Instant, state: State, reason: Option<&str>) -> bool {
        let reason = reason.map(|reason| printable_within(reason, MAX_REASON_CHARS).into());
        self.end.set(End { state, reason, at: now }).is_ok()
    }

    /// Returns whether both requests are for the same file name, as far as names are displayed.
    pub(super) fn has_same_name(&self, other: &Self) -> bool {
        self.has_name(&other.name)
    }

    /// Returns whether the request is for the file name that is displayed like this.
    pub(super) fn has_name(&self, name: &str) -> bool {
        *self.name == *name
    }

    /// Returns whether both are requests for the same file from the same port of the client.
    pub(super) fn is_repeated_by(&self, other: &Self) -> bool {
        let port = |record: &Self| record.transfer.get().map(|transfer| transfer.client_port).filter(|port| *port > 0);
        self.has_same_name(other) && port(self).is_some() && port(self) == port(other)
    }

    /// Returns the requested name as it is displayed.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of acknowledged bytes.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Returns the number of packets that were sent again.
    pub(super) fn retransmitted(&self) -> u64 {
        self.retransmitted.load(Relaxed)
    }

    /// Returns the time of the request.
    pub(super) fn received(&self) -> Instant {
        self.received
    }

    /// Returns the time of the client's last answer, or `None` if it has not answered: then its address may be forged.
    pub(super) fn last_seen(&self) -> Option<Instant> {
        self.last_seen.last()
    }

    /// Returns whether the client has answered.
    pub(super) fn is_verified(&self) -> bool {
        self.last_seen().is_some()
    }

    /// Returns the time at which the client last acknowledged new bytes, or else the file was opened, or else requested.
    pub(super) fn last_progress(&self) -> Instant {
        Instant::from_micros(self.last_progress.load(Relaxed))
    }

    /// Returns whether the file was opened and its transfer started.
    pub(super) fn has_started(&self) -> bool {
        self.transfer.get().is_some()
    }

    /// Returns the size of the file, if it is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.transfer.get()?.size
    }

    /// Returns whether the file is on a disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.transfer.get().is_some_and(|transfer| transfer.snapshot_age.is_some())
    }

    /// Returns the state in which the request was finished.
    pub(super) fn state(&self) -> Option<State> {
        self.end.get().map(|end| end.state)
    }

    /// Returns the time at which the request was finished.
    pub(super) fn finished(&self) -> Option<Instant> {
        self.end.get().map(|end| end.at)
    }

    /// Returns the present state of the request.
    pub(super) fn snapshot(&self, now: WallClock) -> snapshot::File {
        let (end, transfer) = (self.end.get(), self.transfer.get());
        let until = end.map_or(now.instant(), |end| end.at);
        snapshot::File {
            name: self.name.as_ref().to_owned(),
            protocol: self.protocol,
            origin: self.origin.get().map(|origin| origin.as_ref().to_owned()),
            boot_entry: self.boot_entry.get().map(|title| title.as_ref().to_owned()),
            state: end.map_or(State::Running, |end| end.state),
            why: end.and_then(|end| end.reason.as_deref().map(str::to_owned)),
            began: now.to_unix(self.received),
            seconds: until.since(self.received).as_secs_f64(),
            size: transfer.and_then(|transfer| transfer.size),
            acknowledged: self.acknowledged(),
            retransmitted: self.retransmitted(),
            copies: self.copies.load(Relaxed).into(),
            blksize: transfer.map_or(0, |transfer| transfer.block_size),
            windowsize: transfer.map_or(0, |transfer| transfer.window_size),
            snapshot_age: transfer.and_then(|transfer| transfer.snapshot_age).map(|age| age.as_secs_f64()),
            server: None,
        }
    }

    /// Returns the event of the finished request.
    pub(super) fn event(&self, client: IpAddr, now: WallClock) -> snapshot::Event {
        snapshot::Event { client: client.to_string(), file: self.snapshot(now) }
    }
}

/// Returns the request that says most about a boot, given its requests from the oldest to the newest: the newest running one, or else
/// the newest.
pub(super) fn most_relevant<R: Borrow<Record>>(records: impl Iterator<Item = R>) -> Option<R> {
    // The last one of those that are equal.
    records.max_by_key(|record| record.borrow().finished().is_none())
}
