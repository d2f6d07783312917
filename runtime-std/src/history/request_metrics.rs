//! Figures of requests: the sizes of delivered files, and the time until a client has the first data.

use rtftp_core::Instant;

use super::{request::Record, snapshot::State};
use crate::histogram::Histogram;

/// The bounds of file sizes in bytes.
const SIZES: &[u64] =
    &[1 << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30];

/// The bounds of the times until the first data, in microseconds.
const FIRST_DATA: &[u64] = &[
    1_000, 5_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
    60_000_000,
];

/// The histograms of requests.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    pub(super) file_sizes: Histogram,
    pub(super) first_data_local: Histogram,
    pub(super) first_data_disk: Histogram,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            file_sizes: Histogram::of_sizes(SIZES),
            first_data_local: Histogram::of_durations(FIRST_DATA),
            first_data_disk: Histogram::of_durations(FIRST_DATA),
        }
    }
}

impl RequestMetrics {
    /// Adds a request whose client has acknowledged the first data.
    pub(super) fn first_data(&self, record: &Record, now: Instant) {
        let histogram = if record.is_on_disk() { &self.first_data_disk } else { &self.first_data_local };
        histogram.add_duration(now.since(record.received()));
    }

    /// Adds a finished request.
    pub(super) fn finished(&self, record: &Record) {
        if record.state() == Some(State::Complete) {
            self.file_sizes.add(record.size().unwrap_or(record.acknowledged()));
        }
    }
}
