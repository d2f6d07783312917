//! The proof that ACKs answer the blocks that were sent, for a port where anyone can forge them.
//!
//! Forged ACKs are sent blindly: their sender does not see the blocks. So after each ACK the next window is held back for a random
//! time. A real client answers as long after the window as always; forged ACKs come as long after the window before. A client has
//! proved itself once most of the last [`SAMPLES`] round trips are about equal. An ACK that comes before its window is forged.
//!
//! Until then it gets few windows: the first [`FREE_BYTES`] at once, which is enough for small files, then [`MAX_WINDOWS`], and then
//! [`BYTES_PER_SECOND`].

use core::time::Duration;

use crate::time::{Instant, micros};

/// The number of bytes that are sent without holding a window back.
const FREE_BYTES: u64 = 256 << 10;
/// The longest time for which a window is held back, in microseconds, while a client proves itself.
const MAX_HOLD: u64 = 8_000;
/// The number of round trips that are compared.
const SAMPLES: usize = 16;
/// The number of these that must lie within [`BAND`]. Forged ACKs do so once in 6,000 times.
const EQUAL: usize = 13;
/// The difference of round trips that are about equal, in microseconds: a quarter of [`MAX_HOLD`].
const BAND: u32 = 2_000;
/// The number of windows, a few of them with losses, in which a real client proves itself.
const MAX_WINDOWS: usize = SAMPLES + 4;
/// The rate for a client that has not proved itself after [`MAX_WINDOWS`].
const BYTES_PER_SECOND: u64 = 512 << 10;

/// A client that must prove itself.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Challenge {
    /// The state of the random number generator (xorshift), not 0.
    random: u64,
    /// The last round trips, in microseconds.
    round_trips: [u32; SAMPLES],
    /// The number of round trips so far, and that of windows.
    count: usize,
    windows: usize,
    /// The earliest time for the next window.
    release: Instant,
}

impl Challenge {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed | 1, round_trips: [0; SAMPLES], count: 0, windows: 0, release: Instant::from_micros(0) }
    }

    /// Returns the earliest time for the next window.
    pub(crate) fn release(&self) -> Instant {
        self.release
    }

    /// Records an ACK for which the client has received `bytes` in all, and the round trip that it measures, if it does. `window` is the
    /// number of bytes of a window. Returns whether the client has proved itself.
    pub(crate) fn record(&mut self, now: Instant, round_trip: Option<Duration>, bytes: u64, window: u64) -> bool {
        if bytes < FREE_BYTES {
            return false;
        }
        if let Some(round_trip) = round_trip.filter(|_| self.release > Instant::from_micros(0)) {
            let index = self.count % SAMPLES;
            if let Some(sample) = self.round_trips.get_mut(index) {
                *sample = u32::try_from(micros(round_trip)).unwrap_or(u32::MAX);
            }
            self.count = self.count.saturating_add(1);
            if self.count >= SAMPLES && self.most_are_equal() {
                return true;
            }
        }
        self.windows = self.windows.saturating_add(1);
        let mut hold = self.random() % MAX_HOLD;
        if self.windows > MAX_WINDOWS {
            hold = hold.saturating_add(window.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        }
        self.release = now.after(Duration::from_micros(hold));
        false
    }

    /// Records an ACK of a block of the next window while that is held back: it is forged.
    pub(crate) fn record_forged(&mut self) {
        (self.count, self.windows) = (0, MAX_WINDOWS);
    }

    fn most_are_equal(&self) -> bool {
        let mut sorted = self.round_trips;
        sorted.sort_unstable();
        let shortest = sorted.iter();
        let longest = sorted.iter().skip(EQUAL.saturating_sub(1));
        shortest.zip(longest).any(|(shortest, longest)| longest.saturating_sub(*shortest) <= BAND)
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 128 << 10;

    /// Returns the number of windows, and the time in microseconds, that a client needs to prove itself. Each ACK comes `interval`
    /// after its window, or after the last ACK if it is forged.
    fn windows(seed: u64, real: bool, interval: u64, limit: u64) -> (u64, u64) {
        let mut challenge = Challenge::new(seed);
        let (mut now, mut sent) = (Instant::from_micros(1_000_000), Instant::from_micros(1_000_000));
        let mut count = 0;
        while now < Instant::from_micros(1_000_000 + limit) {
            now = (if real { sent } else { now }).after(Duration::from_micros(interval));
            if now < sent {
                challenge.record_forged();
                continue;
            }
            count += 1;
            if challenge.record(now, Some(now.since(sent)), FREE_BYTES + count * WINDOW, WINDOW) {
                break;
            }
            sent = challenge.release();
        }
        (count, now.as_micros() - 1_000_000)
    }

    #[test]
    fn real_client_proves_itself_soon() {
        for round_trip in [10, 300, 20_000] {
            for seed in 1..200 {
                let (count, time) = windows(seed, true, round_trip, 60_000_000);
                assert_eq!(count, SAMPLES as u64 + 1, "a round trip of {round_trip} us");
                assert!(time <= SAMPLES as u64 * (MAX_HOLD + round_trip) + round_trip, "{time} us");
            }
        }
    }

    #[test]
    fn forged_acks_bring_few_windows() {
        for interval in [2_000, 8_000, 20_000, 100_000, 300_000] {
            let counts = (1..500).map(|seed| windows(seed * 7919, false, interval, 3_000_000));
            let proved = counts.clone().filter(|(_, time)| *time < 2_900_000).count();
            let most = counts.map(|(count, _)| count).max();
            std::println!(
                "an ACK each {interval} us: at most {most:?} windows in 3 s, {proved} of 499 prove themselves"
            );
            assert!(proved <= 10 && most <= Some(40), "{interval} us: {most:?} windows, {proved} of 499");
        }
    }

    #[test]
    fn small_files_are_not_held_back() {
        let mut challenge = Challenge::new(1);
        assert!(!challenge.record(Instant::from_micros(5), Some(Duration::ZERO), FREE_BYTES - 1, WINDOW));
        assert_eq!(challenge.release(), Instant::from_micros(0));
    }
}
