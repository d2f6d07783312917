//! Admission of read requests: the table of sessions, with its limits, duplicates and evictions.
//!
//! 1. The gate limits the rate of requests, so that a flood costs little.
//! 2. A copy of a request that is being answered is ignored. A new request from the port of a transfer that the client uses starts a
//!    session beside it, and replaces it once the client is verified: the request may be forged.
//! 3. If the host has too many sessions, or all places are taken, a session is evicted: an unverified one, else one of the network
//!    that holds the most, else one that makes hardly any progress. If there is none, the request is refused.

mod gate;
mod handle;
mod host;
mod request;
mod table;

use std::{net::SocketAddr, sync::Arc};

use rtftp_core::{Instant, wire::packet::Request};
use smol::channel::{Receiver, bounded};

use self::{
    gate::{Gate, KnownHosts},
    host::{Host, Network},
    table::{Running, Scope, Table},
};
pub(crate) use self::{
    handle::{Delivery, SessionHandle},
    request::ReadRequest,
};
use crate::clock;

/// One of this many places is kept for networks that hold none.
const RESERVED_SHARE: usize = 16;
/// The reason for the end of an evicted session: in the ERROR to a verified client, and in the history.
const EVICTED: &str = "the server needs the place";

/// The limits on the number of transfers.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// The largest number of transfers.
    pub transfers: usize,
    /// The largest number of transfers to one address, whatever the port.
    pub per_client: usize,
}

/// The running sessions. A client's address and port identify a transfer in TFTP.
#[derive(Debug)]
pub(crate) struct Sessions {
    capacity: Capacity,
    /// Whether transfers share the listening port, so that a client's port has one transfer only.
    shares_port: bool,
    table: Table,
    gate: Gate,
    known: Arc<KnownHosts>,
    /// The number of sessions started so far.
    started: u64,
}

/// An admitted request.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) request: Arc<ReadRequest>,
    pub(crate) handle: Arc<SessionHandle>,
    /// Whether the client has completed a round trip before.
    pub(crate) is_known: bool,
    /// Receives the reason to abort the session; closed when the session ends without an ERROR.
    pub(crate) stop: Receiver<&'static str>,
}

/// The decision about a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Start a session.
    Start(Admitted),
    /// Ignore a duplicate of a request that is being answered.
    Duplicate,
    /// Ignore the request: there are more than the server can look at.
    Ignored,
    /// Reject the request.
    Full(Limit),
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// That of all transfers.
    Transfers,
    /// That of the transfers to one address.
    PerClient,
}

impl Limit {
    /// Returns the text for the client.
    pub(crate) fn to_client(self) -> &'static str {
        match self {
            Self::Transfers => "too many transfers",
            Self::PerClient => "too many transfers to this client",
        }
    }

    /// Returns the option that sets the limit.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Transfers => "--max-transfers",
            Self::PerClient => "--max-per-client",
        }
    }
}

impl Sessions {
    pub(crate) fn new(capacity: Capacity, shares_port: bool) -> Self {
        let (table, gate, known) = (Table::default(), Gate::new(), Arc::default());
        Self { capacity, shares_port, table, gate, known, started: 0 }
    }

    /// Returns the maximum number of sessions.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity.transfers
    }

    /// Returns the number of running sessions.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether no session is running.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the running session of a client's port.
    pub(crate) fn get(&self, client: SocketAddr) -> Option<Arc<SessionHandle>> {
        let number = *self.table.at_port(client).first()?;
        self.table.get(number).map(|running| running.handle.clone())
    }

    /// Decides about a request, parsed from `datagram`.
    pub(crate) fn admit(&mut self, client: SocketAddr, datagram: &[u8], request: &Request<'_>) -> Admission {
        self.admit_at(clock::now(), client, datagram, request)
    }

    fn admit_at(&mut self, now: Instant, client: SocketAddr, datagram: &[u8], request: &Request<'_>) -> Admission {
        let host = Host::of(client);
        let is_known = self.known.contains(host);
        if !self.gate.allows(client, is_known, now) {
            return Admission::Ignored;
        }
        if self.is_duplicate(now, client, datagram) {
            return Admission::Duplicate;
        }
        if self.table.count_of_host(host) >= self.capacity.per_client && !self.evict_from_host(now, host) {
            return Admission::Full(Limit::PerClient);
        }
        let held = self.table.count_of_network(host.network());
        let reserved = if held == 0 { 0 } else { self.capacity.transfers / RESERVED_SHARE };
        if self.table.len() >= self.capacity.transfers - reserved && !self.make_place(now, host.network(), held) {
            return Admission::Full(Limit::Transfers);
        }
        Admission::Start(self.start(client, is_known, Arc::new(ReadRequest::new(datagram, request))))
    }

    /// Returns whether a request is a copy of one that is being answered. If not, ends the sessions of the same port that the client
    /// does not use any more.
    fn is_duplicate(&mut self, now: Instant, client: SocketAddr, datagram: &[u8]) -> bool {
        for number in self.table.at_port(client).to_vec() {
            let Some(Running { request, handle, .. }) = self.table.get(number) else { continue };
            let is_copy = request.datagram() == datagram && handle.explains_copy(now);
            if is_copy && !handle.has_ended() {
                return true;
            }
            // At a shared port, whoever can forge the request can forge an ERROR as well.
            if is_copy || self.shares_port || !handle.is_active(now) {
                self.table.remove(number);
            }
        }
        false
    }

    fn start(&mut self, client: SocketAddr, is_known: bool, request: Arc<ReadRequest>) -> Admitted {
        self.started += 1;
        let before = self.table.at_port(client).last().and_then(|number| self.table.get(*number));
        let replaces = before.map(|running| running.stop.clone());
        let handle = Arc::new(SessionHandle::new(client, self.started, replaces, self.known.clone()));
        let (stop, stopped) = bounded(1);
        self.table.insert(Running { request: request.clone(), handle: handle.clone(), stop });
        Admitted { request, handle, is_known, stop: stopped }
    }

    /// Removes a session that has ended.
    pub(crate) fn finish(&mut self, handle: &SessionHandle) {
        self.table.remove(handle.number);
    }

    /// Aborts all sessions.
    pub(crate) fn stop_all(&self, reason: &'static str) {
        for running in self.table.iter() {
            // Fails if the session has just ended.
            let _ = running.stop.try_send(reason);
        }
    }

    /// Evicts a session, because the system has no resources for that of `client`.
    pub(crate) fn evict_for(&mut self, client: SocketAddr) {
        let network = Host::of(client).network();
        self.make_place(clock::now(), network, self.table.count_of_network(network));
    }

    /// Evicts a session of a host that has too many, and returns whether there was one.
    fn evict_from_host(&mut self, now: Instant, host: Host) -> bool {
        let unverified = self.table.oldest_unverified(Scope::Host(host));
        unverified.or_else(|| self.slow(Scope::Host(host), now)).is_some_and(|number| self.evict(number))
    }

    /// Evicts a session for a newcomer whose network holds `held` places, and returns whether there was one. Unverified sessions come
    /// first, the newcomer's own before others: forged requests must not keep other clients out, and a client that floods the server
    /// evicts only its own sessions.
    fn make_place(&mut self, now: Instant, newcomer: Network, held: usize) -> bool {
        let own = self.table.oldest_unverified(Scope::Network(newcomer));
        let unverified = own.or_else(|| self.table.oldest_unverified(Scope::All));
        let evicted = unverified
            .or_else(|| {
                let (_, largest) = self.table.largest_network().filter(|(count, _)| *count > held + 1)?;
                self.table.slowest(Scope::Network(largest), now).map(|(_, number)| number)
            })
            .or_else(|| self.slow(Scope::All, now));
        evicted.is_some_and(|number| self.evict(number))
    }

    /// Returns a session that makes hardly any progress.
    fn slow(&mut self, scope: Scope, now: Instant) -> Option<u64> {
        let (_, number) = self.table.slowest(scope, now)?;
        self.table.get(number).filter(|running| running.handle.is_slow(now)).map(|running| running.handle.number)
    }

    fn evict(&mut self, number: u64) -> bool {
        let Some(Running { handle, stop, .. }) = self.table.remove(number) else { return false };
        // Fails if the session has just ended.
        let _ = handle.end.set(EVICTED);
        // An unverified client receives nothing: its address may be forged.
        if handle.is_verified() {
            let _ = stop.try_send(EVICTED);
        }
        true
    }
}

#[cfg(test)]
mod tests;
