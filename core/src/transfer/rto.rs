//! The retransmission timeout: how long to wait for an answer (RFC 6298, RFC 1123 section 4.2.3.2).

use core::time::Duration;

use crate::time::micros;

/// The bounds of a timeout, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Bounds {
    /// The timeout before the first measurement.
    initial: u32,
    min: u32,
    max: u32,
}

impl Bounds {
    /// The bounds of the sender, and the defaults of the receiver:
    ///
    /// - 1 s before the first measurement (RFC 6298 section 2).
    /// - At least 50 ms: a client with a busy processor, or one that writes to flash, is slow but not lost. RFC 6298 says 1 s
    ///   because TCP delays its ACKs; TFTP clients do not.
    /// - At most 5 s: many tries must fit in before a silent peer is given up.
    pub(crate) const DEFAULT: Self = Self { initial: 1_000_000, min: 50_000, max: 5_000_000 };

    /// Creates bounds of 1 us to 71 minutes each; 0 would wait for the past.
    pub(crate) fn new(initial: Duration, min: Duration, max: Duration) -> Self {
        let [initial, min, max] =
            [initial, min, max].map(|bound| u32::try_from(bound.as_micros()).unwrap_or(u32::MAX).max(1));
        Self { initial, min, max }
    }

    /// Raises the bounds to an interval that the ends agreed on (RFC 2349): nothing is repeated sooner.
    pub(crate) fn at_least(self, interval: Duration) -> Self {
        let interval = u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
        Self { initial: self.initial.max(interval), min: self.min.max(interval), max: self.max.max(interval) }
    }

    /// Lowers the upper bound.
    fn at_most(self, timeout: Duration) -> Self {
        Self { max: self.max.min(u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX)), ..self }
    }
}

/// The least distance between the timeout and the round trip, in microseconds (`G` in RFC 6298 section 2.3). After many equal
/// round trips there is no variance left, and the smallest delay would count as a loss.
const MARGIN_MICROS: u64 = 10_000;

/// The retransmission timeout: follows the measured round trips, doubles with every expiry in a row.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Rto {
    bounds: Bounds,
    /// The smoothed round trip and its variation (SRTT and RTTVAR), in microseconds, once there is a measurement.
    estimate: Option<(u64, u64)>,
    /// The number of timeouts since the last answer.
    expiries: u32,
    /// The longest time that the last answer can have taken, in microseconds, if that answer may be to either of two sendings;
    /// otherwise 0.
    ambiguous: u64,
    /// The least value that is doubled, in microseconds.
    backoff_base: u32,
}

impl Rto {
    /// Starts without a measurement.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, estimate: None, expiries: 0, ambiguous: 0, backoff_base: bounds.min }
    }

    /// Starts a timeout for windows of one block, which doubles from below the lower bound.
    ///
    /// If answers take much less than the lower bound, that bound is already several doublings long, and one block sent in
    /// vain is no burden (Linux does so for TCP, `tcp_thin_linear_timeouts`). A window is one; there the client, which knows
    /// what it lacks, should ask first.
    pub(crate) fn lockstep(bounds: Bounds) -> Self {
        Self { backoff_base: 0, ..Self::new(bounds) }
    }

    /// Forgets all measurements and expiries. A granted `timeout` lowers the upper bound: the client repeats its ACK no later than
    /// the server its block.
    pub(crate) fn restart(&mut self, timeout: Option<Duration>) {
        *self = Self::new(timeout.map_or(self.bounds, |timeout| self.bounds.at_most(timeout)));
    }

    /// Returns the number of timeouts since the last answer.
    pub(crate) fn expiries(&self) -> u32 {
        self.expiries
    }

    /// Returns how long to wait for an answer to a packet that is sent now.
    pub(crate) fn timeout(&self) -> Duration {
        self.backed_off(self.expiries).max(Duration::from_micros(self.ambiguous.min(self.bounds.max.into())))
    }

    /// Returns the timeout without any doubling: an answer that takes longer is late.
    pub(crate) fn without_backoff(&self) -> Duration {
        self.backed_off(0)
    }

    /// Returns the smoothed round trip, or the lower bound before the first measurement.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.estimate.map_or(self.bounds.min.into(), |(smoothed, _)| smoothed))
    }

    /// Returns the timeout after `expiries` expiries in a row.
    fn backed_off(&self, expiries: u32) -> Duration {
        let once = match self.estimate {
            Some((smoothed, variation)) => smoothed.saturating_add(variation.saturating_mul(4).max(MARGIN_MICROS)),
            None => self.bounds.initial.into(),
        };
        let doubled = once.max(self.backoff_base.into()).saturating_mul(2u64.saturating_pow(expiries));
        Duration::from_micros(doubled.max(self.bounds.min.into()).min(self.bounds.max.into()))
    }

    /// Records that the timeout has expired: doubles the next one.
    pub(crate) fn back_off(&mut self) {
        self.expiries = self.expiries.saturating_add(1);
    }

    /// Ends the doubling without a measurement. For an end whose retransmissions are too small to burden a slow link.
    pub(crate) fn reset_backoff(&mut self) {
        self.expiries = 0;
    }

    /// Records an answer to a packet that was sent more than once. It came at most `limit` after the sending that it answers.
    ///
    /// Such an answer measures nothing (Karn's rule, RFC 6298 section 3), but the next packet gets as much time. So on a link
    /// that is slower than the estimate the next answer is measured; otherwise everything would be sent twice for the rest of
    /// the transfer. RFC 6298 section 5 keeps the doubled timeout to the same end, but losses in a row would double it on and on.
    ///
    /// Two such answers in a row mean losses rather than a slow link: after the second one the usual timeout applies.
    pub(crate) fn record_ambiguous(&mut self, limit: Duration) {
        self.expiries = 0;
        self.ambiguous = if self.ambiguous == 0 { micros(limit).saturating_add(MARGIN_MICROS) } else { 0 };
    }

    /// Records one round trip. The caller ensures that the packet was sent only once.
    ///
    /// The peer may have repeated an answer that was lost; then the peer's own timer was measured. So a round trip of less than
    /// half the smoothed one starts the estimate again. RFC 6298 would need about ten more measurements to forget, and as long as
    /// the peer's timer is the shorter one, every loss would bring the next wrong measurement.
    pub(crate) fn record(&mut self, round_trip: Duration) {
        self.expiries = 0;
        self.ambiguous = 0;
        let round_trip = micros(round_trip);
        self.estimate = Some(match self.estimate {
            Some((smoothed, variation)) if round_trip.saturating_mul(2) >= smoothed => {
                (weighted(smoothed, round_trip, 8), weighted(variation, smoothed.abs_diff(round_trip), 4))
            }
            _ => (round_trip, round_trip.div_ceil(2)),
        });
    }
}

/// Moves `old` towards `new` by one part in `parts`.
fn weighted(old: u64, new: u64, parts: u64) -> u64 {
    let sum = old.saturating_mul(parts.saturating_sub(1)).saturating_add(new);
    sum.checked_div(parts).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = ms(5_000);

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rto() -> Rto {
        Rto::new(Bounds::DEFAULT)
    }

    fn lockstep() -> Rto {
        Rto::lockstep(Bounds::DEFAULT)
    }

    #[test]
    fn doubles_from_one_second_to_the_upper_bound() {
        let mut rto = rto();
        let mut seen = [Duration::ZERO; 5];
        for slot in &mut seen {
            *slot = rto.timeout();
            rto.back_off();
        }
        assert_eq!(seen, [ms(1_000), ms(2_000), ms(4_000), ms(5_000), ms(5_000)]);
        rto.record(ms(100));
        assert_eq!(rto.timeout(), ms(300));
    }

    #[test]
    fn agreed_interval_is_the_lower_bound() {
        for (interval, first, longest) in [(10, 50, 5_000), (300, 300, 5_000), (60_000, 60_000, 60_000)] {
            for start in [Rto::new, Rto::lockstep] {
                let mut rto = start(Bounds::DEFAULT.at_least(ms(interval)));
                assert_eq!(rto.timeout(), ms(interval.max(1_000)));
                rto.record(ms(1));
                assert_eq!(rto.timeout(), ms(first), "after a measurement");
                (0..40).for_each(|_| rto.back_off());
                assert_eq!(rto.timeout(), ms(longest));
            }
        }
    }

    #[test]
    fn configured_bounds_apply() {
        let mut rto = Rto::new(Bounds::new(ms(200), ms(5), ms(700)));
        assert_eq!(rto.timeout(), ms(200));
        (0..3).for_each(|_| rto.back_off());
        assert_eq!(rto.timeout(), ms(700));
        rto.record(ms(0));
        assert_eq!(rto.timeout(), ms(10), "the margin is larger than the lower bound");
        rto.restart(Some(ms(150)));
        assert_eq!(rto.timeout(), ms(150));
    }

    #[test]
    fn follows_the_round_trip() {
        let mut rto = rto();
        rto.record(ms(100));
        assert_eq!(rto.timeout(), ms(300), "RFC 6298 section 2.2: R + 4 * R/2");
        (0..50).for_each(|_| rto.record(ms(100)));
        assert_eq!(rto.timeout(), ms(110), "equal round trips leave no variation, but a margin");
        rto.record(ms(200));
        assert!(rto.timeout() > ms(200), "one slow answer widens the timeout: {:?}", rto.timeout());
    }

    /// One retransmission of the client after 300 ms made the timeout 337 ms, so that the client's timer always expired first.
    #[test]
    fn much_faster_answer_restarts_the_estimate() {
        let mut rto = rto();
        rto.record(ms(1));
        rto.record(ms(300));
        assert!(rto.timeout() > ms(300), "it may be a slow link: {:?}", rto.timeout());
        rto.record(ms(1));
        assert_eq!(rto.timeout(), ms(50));
        assert_eq!(rto.round_trip(), ms(1));
    }

    #[test]
    fn stays_above_the_lower_bound() {
        let mut rto = rto();
        rto.record(Duration::from_micros(30));
        assert_eq!(rto.timeout(), ms(50));
        rto.back_off();
        assert_eq!(rto.timeout(), ms(100));
    }

    #[test]
    fn lockstep_timeout_doubles_from_below_the_lower_bound() {
        let mut rto = lockstep();
        assert_eq!(rto.timeout(), ms(1_000));
        rto.record(ms(0));
        let mut seen = [Duration::ZERO; 5];
        for slot in &mut seen {
            *slot = rto.timeout();
            rto.back_off();
        }
        assert_eq!(seen, [ms(50), ms(50), ms(50), ms(80), ms(160)], "10, 20, 40, 80, 160");
        (0..40).for_each(|_| rto.back_off());
        assert_eq!(rto.timeout(), MAX);
    }

    #[test]
    fn ambiguous_answer_extends_the_timeout_until_the_next_one() {
        for mut rto in [rto(), lockstep()] {
            rto.record(ms(0));
            rto.back_off();
            rto.record_ambiguous(ms(120));
            assert_eq!(rto.timeout(), ms(130));
            assert_eq!(rto.without_backoff(), ms(50));
            rto.record_ambiguous(ms(190));
            assert_eq!(rto.timeout(), ms(50), "the second in a row is a loss");
            rto.record_ambiguous(ms(20_000));
            assert_eq!(rto.timeout(), MAX);
            rto.record(ms(0));
            assert_eq!(rto.timeout(), ms(50));
        }
    }
}
