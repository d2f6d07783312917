//! How long to wait before sending again (RFC 6298, RFC 1123 section 4.2.3.2).

use core::time::Duration;

use crate::time::micros;

/// Before anything was measured (RFC 6298 section 2), in microseconds like all that follows.
const INITIAL: u64 = 1_000_000;
/// Never less: a client on a busy processor, or one writing to flash, is not lost. RFC 6298 says 1 s because TCP delays its
/// ACKs; TFTP clients do not.
const FLOOR: u64 = 50_000;
/// Always this much more than the round trip (the `G` of RFC 6298 section 2.3): after a while of steady round trips there is
/// no variation left, and then the least delay would count as a loss.
const MARGIN: u64 = 10_000;
/// Never more, however long a `timeout` the client names: many tries must fit in before a silent peer is given up.
const CEILING: Duration = Duration::from_secs(5);

/// The retransmission time: follows the round trips measured, doubles on every expiry in a row.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Rto {
    /// Smoothed round trip and its variation, once there is a measurement.
    round_trip: Option<(u64, u64)>,
    /// How often the time has expired since the last answer.
    expiries: u32,
    /// How long that answer took at most, if nobody knows to which sending it was.
    at_most: u64,
    /// What is doubled is at least this.
    doubled_from: u64,
    ceiling: u64,
}

impl Rto {
    /// Starts without a measurement; the `timeout` that the client asked for is a ceiling.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let ceiling = micros(timeout.unwrap_or(CEILING).min(CEILING));
        Self { round_trip: None, expiries: 0, at_most: 0, doubled_from: FLOOR, ceiling }
    }

    /// The same for one that sends a single block at a time: the doubling begins below the floor.
    ///
    /// Where answers take much less than the floor, that is several doublings long already, and a single block sent again in
    /// vain is no burden (as Linux has it for TCP, `tcp_thin_linear_timeouts`). A window is, and there the client, which knows
    /// what it lacks, should be the first to speak.
    pub(crate) fn lockstep(timeout: Option<Duration>) -> Self {
        Self { doubled_from: 0, ..Self::new(timeout) }
    }

    /// How long to wait for an answer to what is sent now.
    pub(crate) fn current(&self) -> Duration {
        self.doubled(self.expiries).max(Duration::from_micros(self.at_most.min(self.ceiling)))
    }

    /// The same before any doubling: an answer that is not there by then is late.
    pub(crate) fn base(&self) -> Duration {
        self.doubled(0)
    }

    /// How long an answer takes, as far as is known.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.map_or(FLOOR, |(smoothed, _)| smoothed))
    }

    /// The time after so many expiries in a row.
    fn doubled(&self, times: u32) -> Duration {
        let once = match self.round_trip {
            Some((smoothed, variation)) => smoothed.saturating_add(variation.saturating_mul(4).max(MARGIN)),
            None => INITIAL,
        };
        let doubled = once.max(self.doubled_from).saturating_mul(2u64.saturating_pow(times));
        Duration::from_micros(doubled.max(FLOOR).min(self.ceiling))
    }

    /// Notes that the time has run out: the next one is twice as long.
    pub(crate) fn expired(&mut self) {
        self.expiries = self.expiries.saturating_add(1);
    }

    /// Ends the doubling without a measurement, for one whose repetitions are too small to burden a slow link.
    pub(crate) fn progressed(&mut self) {
        self.expiries = 0;
    }

    /// Takes in an answer to what was sent more than once, which came at most so long after the sending that it answers.
    ///
    /// That measures nothing (Karn's rule, RFC 6298 section 3), but what is sent next is given as much time. So on a link that
    /// takes longer than is known, the next answer is measured; otherwise everything there would be sent twice for ever. The
    /// doubling that RFC 6298 keeps up until then (section 5) serves the same end, but with losses in a row it goes on and on.
    ///
    /// Two such answers in a row are losses rather than a slow link: what is sent after the second gets the usual time.
    pub(crate) fn answered_within(&mut self, limit: Duration) {
        self.expiries = 0;
        self.at_most = if self.at_most == 0 { micros(limit).saturating_add(MARGIN) } else { 0 };
    }

    /// Takes in one round trip. The caller sees to it that the answer was to one sending only.
    ///
    /// The peer may have repeated an answer that got lost; then what was measured is the peer's own timer. So one that takes less
    /// than half of what is known starts the measuring afresh. RFC 6298 would need some ten more to forget, and as long as the
    /// peer's timer is the shorter one, every loss would bring the next wrong measurement.
    pub(crate) fn measured(&mut self, round_trip: Duration) {
        self.expiries = 0;
        self.at_most = 0;
        let round_trip = micros(round_trip);
        self.round_trip = Some(match self.round_trip {
            Some((smoothed, variation)) if round_trip.saturating_mul(2) >= smoothed => {
                (weighted(smoothed, round_trip, 8), weighted(variation, smoothed.abs_diff(round_trip), 4))
            }
            _ => (round_trip, round_trip.div_ceil(2)),
        });
    }
}

/// `old` moved towards `new` by one part in `parts`.
fn weighted(old: u64, new: u64, parts: u64) -> u64 {
    let sum = old.saturating_mul(parts.saturating_sub(1)).saturating_add(new);
    sum.checked_div(parts).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn it_starts_at_a_second_and_doubles_up_to_the_ceiling() {
        let mut rto = Rto::new(None);
        let mut seen = [Duration::ZERO; 5];
        for slot in &mut seen {
            *slot = rto.current();
            rto.expired();
        }
        assert_eq!(seen, [ms(1_000), ms(2_000), ms(4_000), ms(5_000), ms(5_000)]);
        rto.measured(ms(100));
        assert_eq!(rto.current(), ms(300));
    }

    #[test]
    fn the_clients_timeout_is_the_ceiling() {
        assert_eq!(Rto::new(Some(ms(300))).current(), ms(300));
        for (timeout, longest) in [(1, 1), (3, 3), (255, 5)] {
            let mut rto = Rto::new(Some(Duration::from_secs(timeout)));
            assert_eq!(rto.current(), ms(1_000), "a long one does not slow the first tries down");
            (0..40).for_each(|_| rto.expired());
            assert_eq!(rto.current(), Duration::from_secs(longest));
        }
    }

    #[test]
    fn it_follows_the_round_trip() {
        let mut rto = Rto::new(None);
        rto.measured(ms(100));
        assert_eq!(rto.current(), ms(300), "RFC 6298 section 2.2: R + 4 * R/2");
        (0..50).for_each(|_| rto.measured(ms(100)));
        assert_eq!(rto.current(), ms(110), "a steady round trip leaves no variation, but a margin");
        rto.measured(ms(200));
        assert!(rto.current() > ms(200), "one slow answer widens it: {:?}", rto.current());
    }

    /// One repetition of the client after 300 ms made ours 337 ms, so that the client's came first from then on.
    #[test]
    fn a_much_faster_answer_shows_that_the_slow_one_was_none() {
        let mut rto = Rto::new(None);
        rto.measured(ms(1));
        rto.measured(ms(300));
        assert!(rto.current() > ms(300), "it may be a slow link: {:?}", rto.current());
        rto.measured(ms(1));
        assert_eq!(rto.current(), ms(50));
        assert_eq!(rto.round_trip(), ms(1));
    }

    #[test]
    fn it_stays_above_the_floor() {
        let mut rto = Rto::new(None);
        rto.measured(Duration::from_micros(30));
        assert_eq!(rto.current(), ms(50));
        rto.expired();
        assert_eq!(rto.current(), ms(100));
    }

    #[test]
    fn a_single_blocks_time_overtakes_the_floor() {
        let mut rto = Rto::lockstep(None);
        assert_eq!(rto.current(), ms(1_000));
        rto.measured(ms(0));
        let mut seen = [Duration::ZERO; 5];
        for slot in &mut seen {
            *slot = rto.current();
            rto.expired();
        }
        assert_eq!(seen, [ms(50), ms(50), ms(50), ms(80), ms(160)], "10, 20, 40, 80, 160");
        (0..40).for_each(|_| rto.expired());
        assert_eq!(rto.current(), CEILING);
    }

    #[test]
    fn an_answer_to_a_repetition_is_a_limit_until_one_is_measured() {
        for mut rto in [Rto::new(None), Rto::lockstep(None)] {
            rto.measured(ms(0));
            rto.expired();
            rto.answered_within(ms(120));
            assert_eq!(rto.current(), ms(130));
            assert_eq!(rto.base(), ms(50));
            rto.answered_within(ms(190));
            assert_eq!(rto.current(), ms(50), "the second in a row is a loss");
            rto.answered_within(ms(20_000));
            assert_eq!(rto.current(), CEILING);
            rto.measured(ms(0));
            assert_eq!(rto.current(), ms(50));
        }
    }
}
