//! How long to wait before sending again (RFC 6298, RFC 1123 section 4.2.3.2).

use core::time::Duration;

/// Before anything was measured (RFC 6298 section 2).
const INITIAL: Duration = Duration::from_secs(1);
/// Never less: a client on a busy processor, or one writing to flash, is not lost. RFC 6298 says 1 s because TCP delays its
/// ACKs; TFTP clients do not.
const FLOOR: Duration = Duration::from_millis(50);
/// Never more, unless the client names a longer `timeout`.
const CEILING: Duration = Duration::from_secs(5);

/// The retransmission time: follows the round trips measured, doubles on every expiry.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Rto {
    /// Smoothed round trip and its variation, once there is a measurement.
    round_trip: Option<(Duration, Duration)>,
    /// How often the time has expired since the last progress.
    expiries: u32,
    ceiling: Duration,
}

impl Rto {
    /// Starts without a measurement; `ceiling` is the `timeout` the client asked for.
    pub(crate) fn new(ceiling: Option<Duration>) -> Self {
        Self { round_trip: None, expiries: 0, ceiling: ceiling.unwrap_or(CEILING) }
    }

    /// How long to wait for an answer to what is sent now.
    pub(crate) fn current(&self) -> Duration {
        let base = match self.round_trip {
            Some((smoothed, variation)) => smoothed.saturating_add(variation.saturating_mul(4)).max(FLOOR),
            None => INITIAL,
        };
        base.saturating_mul(2u32.saturating_pow(self.expiries)).min(self.ceiling)
    }

    /// Notes that the time has run out: the next one is twice as long.
    pub(crate) fn expired(&mut self) {
        self.expiries = self.expiries.saturating_add(1);
    }

    /// Notes progress: the time is that of the measured round trips again.
    pub(crate) fn progressed(&mut self) {
        self.expiries = 0;
    }

    /// Takes in one round trip. The caller sees to it that nothing in it was sent twice (Karn's rule).
    pub(crate) fn measured(&mut self, round_trip: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (round_trip, half(round_trip)),
            Some((smoothed, variation)) => {
                (weighted(smoothed, round_trip, 8), weighted(variation, smoothed.abs_diff(round_trip), 4))
            }
        });
    }
}

fn half(duration: Duration) -> Duration {
    duration.checked_div(2).unwrap_or_default()
}

/// `old` moved towards `new` by one part in `parts`.
fn weighted(old: Duration, new: Duration, parts: u32) -> Duration {
    let sum = old.saturating_mul(parts.saturating_sub(1)).saturating_add(new);
    sum.checked_div(parts).unwrap_or_default()
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
        rto.progressed();
        assert_eq!(rto.current(), ms(1_000));
    }

    #[test]
    fn the_clients_timeout_is_the_ceiling() {
        assert_eq!(Rto::new(Some(ms(300))).current(), ms(300));
        let mut patient = Rto::new(Some(ms(255_000)));
        (0..40).for_each(|_| patient.expired());
        assert_eq!(patient.current(), ms(255_000));
    }

    #[test]
    fn it_follows_the_round_trip() {
        let mut rto = Rto::new(None);
        rto.measured(ms(100));
        assert_eq!(rto.current(), ms(300), "RFC 6298 section 2.2: R + 4 * R/2");
        (0..50).for_each(|_| rto.measured(ms(100)));
        assert!(
            (ms(100)..ms(102)).contains(&rto.current()),
            "a steady round trip leaves no variation: {:?}",
            rto.current()
        );
        rto.measured(ms(200));
        assert!(rto.current() > ms(200), "one slow answer widens it: {:?}", rto.current());
    }

    #[test]
    fn it_stays_above_the_floor() {
        let mut rto = Rto::new(None);
        rto.measured(Duration::from_micros(30));
        assert_eq!(rto.current(), FLOOR);
        rto.expired();
        assert_eq!(rto.current(), FLOOR * 2);
    }
}
