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

/// The retransmission time: follows the round trips measured, doubles on every expiry.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Rto {
    /// Smoothed round trip and its variation, once there is a measurement.
    round_trip: Option<(u64, u64)>,
    /// How often the time has expired since the last measurement.
    expiries: u32,
    ceiling: u64,
}

impl Rto {
    /// Starts without a measurement; the `timeout` that the client asked for is a ceiling.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { round_trip: None, expiries: 0, ceiling: micros(timeout.unwrap_or(CEILING).min(CEILING)) }
    }

    /// How long to wait for an answer to what is sent now.
    pub(crate) fn current(&self) -> Duration {
        let doubled = self.undoubled().saturating_mul(2u64.saturating_pow(self.expiries));
        Duration::from_micros(doubled.min(self.ceiling))
    }

    /// The same before any doubling: an answer that is not there by then is late.
    pub(crate) fn base(&self) -> Duration {
        Duration::from_micros(self.undoubled())
    }

    /// How long an answer takes, as far as is known.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.map_or(FLOOR, |(smoothed, _)| smoothed))
    }

    fn undoubled(&self) -> u64 {
        match self.round_trip {
            Some((smoothed, variation)) => smoothed.saturating_add(variation.saturating_mul(4).max(MARGIN)).max(FLOOR),
            None => INITIAL,
        }
        .min(self.ceiling)
    }

    /// Notes that the time has run out: the next one is twice as long.
    pub(crate) fn expired(&mut self) {
        self.expiries = self.expiries.saturating_add(1);
    }

    /// Ends the doubling without a measurement, for one whose repetitions are too small to burden a slow link.
    pub(crate) fn progressed(&mut self) {
        self.expiries = 0;
    }

    /// Takes in one round trip, which ends the doubling. The caller sees to it that the answer was to one sending only.
    ///
    /// Those are the two halves of Karn's rule (RFC 6298 sections 3 and 5). If any answer ended the doubling, then on a link
    /// that takes longer than the present time everything would be sent twice, and so nothing ever be measured.
    pub(crate) fn measured(&mut self, round_trip: Duration) {
        self.expiries = 0;
        let round_trip = micros(round_trip);
        self.round_trip = Some(match self.round_trip {
            None => (round_trip, round_trip.div_ceil(2)),
            Some((smoothed, variation)) => {
                (weighted(smoothed, round_trip, 8), weighted(variation, smoothed.abs_diff(round_trip), 4))
            }
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

    #[test]
    fn it_stays_above_the_floor() {
        let mut rto = Rto::new(None);
        rto.measured(Duration::from_micros(30));
        assert_eq!(rto.current(), ms(50));
        rto.expired();
        assert_eq!(rto.current(), ms(100));
    }
}
