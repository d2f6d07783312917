//! The boots of one client: requests that follow each other closely.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use rtftp_core::Instant;

use super::{
    boot_metrics::BootMetrics,
    request::{Record, most_relevant},
    snapshot::{self, Mount, MountState, Protocol, State},
    wall_clock::WallClock,
};
use crate::{last_seen::LastSeen, text::EscapedName};

/// A request after this long without a packet from the client starts a new boot.
const BOOT_GAP: Duration = Duration::from_secs(30);
/// A request for the boot's first file after this long without a packet starts a new boot: no board resets faster. Without a gap it
/// belongs to the same boot, since boards query the size of their first file, request another, and come back for the first.
const MIN_RESET_GAP: Duration = Duration::from_secs(3);
/// The number of boots that are kept of a client.
pub(super) const MAX_BOOTS: usize = 4;
/// The number of records that are kept of a boot whose client is verified.
pub(super) const MAX_VERIFIED_RECORDS: usize = 64;
/// The number of records that are kept of a boot whose client is not verified.
pub(super) const MAX_UNVERIFIED_RECORDS: usize = 32;

/// The last boots of a client, the newest first.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) boots: VecDeque<Boot>,
    /// The time of the client's last packet after a request.
    seen: Arc<LastSeen>,
    /// Whether it is known to be one that the owner has described.
    is_known: bool,
}

/// The requests of one boot.
#[derive(Debug)]
pub(super) struct Boot {
    /// The time of the first request, also if its record is not there.
    began: Instant,
    /// The first request. A board that resets repeats it.
    first: Arc<Record>,
    /// The time of the last request or copy of a request.
    last_request: Instant,
    /// The last requests, the oldest first.
    records: Vec<Arc<Record>>,
    /// The number of records at the start that are known to be verified.
    verified: usize,
    /// The number of requests whose records were dropped.
    dropped: u64,
    /// What the disk has shown after it.
    mount: Option<Mount>,
    /// Whether the boot is counted in the metrics.
    is_counted: bool,
}

impl Client {
    /// Adds a request to the present boot or to a new one, and counts the boot that a new one ends.
    pub(super) fn record_request(
        &mut self,
        protocol: Protocol,
        file_name: &[u8],
        now: Instant,
        metrics: &BootMetrics,
    ) -> Arc<Record> {
        let record = Arc::new(Record::new(protocol, file_name, now, self.seen.clone()));
        let gap = self.last_seen().map_or(Duration::MAX, |last_seen| now.since(last_seen));
        match self.boots.front_mut() {
            Some(boot) if !boot.ends_before(&record, gap) => boot.push(record.clone(), now),
            last => {
                last.into_iter().for_each(|ended| ended.count(metrics));
                self.boots.push_front(Boot::new(record.clone(), now));
                self.drop_excess();
            }
        }
        record
    }

    /// Adds a finished request of an earlier run to the boot that began then.
    pub(super) fn restore(&mut self, began: Instant, create: impl FnOnce(Arc<LastSeen>) -> Record) {
        let record = Arc::new(create(self.seen.clone()));
        if let Some(seen) = record.last_seen().filter(|seen| self.seen.last() < Some(*seen)) {
            self.seen.record(seen);
        }
        let Some(boot) = self.boots.iter_mut().find(|boot| boot.began == began) else {
            let index = self.boots.partition_point(|boot| boot.began > began);
            let received = record.received();
            self.boots.insert(index, Boot { began, ..Boot::new(record, received) });
            return self.drop_excess();
        };
        boot.restore(record);
    }

    /// Adds the boots of an earlier run, which are older. Those that have ended were counted then.
    pub(super) fn add_restored(&mut self, mut earlier: Self, now: Instant) {
        earlier.boots.iter_mut().for_each(|boot| boot.is_counted = boot.has_ended(now));
        if self.boots.is_empty() {
            *self = earlier;
        } else {
            self.boots.extend(earlier.boots);
            (0..MAX_BOOTS).for_each(|_| self.drop_excess());
        }
    }

    /// Drops a boot if there are too many, the newest one last.
    fn drop_excess(&mut self) {
        if self.boots.len() > MAX_BOOTS {
            // An unverified boot goes first: anyone can forge its requests.
            let unverified = self.boots.iter().skip(1).rposition(|boot| !boot.is_verified());
            self.boots.remove(unverified.map_or(self.boots.len() - 1, |index| index + 1));
        }
    }

    /// Returns the boot that began then.
    pub(super) fn boot_mut(&mut self, began: Instant) -> Option<&mut Boot> {
        self.boots.iter_mut().find(|boot| boot.began == began)
    }

    /// Returns the newest boot.
    pub(super) fn last_boot_mut(&mut self) -> Option<&mut Boot> {
        self.boots.front_mut()
    }

    /// Returns the time of the client's last packet.
    pub(super) fn last_seen(&self) -> Option<Instant> {
        self.boots.front().map(|boot| self.seen.last().map_or(boot.last_request, |seen| seen.max(boot.last_request)))
    }

    /// Returns whether the client has answered.
    pub(super) fn is_verified(&self) -> bool {
        self.seen.is_verified()
    }

    /// Returns whether the client was once [compacted](Self::compact).
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns the name of the directory or the disk of the client or of its group from which it was last served.
    pub(super) fn own_root(&self) -> Option<&str> {
        let mut origins = self.boots.front()?.records().rev().filter_map(Record::origin);
        let origin = origins.find(|origin| !matches!(*origin, "default/" | "default.nbd"))?;
        origin.strip_suffix('/').or_else(|| origin.strip_suffix(".nbd"))
    }

    /// Keeps of a known board only the last boot with one request, in as little memory as possible. If its disk was not mounted after
    /// that, an earlier boot after which it was mounted is kept, too: only both together show a problem.
    pub(super) fn compact(&mut self) {
        self.is_known = true;
        let is = |boot: &Boot, state: fn(MountState) -> bool| boot.mount().is_some_and(|mount| state(mount.state));
        let is_unmounted = self.boots.front().is_some_and(|boot| is(boot, |state| state == MountState::Unchanged));
        let mounted = self.boots.iter().rposition(|boot| is(boot, |state| state > MountState::Unchanged));
        let earlier = mounted.filter(|_| is_unmounted).and_then(|index| self.boots.remove(index));
        self.boots.truncate(1);
        self.boots.extend(earlier);
        self.boots.shrink_to_fit();
        self.boots.iter_mut().for_each(Boot::compact);
    }
}

impl Boot {
    fn new(first: Arc<Record>, now: Instant) -> Self {
        first.set_boot_began(first.received());
        Self {
            began: first.received(),
            first: first.clone(),
            last_request: now,
            records: vec![first],
            verified: 0,
            dropped: 0,
            mount: None,
            is_counted: false,
        }
    }

    /// Returns the time of the first request.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Returns the number of records.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns the records, the oldest first.
    pub(super) fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter().map(Arc::as_ref)
    }

    /// Returns whether this request, after such a gap without a packet, belongs to the next boot.
    fn ends_before(&self, record: &Record, gap: Duration) -> bool {
        let requested_other_files = || self.records.last().is_some_and(|last| !last.has_same_name(&self.first));
        gap >= BOOT_GAP || gap >= MIN_RESET_GAP && record.has_same_name(&self.first) && requested_other_files()
    }

    /// Adds a record.
    fn push(&mut self, record: Arc<Record>, now: Instant) {
        record.set_boot_began(self.began);
        self.last_request = now;
        self.make_room();
        self.records.push(record);
    }

    /// Adds a request of an earlier run, in the order of time.
    fn restore(&mut self, record: Arc<Record>) {
        self.make_room();
        self.last_request = self.last_request.max(record.received());
        if record.received() < self.first.received() {
            self.first = record.clone();
        }
        let index = self.records.partition_point(|other| other.received() <= record.received());
        self.records.insert(index, record);
        self.verified = self.verified.min(index);
    }

    /// Drops a record if there are too many: the oldest one that the client never answered, or else the oldest.
    fn make_room(&mut self) {
        let limit = if self.is_verified() { MAX_VERIFIED_RECORDS } else { MAX_UNVERIFIED_RECORDS };
        if self.records.len() >= limit {
            let unknown = self.records.iter().skip(self.verified);
            self.verified += unknown.take_while(|record| record.is_verified()).count();
            if self.verified == self.records.len() {
                self.records.remove(0);
                self.verified -= 1;
            } else {
                self.records.remove(self.verified);
            }
            self.dropped += 1;
        }
    }

    /// Keeps only the request that the summary is about.
    fn compact(&mut self) {
        let count = self.records.len() as u64;
        if let Some(kept) = most_relevant(self.records.drain(..)) {
            self.dropped += count - 1;
            (self.first, self.records, self.verified) = (kept.clone(), vec![kept], 0);
        }
    }

    /// Counts a copy of a request that is being answered.
    pub(super) fn record_copy(&mut self, file_name: &[u8], now: Instant) {
        self.last_request = now;
        let name = EscapedName(file_name).to_string();
        let is_copied = |record: &&Arc<Record>| record.finished().is_none() && record.has_name(&name);
        if let Some(record) = self.records.iter().rev().find(is_copied) {
            record.note_copy();
        }
    }

    /// Removes a record if it is that of a copy: an earlier request from the same port was complete. Returns whether it was.
    pub(super) fn remove_copy(&mut self, record: &Arc<Record>) -> bool {
        let Some(index) = self.records.iter().rposition(|other| Arc::ptr_eq(other, record)) else { return false };
        let is_copied = |other: &&Arc<Record>| other.state() == Some(State::Complete) && other.is_repeated_by(record);
        let Some(copied) = self.records[..index].iter().rev().find(is_copied) else { return false };
        copied.note_copy();
        self.records.remove(index);
        true
    }

    /// Returns what the disk has shown.
    pub(super) fn mount(&self) -> Option<&Mount> {
        self.mount.as_ref()
    }

    /// Records what the disk has shown. Returns `false` if more is known already.
    pub(super) fn set_mount(&mut self, mount: Mount) -> bool {
        let known = self.mount.as_ref().map(|mount| mount.state);
        let is_news = known.is_none_or(|known| known <= MountState::Unchanged || mount.state > known);
        if is_news {
            self.mount = Some(mount);
        }
        is_news
    }

    /// Returns the time of the client's last packet.
    pub(super) fn last_seen(&self) -> Instant {
        self.records().filter_map(Record::last_seen).fold(self.last_request, Instant::max)
    }

    /// Returns whether no request of the boot is being answered, and no further one will belong to it.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        now.since(self.last_seen()) >= BOOT_GAP && self.records().all(|record| record.finished().is_some())
    }

    /// Counts the boot, which has ended. Has no effect the second time, and for a client that never answered: anyone can forge its
    /// requests.
    pub(super) fn count(&mut self, metrics: &BootMetrics) {
        if mem::replace(&mut self.is_counted, true) || !self.is_verified() {
            return;
        }
        let has_delivered = self.records().any(|record| record.state() == Some(State::Complete));
        let duration = has_delivered.then(|| self.last_seen().since(self.began));
        // A board that starts again in the middle of a file has not booted.
        let state = self.records.last().and_then(|record| record.state()).unwrap_or(State::Failed);
        metrics.add(state, duration);
    }

    /// Returns whether the client answered.
    pub(super) fn is_verified(&self) -> bool {
        self.records().any(Record::is_verified)
    }

    pub(super) fn snapshot(&self, now: WallClock) -> snapshot::Boot {
        snapshot::Boot {
            began: now.to_unix(self.began),
            last: now.to_unix(self.last_seen()),
            more: self.dropped,
            files: self.records().map(|record| record.snapshot(now)).collect(),
            mount: self.mount.clone(),
        }
    }
}
