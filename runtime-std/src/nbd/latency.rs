//! The latency of reads.

use crate::histogram::Histogram;

/// The times from sending read requests to the ends of their replies, of all connections of this process.
pub(crate) static READ_LATENCY: Histogram = Histogram::of_durations(&[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
]);
