//! The bounded store of the last boots of all clients.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, sync::Arc};

use rtftp_core::Instant;

use super::{
    boot::{Boot, Client},
    boot_metrics::BootMetrics,
    earlier::{Described, EarlierBoards},
    request::Record,
    snapshot::{self, Mount, Protocol},
    summary::summarize_client,
    wall_clock::WallClock,
};
use crate::{clock, last_seen::LastSeen};

/// The number of verified clients whose boots are kept in detail.
const MAX_VERIFIED_CLIENTS: usize = 1024;
/// The number of unverified clients that are kept: their addresses may be forged.
const MAX_UNVERIFIED_CLIENTS: usize = 256;
/// The number of records of these clients.
const MAX_RECORDS: usize = 32_768;
/// The limits are enforced once for this many requests.
const EVICTION_INTERVAL: u64 = 1024;

/// The last boots of the clients seen last.
#[derive(Debug, Default)]
pub(super) struct Store {
    clients: HashMap<IpAddr, Client>,
    /// Known boards that were seen before these clients.
    earlier: EarlierBoards,
    described: Described,
    requests: u64,
    /// Whether verified clients were evicted.
    has_evicted: bool,
    boot_metrics: BootMetrics,
}

impl Store {
    /// Creates an empty store for a server with these boards.
    pub(super) fn new(described: Described) -> Self {
        Self { described, ..Self::default() }
    }

    /// Returns an empty store for the same server.
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.described.clone())
    }

    /// Adds the record of a request.
    pub(super) fn record_request(
        &mut self,
        client: IpAddr,
        protocol: Protocol,
        file_name: &[u8],
        now: Instant,
    ) -> Arc<Record> {
        self.requests += 1;
        if self.requests.is_multiple_of(EVICTION_INTERVAL) {
            self.count_ended_boots(now);
            self.evict(now);
        }
        let Self { clients, earlier, boot_metrics, .. } = self;
        let known = clients.entry(client).or_insert_with(|| earlier.take(client).unwrap_or_default());
        known.record_request(protocol, file_name, now, boot_metrics)
    }

    /// Adds a finished request of an earlier run to the boot that began then.
    pub(super) fn restore(&mut self, client: IpAddr, began: Instant, create: impl FnOnce(Arc<LastSeen>) -> Record) {
        self.requests += 1;
        if self.requests.is_multiple_of(EVICTION_INTERVAL) {
            self.evict(clock::now());
        }
        self.client(client).restore(began, create);
    }

    /// Returns a client that is seen now.
    fn client(&mut self, ip: IpAddr) -> &mut Client {
        self.clients.entry(ip).or_insert_with(|| self.earlier.take(ip).unwrap_or_default())
    }

    /// Adds the boots of an earlier run to those of the first moments of this one.
    pub(super) fn add_restored(&mut self, earlier: Self, now: Instant) {
        self.has_evicted |= earlier.has_evicted;
        self.earlier = earlier.earlier;
        for (ip, client) in &mut self.clients {
            self.earlier.take(*ip).into_iter().for_each(|earlier| client.add_restored(earlier, now));
        }
        for (ip, client) in earlier.clients {
            self.client(ip).add_restored(client, now);
        }
        self.evict(now);
    }

    /// Counts a copy of a request that is being answered.
    pub(super) fn record_copy(&mut self, client: IpAddr, file_name: &[u8], now: Instant) {
        if let Some(boot) = self.clients.get_mut(&client).and_then(Client::last_boot_mut) {
            boot.record_copy(file_name, now);
        }
    }

    /// Removes the record of a request if an earlier one of the same boot shows that it was a copy. Returns whether it was.
    pub(super) fn remove_copy(&mut self, client: IpAddr, record: &Arc<Record>) -> bool {
        let boot = self.clients.get_mut(&client).and_then(|client| client.boot_mut(record.boot_began()));
        boot.is_some_and(|boot| boot.remove_copy(record))
    }

    /// Records what the disk has shown after the boot that began then. Returns `false` if more is known already.
    pub(super) fn set_mount(&mut self, client: IpAddr, began: Instant, mount: Mount) -> bool {
        let known = self.clients.get_mut(&client).or_else(|| self.earlier.get_mut(client));
        let boot = known.and_then(|client| client.boot_mut(began));
        boot.is_some_and(|boot| boot.set_mount(mount))
    }

    /// Returns what the disk has shown after the boot that began then.
    #[cfg(test)]
    pub(super) fn mount(&mut self, client: IpAddr, began: Instant) -> Option<Mount> {
        self.clients.get_mut(&client)?.boot_mut(began)?.mount().cloned()
    }

    /// Counts the boots that have ended, and returns the metrics of all boots.
    pub(super) fn count_ended_boots(&mut self, now: Instant) -> &BootMetrics {
        let last_boots = self.clients.values_mut().filter_map(Client::last_boot_mut);
        last_boots.filter(|boot| boot.has_ended(now)).for_each(|boot| boot.count(&self.boot_metrics));
        self.earlier.count_ended_boots(now, &self.boot_metrics);
        &self.boot_metrics
    }

    /// Returns the number of clients.
    pub(super) fn client_count(&self) -> usize {
        self.clients.len() + self.earlier.len()
    }

    /// Returns whether clients that answered are no longer in the store.
    pub(super) fn has_evicted(&self) -> bool {
        self.has_evicted
    }

    /// Returns the clients: those seen last, the most recently seen first, and then the others.
    pub(super) fn clients(&self) -> Vec<IpAddr> {
        let mut clients = self.last_clients();
        clients.extend(self.earlier.addresses());
        clients
    }

    fn last_clients(&self) -> Vec<IpAddr> {
        let mut clients: Vec<_> = self.clients.iter().map(|(ip, client)| (Reverse(client.last_seen()), *ip)).collect();
        clients.sort_unstable();
        clients.into_iter().map(|(_, ip)| ip).collect()
    }

    /// Returns the present state of a client, or `None` if it was evicted.
    pub(super) fn snapshot(&self, client: IpAddr, now: WallClock) -> Option<snapshot::Client> {
        let boots = &self.clients.get(&client).or_else(|| self.earlier.get(client))?.boots;
        let summary = summarize_client(boots, now)?;
        Some(snapshot::Client {
            client: client.to_string(),
            name: None,
            state: summary.state,
            status: summary.status,
            summary: summary.text,
            disk: None,
            boots: boots.iter().map(|boot| boot.snapshot(now)).collect(),
            log: vec![],
        })
    }

    /// Enforces the limits. Unverified clients never displace verified ones: only the last boots of the most recent unverified
    /// clients are kept. Verified clients lose the clients seen longest ago, then the oldest boots. Of known boards, the last request
    /// is kept.
    fn evict(&mut self, now: Instant) {
        let (verified, unverified): (Vec<_>, Vec<_>) =
            self.last_clients().into_iter().partition(|ip| self.clients.get(ip).is_some_and(Client::is_verified));
        for ip in verified.iter().skip(MAX_VERIFIED_CLIENTS).chain(unverified.iter().skip(MAX_UNVERIFIED_CLIENTS)) {
            self.remove(*ip, now);
        }
        for ip in unverified.iter().take(MAX_UNVERIFIED_CLIENTS) {
            self.clients.entry(*ip).and_modify(|client| client.boots.truncate(1));
        }
        self.evict_old_boots(now);
    }

    /// Removes a client from those seen last.
    fn remove(&mut self, ip: IpAddr, now: Instant) {
        let Some(client) = self.clients.remove(&ip) else { return };
        self.has_evicted |= if self.described.contains(ip, &client) {
            self.earlier.add(ip, client, now, &self.boot_metrics)
        } else {
            client.is_verified()
        };
    }

    /// Evicts the oldest boots while there are too many records. The last boots of the clients are evicted after all others.
    fn evict_old_boots(&mut self, now: Instant) {
        let mut records: usize = self.boots().map(|(.., boot)| boot.len()).sum();
        if records <= MAX_RECORDS {
            return;
        }
        let mut boots: Vec<_> = self.boots().map(|(ip, index, boot)| (index == 0, boot.last_seen(), ip)).collect();
        boots.sort_unstable();
        for (_, _, ip) in boots {
            if records <= MAX_RECORDS {
                return;
            }
            let Some(client) = self.clients.get_mut(&ip) else { continue };
            if client.boots.len() > 1 {
                records -= client.boots.pop_back().map_or(0, |oldest| oldest.len());
            } else {
                records -= client.boots.front().map_or(0, Boot::len);
                self.remove(ip, now);
            }
        }
    }

    /// Returns all boots with their client and their index in its list.
    fn boots(&self) -> impl Iterator<Item = (IpAddr, usize, &Boot)> {
        self.clients
            .iter()
            .flat_map(|(ip, client)| client.boots.iter().enumerate().map(move |(index, boot)| (*ip, index, boot)))
    }
}

#[cfg(test)]
mod tests;
