//! The counters of requests since the start of the server.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    request::Record,
    request_metrics::RequestMetrics,
    snapshot::{State, Totals},
};

/// The counters behind [`Totals`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    /// Finished requests, indexed by [`State`].
    finished: [AtomicU64; 6],
    bytes: AtomicU64,
    retransmitted: AtomicU64,
    copies: AtomicU64,
    metrics: RequestMetrics,
}

impl Counters {
    /// Counts a request.
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts a copy of a request that is being answered.
    pub(super) fn count_copy(&self) {
        self.copies.fetch_add(1, Relaxed);
    }

    /// Counts the end of a request.
    pub(super) fn count_finished(&self, state: State, record: &Record) {
        self.finished[state as usize].fetch_add(1, Relaxed);
        self.bytes.fetch_add(record.acknowledged(), Relaxed);
        self.retransmitted.fetch_add(record.retransmitted(), Relaxed);
        self.metrics.finished(record);
    }

    /// Returns the sizes and times of requests.
    pub(super) fn metrics(&self) -> &RequestMetrics {
        &self.metrics
    }

    /// Returns the totals.
    pub(super) fn totals(&self) -> Totals {
        let finished = |state: State| self.finished[state as usize].load(Relaxed);
        let all_finished: u64 = [State::Complete, State::Probe, State::Missing, State::Refused, State::Failed]
            .into_iter()
            .map(finished)
            .sum();
        let requests = self.requests.load(Relaxed);
        Totals {
            requests,
            complete: finished(State::Complete),
            probes: finished(State::Probe),
            missing: finished(State::Missing),
            refused: finished(State::Refused),
            failed: finished(State::Failed),
            bytes: self.bytes.load(Relaxed),
            retransmitted: self.retransmitted.load(Relaxed),
            copies: self.copies.load(Relaxed),
            running: requests.saturating_sub(all_finished),
        }
    }
}
