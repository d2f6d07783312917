//! The rate limit of requests, before anything is spent on them.
//!
//! A flood of requests with forged addresses must not keep honest clients out. Clients that have completed a round trip before are
//! *known* and have a budget of their own. Of the others, so many are served each second as the server can afford. The rest is
//! ignored, but remembered: an honest client repeats its request, and then uses a third budget; random addresses come only once.
//!
//! Once half of a budget is used, the rest is for hosts and networks that have had less than their share of it: a flood from a few
//! addresses does not use it up.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, RandomState},
    net::SocketAddr,
    time::Duration,
};

use parking_lot::Mutex;
use rtftp_core::Instant;

use super::host::{Host, Network};
use crate::rate_limit::RateLimit;

/// The number of requests of unknown clients at once, such as those of a whole cluster that is switched on, and per second.
const UNKNOWN: (u32, u32) = (4096, 1000);
/// The same for unknown clients that repeat a request.
const REPEATED: (u32, u32) = (1000, 1000);
/// The same for known clients: more than a cluster of fast machines requests.
const KNOWN: (u32, u32) = (20_000, 20_000);
/// The shares of a host, and of a network, in the second half of these budgets, per [`SHARE_TIME`]. An IPv6 network has many hosts.
const HOST_SHARE: u32 = 8;
const NETWORK_SHARE: u32 = 64;
/// The time after which shares are renewed, at most twice as long.
const SHARE_TIME: Duration = Duration::from_secs(1);
/// The number of hosts that are known at least: those verified last.
const MAX_KNOWN_HOSTS: usize = 4096;
/// The time for which ignored requests are remembered at least; U-Boot repeats one after 5 s.
const MEMORY_TIME: Duration = Duration::from_secs(8);
/// The number of bits for ignored requests. With 40,000 requests per second, a twelfth of them is set.
const MEMORY_BITS: usize = 1 << 23;

/// Decides which requests are looked at.
#[derive(Debug)]
pub(super) struct Gate {
    unknown: RateLimit,
    repeated: RateLimit,
    known: RateLimit,
    ignored: Ignored,
    hosts: Shares<Host>,
    networks: Shares<Network>,
}

impl Gate {
    pub(super) fn new() -> Self {
        let limit = |(burst, per_second)| RateLimit::new(burst, per_second);
        Self {
            unknown: limit(UNKNOWN),
            repeated: limit(REPEATED),
            known: limit(KNOWN),
            ignored: Ignored::default(),
            hosts: Shares::default(),
            networks: Shares::default(),
        }
    }

    /// Returns whether a request is looked at. `is_known` says whether [`KnownHosts`] contains its host.
    pub(super) fn allows(&mut self, client: SocketAddr, is_known: bool, now: Instant) -> bool {
        let host = Host::of(client);
        if is_known && self.known.allows(now) {
            return true;
        }
        let network = host.network();
        let has_share = self.hosts.used(host, now) < HOST_SHARE && self.networks.used(network, now) < NETWORK_SHARE;
        let allows = |limit: &mut RateLimit| (has_share || !limit.is_short(now)) && limit.allows(now);
        // The port, too: a flood in the name of one host does not use up the budget for its own repetitions.
        let allowed = allows(&mut self.unknown) || self.ignored.insert(&client, now) && allows(&mut self.repeated);
        if allowed {
            self.hosts.add(host);
            self.networks.add(network);
        }
        allowed
    }
}

/// The number of requests of each party that were allowed lately, in two generations. The budgets limit their number.
#[derive(Debug)]
struct Shares<P> {
    generations: [HashMap<P, u32>; 2],
    started: Instant,
}

impl<P> Default for Shares<P> {
    fn default() -> Self {
        Self { generations: Default::default(), started: Instant::from_micros(0) }
    }
}

impl<P: Eq + Hash> Shares<P> {
    fn used(&mut self, party: P, now: Instant) -> u32 {
        if now.since(self.started) >= SHARE_TIME {
            self.generations.swap(0, 1);
            self.generations[0].clear();
            self.started = now;
        }
        self.generations.iter().filter_map(|generation| generation.get(&party)).sum()
    }

    fn add(&mut self, party: P) {
        *self.generations[0].entry(party).or_default() += 1;
    }
}

/// The hosts that were verified last, in two generations: the younger one replaces the older one when it is full.
#[derive(Debug, Default)]
pub(super) struct KnownHosts(Mutex<[HashSet<Host>; 2]>);

impl KnownHosts {
    pub(super) fn insert(&self, host: Host) {
        let [young, old] = &mut *self.0.lock();
        if young.len() >= MAX_KNOWN_HOSTS && !young.contains(&host) {
            *old = std::mem::take(young);
        }
        young.insert(host);
    }

    pub(super) fn contains(&self, host: Host) -> bool {
        let [young, old] = &*self.0.lock();
        young.contains(&host) || old.contains(&host)
    }
}

/// The ignored requests: a Bloom filter in two generations. Few of the requests that it contains, it contains by mistake.
#[derive(Debug, Default)]
struct Ignored {
    hasher: RandomState,
    /// Empty until the first request is ignored.
    generations: [Vec<u64>; 2],
    started: Option<Instant>,
}

impl Ignored {
    /// Adds a client, and returns whether it has been added before.
    fn insert(&mut self, client: &SocketAddr, now: Instant) -> bool {
        if self.started.is_none_or(|started| now.since(started) >= MEMORY_TIME) {
            let is_recent = self.started.is_some_and(|started| now.since(started) < 2 * MEMORY_TIME);
            let young = std::mem::replace(&mut self.generations[0], vec![0; MEMORY_BITS / 64]);
            self.generations[1] = if is_recent { young } else { vec![] };
            self.started = Some(now);
        }
        let hash = self.hasher.hash_one(client);
        let bits = [hash as usize % MEMORY_BITS, (hash >> 32) as usize % MEMORY_BITS];
        let has = |generation: &[u64]| {
            bits.iter().all(|bit| generation.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1))
        };
        let [young, old] = &self.generations;
        let is_known = has(young) || has(old);
        for bit in bits {
            if let Some(word) = self.generations[0].get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(1_000_000 + micros)
    }

    fn client(number: u32) -> SocketAddr {
        ((number | 0x0a00_0000).to_be_bytes(), 69).into()
    }

    /// Forged requests at 40,000 per second for ten seconds; an honest client repeats its request once a second.
    #[test]
    fn honest_clients_pass_in_flood_of_random_addresses() {
        let mut gate = Gate::new();
        let (mut forged, mut waits) = (0, vec![]);
        for number in 0..400_000 {
            let now = at(u64::from(number) * 25);
            forged += u32::from(gate.allows(client(number), false, now));
            // A new honest client, ten times a second; its repetition a second later.
            if number % 4000 == 0 {
                let honest = ([172, 16, (number >> 16) as u8, (number >> 8) as u8], 7).into();
                waits.push((honest, gate.allows(honest, false, now)));
                if let Some((earlier, false)) = waits.len().checked_sub(11).map(|index| waits[index]) {
                    assert!(gate.allows(earlier, false, now), "the repetition is ignored");
                }
                assert!(gate.allows(([192, 168, 0, 1], 9).into(), true, now), "a known client is ignored");
            }
        }
        println!("{forged} of 400,000 forged requests pass");
        assert!(forged < 20_000);
    }

    /// Requests from 20 addresses, or from 200, each from four ports, at 10,000 per second in all. A new honest client every 10 ms.
    #[test]
    fn honest_clients_pass_in_flood_of_few_addresses() {
        for addresses in [20, 200] {
            let mut gate = Gate::new();
            let mut waiting = vec![];
            let mut worst = Duration::ZERO;
            for number in 0..100_000u32 {
                let now = at(u64::from(number) * 100);
                let flooder = ([10, 0, 0, (number % addresses) as u8], (number / addresses % 4) as u16 + 1).into();
                gate.allows(flooder, false, now);
                if number % 100 == 0 {
                    waiting.push((now, SocketAddr::from(([172, 16, (number >> 16) as u8, (number >> 8) as u8], 7))));
                }
                // Each repeats its request after 250 ms.
                waiting.retain(|(since, honest)| {
                    let is_due = now.since(*since).as_micros().is_multiple_of(250_000);
                    let passes = is_due && gate.allows(*honest, false, now);
                    worst = worst.max(now.since(*since));
                    !passes
                });
            }
            println!("{addresses} flooding addresses: honest clients wait {worst:?} at most");
            assert!(worst <= Duration::from_millis(260), "{addresses} addresses: {worst:?}");
        }
    }

    /// 2,000 boards in one IPv6 network that are switched on at once.
    #[test]
    fn a_network_alone_has_no_share() {
        let mut gate = Gate::new();
        let board = |number: u16| ([0x2001, 0xdb8, 0, 0, 0, 0, 0, number], 7).into();
        assert!((0..2000).all(|number| gate.allows(board(number), false, at(u64::from(number)))));
    }

    #[test]
    fn knows_the_hosts_verified_last() {
        let known = KnownHosts::default();
        for number in 0..20_000 {
            known.insert(Host::of(client(number)));
        }
        let count = (0..20_000).filter(|number| known.contains(Host::of(client(*number)))).count();
        assert!((MAX_KNOWN_HOSTS..=2 * MAX_KNOWN_HOSTS).contains(&count), "{count}");
        assert!(known.contains(Host::of(client(19_999))));
    }

    #[test]
    fn forgets_ignored_requests_after_a_while() {
        let mut ignored = Ignored::default();
        assert!(!ignored.insert(&client(1), at(0)));
        assert!(ignored.insert(&client(1), at(7_999_999)));
        assert!(ignored.insert(&client(1), at(9_000_000)), "the older generation");
        assert!(!ignored.insert(&client(1), at(60_000_000)));
    }
}
