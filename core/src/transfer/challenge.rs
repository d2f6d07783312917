//! The proof that ACKs answer the blocks that were sent, for a port where anyone can forge them.
//!
//! Forged ACKs are sent blindly: their sender does not see the blocks. So after each ACK the next window is held back for a random
//! time. A real client answers as long after the window as always; forged ACKs come as long after the last ACK. A client has proved
//! itself once most of the last [`SAMPLES`] round trips are about equal, while the intervals between its ACKs are not. An ACK that
//! comes before its window is forged.
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
/// The number of these that are most of them. Random times do not lie within [`BAND`] so often but once in 6,000 times.
const MOST: usize = 13;
/// The unit of the times that are compared, in microseconds. So the longest time is 4 s.
const UNIT: u64 = 64;
/// The difference of times that are about equal, in units: 2 ms, a quarter of [`MAX_HOLD`].
const BAND: u16 = 31;
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
    /// The last round trips, and the intervals between the last ACKs and those before them, in units.
    round_trips: [u16; SAMPLES],
    intervals: [u16; SAMPLES],
    /// When the last ACK came.
    last_ack: Instant,
    /// The number of round trips so far, and that of windows.
    count: usize,
    windows: usize,
    /// The earliest time for the next window.
    release: Instant,
}

impl Challenge {
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::from_micros(0);
        let times = [0; SAMPLES];
        Self {
            random: seed | 1,
            round_trips: times,
            intervals: times,
            last_ack: start,
            count: 0,
            windows: 0,
            release: start,
        }
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
            let interval = now.since(self.last_ack);
            for (samples, time) in [(&mut self.round_trips, round_trip), (&mut self.intervals, interval)] {
                if let Some(sample) = samples.get_mut(index) {
                    *sample = u16::try_from(micros(time) / UNIT).unwrap_or(u16::MAX);
                }
            }
            self.count = self.count.saturating_add(1);
            if self.count >= SAMPLES && most_are_equal(self.round_trips) && !most_are_equal(self.intervals) {
                return true;
            }
        }
        self.last_ack = now;
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

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Returns whether [`MOST`] of `times` lie within [`BAND`].
fn most_are_equal(mut times: [u16; SAMPLES]) -> bool {
    times.sort_unstable();
    let shortest = times.iter();
    let longest = times.iter().skip(MOST.saturating_sub(1));
    shortest.zip(longest).any(|(shortest, longest)| longest.saturating_sub(*shortest) <= BAND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 128 << 10;

    /// Returns the number of windows, and the time in microseconds, that a client needs to prove itself. Each ACK comes `interval` and
    /// up to `jitter` after its window, or after the last ACK if it is forged.
    fn windows(seed: u64, real: bool, (interval, jitter): (u64, u64), limit: u64) -> (u64, u64) {
        let (mut challenge, mut random) =
            (Challenge::new(seed), Challenge::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let (mut now, mut sent) = (Instant::from_micros(1_000_000), Instant::from_micros(1_000_000));
        let mut count = 0;
        while now < Instant::from_micros(1_000_000 + limit) {
            let wait = interval + random.random() % (jitter + 1);
            now = (if real { sent } else { now }).after(Duration::from_micros(wait));
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
            let counts = (1..500).map(|seed| windows(seed, true, (round_trip, MAX_HOLD / 4), 60_000_000));
            for (count, time) in counts.clone() {
                assert!(count <= SAMPLES as u64 + 3, "{count} windows with a round trip of {round_trip} us");
                assert!(time <= count * (MAX_HOLD + round_trip + MAX_HOLD / 4), "{time} us");
            }
            let soonest = counts.filter(|(count, _)| *count == SAMPLES as u64 + 1).count();
            assert!(soonest >= 495, "{soonest} of 499 with a round trip of {round_trip} us");
        }
    }

    /// Before the intervals were compared, forged ACKs at one interval proved themselves once in some hundred transfers.
    #[test]
    fn forged_acks_bring_few_windows() {
        for interval in [2_000, 8_000, 20_000, 100_000, 300_000] {
            for jitter in [0, 1_000, 4_000, MAX_HOLD] {
                let counts = (1..5_000).map(|seed| windows(seed * 7919, false, (interval, jitter), 3_000_000));
                let proved = counts.clone().filter(|(_, time)| *time < 2_900_000).count();
                let most = counts.map(|(count, _)| count).max();
                assert!(
                    proved == 0 && most <= Some(40),
                    "{interval} us and {jitter}: {most:?} windows, {proved} proved"
                );
            }
        }
    }

    #[test]
    fn small_files_are_not_held_back() {
        let mut challenge = Challenge::new(1);
        assert!(!challenge.record(Instant::from_micros(5), Some(Duration::ZERO), FREE_BYTES - 1, WINDOW));
        assert_eq!(challenge.release(), Instant::from_micros(0));
    }
}
