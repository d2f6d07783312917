//! Admission of read requests: the table of sessions, with its limits, duplicates and evictions.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rtftp_core::{
    Instant,
    wire::packet::{Mode, Options, Request},
};
use smol::channel::{Receiver, Sender, bounded};

use crate::{clock, last_seen::LastSeen, net::Route};

/// A copy of a request that arrives within this time of the client's last packet was sent before the client received the first
/// reply.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(1);

/// The limits on the number of transfers.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// The largest number of transfers.
    pub transfers: usize,
    /// The largest number of transfers to one address, whatever the port.
    pub per_client: usize,
}

/// A read request. It owns its datagram, so that the session and the table of sessions can share it.
#[derive(Debug)]
pub(crate) struct ReadRequest {
    datagram: Box<[u8]>,
    file_len: usize,
    options_len: usize,
    mode: Mode,
}

impl ReadRequest {
    /// Copies a datagram that `request` has been parsed from.
    fn new(datagram: &[u8], request: &Request<'_>) -> Self {
        let (file_len, options_len) = (request.file.len(), request.options.as_bytes().len());
        Self { datagram: datagram.into(), file_len, options_len, mode: request.mode }
    }

    /// Returns the requested file name, which follows the opcode of two bytes.
    pub(crate) fn file(&self) -> &[u8] {
        self.datagram.get(2..2 + self.file_len).unwrap_or_default()
    }

    /// Returns the transfer mode.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the requested options, which are at the end of the datagram.
    pub(crate) fn options(&self) -> Options<'_> {
        let start = self.datagram.len().saturating_sub(self.options_len);
        Options::new(self.datagram.get(start..).unwrap_or_default())
    }
}

/// Delivers datagrams that arrive at the shared port to a transfer.
pub(crate) trait Delivery: Debug + Send + Sync {
    /// Delivers a datagram, and returns whether the transfer has this route.
    fn deliver(&self, datagram: &[u8], route: Route) -> bool;

    /// Ends the transfer: the client has closed its port.
    fn port_closed(&self);
}

/// The running sessions, by the client's address and port, which identify a transfer in TFTP.
#[derive(Debug)]
pub(crate) struct Sessions {
    capacity: Capacity,
    running: HashMap<SocketAddr, Running>,
    per_client: HashMap<IpAddr, usize>,
    /// The running sessions by number, except those known to be verified.
    unverified: BTreeMap<u64, Arc<SessionHandle>>,
    /// The number of sessions started so far.
    started: u64,
}

/// A session in the table. Dropping it ends the session.
#[derive(Debug)]
struct Running {
    request: Arc<ReadRequest>,
    handle: Arc<SessionHandle>,
    stop: Sender<&'static str>,
}

/// The state shared by a session and the table.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    client: SocketAddr,
    /// The number of the session, in the order of their start.
    number: u64,
    /// The time of the client's last packet after its request.
    pub(crate) last_seen: LastSeen,
    /// Delivers the datagrams of the session's transfer, once that runs, if it shares the port of requests.
    pub(crate) delivery: OnceLock<Box<dyn Delivery>>,
}

impl SessionHandle {
    /// Returns whether a copy of the request can have been sent before the client received a reply, so that it asks for nothing new.
    fn explains_copy(&self, now: Instant) -> bool {
        self.last_seen.last().is_none_or(|last| now.since(last) < DUPLICATE_WINDOW)
    }
}

/// An admitted request.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) request: Arc<ReadRequest>,
    pub(crate) handle: Arc<SessionHandle>,
    /// Receives the reason to abort the session; closed when the client's next request replaces it.
    pub(crate) stop: Receiver<&'static str>,
}

/// The decision about a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Start a session.
    Start(Admitted),
    /// Ignore a duplicate of a request that is being answered.
    Duplicate,
    /// Reject the request, for this reason.
    Full(&'static str),
}

impl Sessions {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { capacity, running: HashMap::new(), per_client: HashMap::new(), unverified: BTreeMap::new(), started: 0 }
    }

    /// Returns the number of running sessions.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Returns whether no session is running.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Returns the running session of a client's port.
    pub(crate) fn get(&self, client: SocketAddr) -> Option<Arc<SessionHandle>> {
        self.running.get(&client).map(|running| running.handle.clone())
    }

    /// Decides about a request, parsed from `datagram`. A new request from the same port replaces the session before.
    pub(crate) fn admit(&mut self, client: SocketAddr, datagram: &[u8], request: &Request<'_>) -> Admission {
        match self.running.get(&client) {
            Some(same) if *same.request.datagram == *datagram && same.handle.explains_copy(clock::now()) => {
                return Admission::Duplicate;
            }
            Some(_) => self.remove(client),
            None => {}
        }
        if self.per_client.get(&client.ip()).is_some_and(|&sessions| sessions >= self.capacity.per_client) {
            return Admission::Full("too many transfers to this client");
        }
        if self.running.len() >= self.capacity.transfers && !self.evict_unverified(client.ip()) {
            return Admission::Full("too many transfers");
        }
        Admission::Start(self.start(client, Arc::new(ReadRequest::new(datagram, request))))
    }

    fn start(&mut self, client: SocketAddr, request: Arc<ReadRequest>) -> Admitted {
        self.started += 1;
        let (number, last_seen) = (self.started, LastSeen::default());
        let handle = Arc::new(SessionHandle { client, number, last_seen, delivery: OnceLock::new() });
        let (stop, stopped) = bounded(1);
        self.running.insert(client, Running { request: request.clone(), handle: handle.clone(), stop });
        *self.per_client.entry(client.ip()).or_default() += 1;
        self.unverified.insert(number, handle.clone());
        Admitted { request, handle, stop: stopped }
    }

    /// Removes a session that has ended, unless another one has replaced it.
    pub(crate) fn finish(&mut self, handle: &Arc<SessionHandle>) {
        if self.running.get(&handle.client).is_some_and(|running| Arc::ptr_eq(&running.handle, handle)) {
            self.remove(handle.client);
        }
    }

    /// Aborts all sessions.
    pub(crate) fn stop_all(&self, reason: &'static str) {
        for running in self.running.values() {
            // Fails if the session has just ended.
            let _ = running.stop.try_send(reason);
        }
    }

    /// Ends the oldest unverified session, and returns whether there was one. One of the newcomer's address comes first: requests
    /// with forged addresses must not keep other clients out, and a client that floods the server evicts only its own sessions.
    fn evict_unverified(&mut self, newcomer: IpAddr) -> bool {
        while let Some(first) = self.unverified.first_entry().filter(|first| first.get().last_seen.is_verified()) {
            first.remove();
        }
        let clients = || {
            let unverified = self.unverified.values().filter(|handle| !handle.last_seen.is_verified());
            unverified.map(|handle| handle.client)
        };
        let is_known = self.per_client.contains_key(&newcomer);
        let own = if is_known { clients().find(|client| client.ip() == newcomer) } else { None };
        let oldest = own.or_else(|| clients().next());
        oldest.inspect(|oldest| self.remove(*oldest)).is_some()
    }

    fn remove(&mut self, client: SocketAddr) {
        let Some(removed) = self.running.remove(&client) else { return };
        self.unverified.remove(&removed.handle.number);
        if let Some(sessions) = self.per_client.get_mut(&client.ip()) {
            *sessions -= 1;
            if *sessions == 0 {
                self.per_client.remove(&client.ip());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rtftp_core::Packet;

    use super::*;

    const A: &[u8] = b"\x00\x01a\0octet\0";
    const B: &[u8] = b"\x00\x01b\0octet\0";

    fn sessions(transfers: usize, per_client: usize) -> Sessions {
        Sessions::new(Capacity { transfers, per_client })
    }

    fn client(last: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, last], port).into()
    }

    fn admit(sessions: &mut Sessions, client: SocketAddr, datagram: &[u8]) -> Admission {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { panic!("not a read request") };
        sessions.admit(client, datagram, &request)
    }

    #[track_caller]
    fn start(sessions: &mut Sessions, client: SocketAddr) -> (Arc<SessionHandle>, Receiver<&'static str>) {
        match admit(sessions, client, A) {
            Admission::Start(Admitted { handle, stop, .. }) => (handle, stop),
            other => panic!("not started: {other:?}"),
        }
    }

    #[test]
    fn keeps_fields_of_request() {
        let datagram = b"\x00\x01dir/f\0NETASCII\0blksize\x001024\0";
        let Admission::Start(admitted) = admit(&mut sessions(1, 1), client(1, 7), datagram) else { panic!("rejected") };
        let request = admitted.request;
        assert_eq!((request.file(), request.mode()), (&b"dir/f"[..], Mode::Netascii));
        assert_eq!(request.options().collect::<Vec<_>>(), [(&b"blksize"[..], &b"1024"[..])]);
    }

    #[test]
    fn ignores_duplicates_until_client_has_moved_on() {
        let mut sessions = sessions(9, 9);
        let (handle, _stop) = start(&mut sessions, client(1, 7));
        assert!(matches!(admit(&mut sessions, client(1, 7), A), Admission::Duplicate), "before the first packet");
        handle.last_seen.record(clock::now());
        assert!(matches!(admit(&mut sessions, client(1, 7), A), Admission::Duplicate), "sent before the reply");
        assert!(!handle.explains_copy(clock::now().after(Duration::from_secs(2))), "sent after a restart");
    }

    #[test]
    fn replaces_session_of_same_port() {
        let mut sessions = sessions(9, 9);
        let (first, stop) = start(&mut sessions, client(1, 7));
        let Admission::Start(second) = admit(&mut sessions, client(1, 7), B) else { panic!("rejected") };
        assert!(stop.is_closed());
        sessions.finish(&first);
        assert!(!sessions.is_empty(), "the end of the first session removed the second");
        sessions.finish(&second.handle);
        assert!(sessions.is_empty() && sessions.per_client.is_empty());
    }

    #[test]
    fn limits_sessions_per_client() {
        let mut sessions = sessions(9, 2);
        let (first, _stop) = start(&mut sessions, client(1, 1));
        let _second = start(&mut sessions, client(1, 2));
        assert!(matches!(admit(&mut sessions, client(1, 3), A), Admission::Full(_)));
        let _other = start(&mut sessions, client(2, 3));
        sessions.finish(&first);
        start(&mut sessions, client(1, 3));
    }

    #[test]
    fn evicts_oldest_unverified_session() {
        let mut sessions = sessions(3, 9);
        let (verified, _stop) = start(&mut sessions, client(1, 1));
        verified.last_seen.record(clock::now());
        let (_, oldest) = start(&mut sessions, client(2, 1));
        let (later, _stop) = start(&mut sessions, client(3, 1));
        let (new, _stop) = start(&mut sessions, client(4, 1));
        assert!(oldest.is_closed());
        later.last_seen.record(clock::now());
        new.last_seen.record(clock::now());
        assert!(matches!(admit(&mut sessions, client(5, 1), A), Admission::Full(_)), "all are verified");
        assert_eq!(sessions.running.len(), 3);
    }

    #[test]
    fn evicts_session_of_same_client_first() {
        let mut sessions = sessions(3, 9);
        let (_, other) = start(&mut sessions, client(1, 1));
        let (_, first) = start(&mut sessions, client(2, 1));
        let (_, second) = start(&mut sessions, client(2, 2));
        let _third = start(&mut sessions, client(2, 3));
        assert!((first.is_closed(), second.is_closed(), other.is_closed()) == (true, false, false));
        let _newcomer = start(&mut sessions, client(3, 1));
        assert!(other.is_closed(), "the oldest is evicted for another address");
    }

    /// Ended sessions must not displace running ones from the list of unverified sessions: those could not be evicted any more.
    #[test]
    fn keeps_running_sessions_evictable_after_many_short_ones() {
        let mut sessions = sessions(4, 4);
        let _running: Vec<_> = (1..4).map(|last| start(&mut sessions, client(last, 9))).collect();
        for port in 0..1000 {
            let (handle, _stop) = start(&mut sessions, client(9, port));
            sessions.finish(&handle);
        }
        assert_eq!(sessions.unverified.len(), 3);
        let _new: Vec<_> = (11..15).map(|last| start(&mut sessions, client(last, 9))).collect();
    }
}
