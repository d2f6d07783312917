//! The table of running sessions, with an index for every question of admission. Each operation takes logarithmic time.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rtftp_core::Instant;
use smol::channel::Sender;

use super::{
    handle::SessionHandle,
    host::{Host, Network},
    request::ReadRequest,
};

/// The number of sessions that are compared to find a slow one. Each search goes on where the last one has ended.
const SAMPLE: usize = 16;

/// A session in the table. Dropping it ends the session.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) request: Arc<ReadRequest>,
    pub(super) handle: Arc<SessionHandle>,
    pub(super) stop: Sender<&'static str>,
}

/// The running sessions, by their number.
#[derive(Debug, Default)]
pub(super) struct Table {
    running: HashMap<u64, Running>,
    /// The sessions of each client's port: at most two, of which the second is to replace the first.
    ports: HashMap<SocketAddr, Vec<u64>>,
    all: Group,
    hosts: HashMap<Host, Group>,
    networks: HashMap<Network, Group>,
    /// The networks by their number of sessions.
    largest: BTreeSet<(usize, Network)>,
}

/// The sessions of a party.
#[derive(Debug, Default)]
struct Group {
    /// Those that were not verified when they were last looked at.
    unverified: BTreeSet<u64>,
    verified: BTreeSet<u64>,
    /// The number at which the next sample starts.
    cursor: u64,
}

impl Group {
    fn len(&self) -> usize {
        self.unverified.len() + self.verified.len()
    }

    fn remove(&mut self, number: u64) {
        self.unverified.remove(&number);
        self.verified.remove(&number);
    }

    fn promote(&mut self, number: u64) {
        self.unverified.remove(&number);
        self.verified.insert(number);
    }

    /// Returns some of the verified sessions, in rotation.
    fn sample(&mut self) -> Vec<u64> {
        let after = self.verified.range(self.cursor..);
        let sample: Vec<_> = after.chain(self.verified.range(..self.cursor)).take(SAMPLE).copied().collect();
        self.cursor = sample.last().map_or(0, |last| last + 1);
        sample
    }
}

/// The sessions among which one is searched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    All,
    Host(Host),
    Network(Network),
}

impl Table {
    /// Returns the number of sessions.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Returns all sessions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Running> {
        self.running.values()
    }

    /// Returns a session.
    pub(super) fn get(&self, number: u64) -> Option<&Running> {
        self.running.get(&number)
    }

    /// Returns the sessions of a client's port, the older first.
    pub(super) fn at_port(&self, client: SocketAddr) -> &[u64] {
        self.ports.get(&client).map_or(&[], |sessions| sessions)
    }

    /// Returns the number of sessions of a host.
    pub(super) fn count_of_host(&self, host: Host) -> usize {
        self.hosts.get(&host).map_or(0, Group::len)
    }

    /// Returns the number of sessions of a network.
    pub(super) fn count_of_network(&self, network: Network) -> usize {
        self.networks.get(&network).map_or(0, Group::len)
    }

    /// Returns the network with the most sessions, and their number.
    pub(super) fn largest_network(&self) -> Option<(usize, Network)> {
        self.largest.last().copied()
    }

    pub(super) fn insert(&mut self, running: Running) {
        let (client, number) = (running.handle.client, running.handle.number);
        let host = Host::of(client);
        self.running.insert(number, running);
        self.ports.entry(client).or_default().push(number);
        self.all.unverified.insert(number);
        self.hosts.entry(host).or_default().unverified.insert(number);
        self.resize(host.network(), |group| _ = group.unverified.insert(number));
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Running> {
        let removed = self.running.remove(&number)?;
        let client = removed.handle.client;
        let host = Host::of(client);
        self.all.remove(number);
        if let Some(numbers) = self.ports.get_mut(&client) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.ports.remove(&client);
            }
        }
        if let Some(group) = self.hosts.get_mut(&host) {
            group.remove(number);
            if group.len() == 0 {
                self.hosts.remove(&host);
            }
        }
        self.resize(host.network(), |group| group.remove(number));
        Some(removed)
    }

    /// Changes the sessions of a network.
    fn resize(&mut self, network: Network, change: impl FnOnce(&mut Group)) {
        let group = self.networks.entry(network).or_default();
        self.largest.remove(&(group.len(), network));
        change(group);
        let count = group.len();
        if count == 0 {
            self.networks.remove(&network);
        } else {
            self.largest.insert((count, network));
        }
    }

    fn group(&mut self, scope: Scope) -> Option<&mut Group> {
        match scope {
            Scope::All => Some(&mut self.all),
            Scope::Host(host) => self.hosts.get_mut(&host),
            Scope::Network(network) => self.networks.get_mut(&network),
        }
    }

    /// Returns the oldest unverified session. After `None`, all sessions of the scope are known to be verified.
    pub(super) fn oldest_unverified(&mut self, scope: Scope) -> Option<u64> {
        loop {
            let number = *self.group(scope)?.unverified.first()?;
            let handle = self.running.get(&number).map(|running| &running.handle);
            let client = handle.filter(|handle| handle.is_verified() || handle.has_just_answered());
            let Some(host) = client.map(|handle| Host::of(handle.client)) else { return Some(number) };
            for scope in [Scope::All, Scope::Host(host), Scope::Network(host.network())] {
                self.group(scope).into_iter().for_each(|group| group.promote(number));
            }
        }
    }

    /// Returns the slowest of some verified sessions, and the time between its steps of progress.
    pub(super) fn slowest(&mut self, scope: Scope, now: Instant) -> Option<(Duration, u64)> {
        let sample = self.group(scope)?.sample();
        sample.into_iter().filter_map(|number| Some((self.running.get(&number)?.handle.gap(now), number))).max()
    }

    /// Returns whether nothing is left of any session.
    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        let Self { running, ports, all, hosts, networks, largest } = self;
        let is_clear = ports.is_empty() && hosts.is_empty() && networks.is_empty() && largest.is_empty();
        running.is_empty() && is_clear && all.len() == 0
    }
}
