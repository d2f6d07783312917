//! Figures of boots that have ended: how many, how they ended, and how long they took.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::snapshot::{BootTotals, State};
use crate::histogram::{Distribution, Histogram};

const SECOND: u64 = 1_000_000;

/// The bounds of the durations of boots, in microseconds.
const DURATIONS: &[u64] = &[
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    20 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
    600 * SECOND,
];

/// Counts the boots of verified clients when they have ended.
#[derive(Debug)]
pub(super) struct BootMetrics {
    /// The number of boots by the state of their last request.
    by_last_state: [AtomicU64; 6],
    durations: Histogram,
}

impl Default for BootMetrics {
    fn default() -> Self {
        Self { by_last_state: Default::default(), durations: Histogram::of_durations(DURATIONS) }
    }
}

impl BootMetrics {
    /// Counts a boot with the state of its last request, and its duration if a file was delivered.
    pub(super) fn add(&self, last_state: State, duration: Option<Duration>) {
        self.by_last_state[last_state as usize].fetch_add(1, Relaxed);
        duration.into_iter().for_each(|duration| self.durations.add_duration(duration));
    }

    /// Returns the numbers of boots.
    pub(super) fn totals(&self) -> BootTotals {
        let count = |state: State| self.by_last_state[state as usize].load(Relaxed);
        BootTotals {
            complete: count(State::Complete),
            probe: count(State::Probe),
            missing: count(State::Missing),
            refused: count(State::Refused),
            failed: count(State::Failed),
        }
    }

    /// Returns the durations of boots in which a file was delivered, from the first request to the client's last packet.
    pub(super) fn durations(&self) -> Distribution {
        self.durations.read()
    }
}
