//! Histograms with fixed buckets, as Prometheus has them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The maximum number of bounds.
const MAX_BOUNDS: usize = 15;

/// Counts values by size. Any thread can add values, without a lock.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// The upper bounds of the buckets, increasing: microseconds or bytes.
    bounds: &'static [u64],
    /// The number that a value is divided by for the unit in which it is published.
    scale: f64,
    /// The number of values in each bucket. The one after the last bound takes all larger values.
    buckets: [AtomicU64; MAX_BOUNDS + 1],
    sum: AtomicU64,
}

/// The contents of a histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// The upper bound of each bucket, in seconds or bytes, and the number of values that are at most as large.
    pub buckets: Vec<(f64, u64)>,
    /// The number of all values.
    pub count: u64,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    /// Creates a histogram of durations with these bounds in microseconds.
    pub(crate) const fn of_durations(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1e6)
    }

    /// Creates a histogram of sizes with these bounds in bytes.
    pub(crate) const fn of_sizes(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1.0)
    }

    const fn new(bounds: &'static [u64], scale: f64) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS, "too many bounds");
        Self { bounds, scale, buckets: [const { AtomicU64::new(0) }; MAX_BOUNDS + 1], sum: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub(crate) fn add_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a value in the unit of the bounds.
    pub(crate) fn add(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(value, Relaxed);
    }

    /// Returns the contents. The counts are consistent with each other; the sum may include a value that is just being added.
    pub(crate) fn read(&self) -> Distribution {
        let mut count = 0;
        let counts = self.buckets.iter().map(|bucket| {
            count += bucket.load(Relaxed);
            count
        });
        let counts: Vec<u64> = counts.collect();
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / self.scale);
        let sum = self.sum.load(Relaxed) as f64 / self.scale;
        Distribution { buckets: bounds.zip(counts).collect(), count, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_value_in_all_buckets_that_are_large_enough() {
        let histogram = Histogram::of_durations(&[1_000, 500_000, 2_000_000]);
        for micros in [0, 1_000, 1_001, 500_000, 3_000_000] {
            histogram.add_duration(Duration::from_micros(micros));
        }
        let Distribution { buckets, count, sum } = histogram.read();
        assert_eq!(buckets, [(0.001, 2), (0.5, 4), (2.0, 4)]);
        assert_eq!(count, 5);
        assert!((sum - 3.502_001).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn an_unused_histogram_has_empty_buckets() {
        let found = Histogram::of_sizes(&[1 << 10, 1 << 20]).read();
        assert_eq!(found, Distribution { buckets: vec![(1024.0, 0), (1_048_576.0, 0)], count: 0, sum: 0.0 });
    }
}
