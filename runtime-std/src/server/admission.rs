//! The table of running sessions: who is being answered, which requests are copies, and how many there may be.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rtftp_core::Instant;
use smol::channel::{Receiver, Sender, bounded};

use crate::{clock, last_seen::LastSeen, server::transfer::Delivery};

/// A second copy of a request within this time of the client's last packet left before the client knew of our first answer.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// How many transfers there may be.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// In all.
    pub transfers: usize,
    /// For one client's address, whatever its ports.
    pub per_client: usize,
}

/// The sessions by their clients' addresses and ports: what TFTP tells them apart by.
#[derive(Debug)]
pub(crate) struct Sessions {
    capacity: Capacity,
    running: HashMap<SocketAddr, Running>,
    per_client: HashMap<IpAddr, usize>,
    /// The running sessions by their numbers, but for those that are known to be proven.
    unproven: BTreeMap<u64, Arc<SessionHandle>>,
    /// How many sessions there have been.
    started: u64,
}

/// A session in the table. Dropping it ends the session.
#[derive(Debug)]
struct Running {
    request: Vec<u8>,
    ticket: Arc<SessionHandle>,
    stop: Sender<&'static str>,
}

/// What a session and the table both know.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    client: SocketAddr,
    /// Counts the sessions from the first to the latest.
    number: u64,
    /// When the client was last heard.
    pub(crate) last_seen: LastSeen,
    /// Takes what comes for its transfer to a port that it shares, as soon as there is a transfer.
    pub(crate) delivery: OnceLock<Delivery>,
}

impl SessionHandle {
    /// Whether another copy of the request can be one that was under way already, and asks for nothing new.
    fn explains_copy(&self, now: Instant) -> bool {
        self.last_seen.last().is_none_or(|heard| now.since(heard) < SAME_REQUEST)
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is answered; word for its session comes through the channel, which is closed when the client asks for something else.
    Start(Arc<SessionHandle>, Receiver<&'static str>),
    /// It is a copy of one that is being answered.
    Copy,
    /// There are too many, for the reason given.
    Full(&'static str),
}

impl Sessions {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { capacity, running: HashMap::new(), per_client: HashMap::new(), unproven: BTreeMap::new(), started: 0 }
    }

    /// How many are running.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether none is running.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The running session of a client's port.
    pub(crate) fn of(&self, client: SocketAddr) -> Option<Arc<SessionHandle>> {
        self.running.get(&client).map(|running| running.ticket.clone())
    }

    /// Decides about a request. A client's port is its transfer: another request from it ends the session before.
    pub(crate) fn admit(&mut self, client: SocketAddr, request: &[u8]) -> Admission {
        match self.running.get(&client) {
            Some(same) if same.request == request && same.ticket.explains_copy(clock::now()) => {
                return Admission::Copy;
            }
            Some(_) => self.remove(client),
            None => {}
        }
        if self.per_client.get(&client.ip()).is_some_and(|&sessions| sessions >= self.capacity.per_client) {
            return Admission::Full("too many transfers to this client");
        }
        if self.running.len() >= self.capacity.transfers && !self.make_room(client.ip()) {
            return Admission::Full("too many transfers");
        }
        self.started += 1;
        let number = self.started;
        let ticket =
            Arc::new(SessionHandle { client, number, last_seen: LastSeen::default(), delivery: OnceLock::new() });
        let (stop, stopped) = bounded(1);
        self.running.insert(client, Running { request: request.to_vec(), ticket: ticket.clone(), stop });
        *self.per_client.entry(client.ip()).or_default() += 1;
        self.unproven.insert(ticket.number, ticket.clone());
        Admission::Start(ticket, stopped)
    }

    /// Takes a session out of the table that has come to its end, unless another has its place already.
    pub(crate) fn finish(&mut self, ticket: &Arc<SessionHandle>) {
        if self.is_running(ticket) {
            self.remove(ticket.client);
        }
    }

    /// Sends word to all sessions.
    pub(crate) fn stop_all(&self, reason: &'static str) {
        for running in self.running.values() {
            // Nobody hears it in a session that is ending already.
            let _ = running.stop.try_send(reason);
        }
    }

    /// Ends the oldest session whose client has never answered, of the newcomer's own if there is one: strangers with forged
    /// addresses must not keep others out, and who asks a lot pushes only itself aside.
    fn make_room(&mut self, newcomer: IpAddr) -> bool {
        while let Some(first) = self.unproven.first_entry().filter(|first| first.get().last_seen.is_verified()) {
            first.remove();
        }
        let silent =
            || self.unproven.values().filter(|ticket| !ticket.last_seen.is_verified()).map(|ticket| ticket.client);
        let has_some = self.per_client.contains_key(&newcomer);
        let own = if has_some { silent().find(|client| client.ip() == newcomer) } else { None };
        let oldest = own.or_else(|| silent().next());
        oldest.inspect(|oldest| self.remove(*oldest)).is_some()
    }

    fn is_running(&self, ticket: &Arc<SessionHandle>) -> bool {
        self.running.get(&ticket.client).is_some_and(|running| Arc::ptr_eq(&running.ticket, ticket))
    }

    fn remove(&mut self, client: SocketAddr) {
        let Some(gone) = self.running.remove(&client) else { return };
        self.unproven.remove(&gone.ticket.number);
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
    use super::*;

    fn sessions(transfers: usize, per_client: usize) -> Sessions {
        Sessions::new(Capacity { transfers, per_client })
    }

    fn client(last: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, last], port).into()
    }

    #[track_caller]
    fn start(
        sessions: &mut Sessions,
        client: SocketAddr,
        request: &[u8],
    ) -> (Arc<SessionHandle>, Receiver<&'static str>) {
        match sessions.admit(client, request) {
            Admission::Start(ticket, stop) => (ticket, stop),
            other => panic!("not started: {other:?}"),
        }
    }

    #[test]
    fn copies_are_absorbed_until_the_client_has_moved_on() {
        let mut sessions = sessions(9, 9);
        let (ticket, _stop) = start(&mut sessions, client(1, 7), b"a");
        assert!(matches!(sessions.admit(client(1, 7), b"a"), Admission::Copy), "nothing heard yet");
        ticket.last_seen.record(clock::now());
        assert!(matches!(sessions.admit(client(1, 7), b"a"), Admission::Copy), "it was under way");
        let long_after = clock::now().after(Duration::from_secs(2));
        assert!(!ticket.explains_copy(long_after), "the client has started again");
    }

    #[test]
    fn another_request_from_the_same_port_takes_the_place() {
        let mut sessions = sessions(9, 9);
        let (first, stop) = start(&mut sessions, client(1, 7), b"a");
        let (second, _stop) = start(&mut sessions, client(1, 7), b"b");
        assert!(stop.is_closed());
        sessions.finish(&first);
        assert!(!sessions.is_empty(), "the first one's end is not the second one's");
        sessions.finish(&second);
        assert!(sessions.is_empty() && sessions.per_client.is_empty());
    }

    #[test]
    fn a_client_has_its_share() {
        let mut sessions = sessions(9, 2);
        let (first, _stop) = start(&mut sessions, client(1, 1), b"a");
        let _second = start(&mut sessions, client(1, 2), b"a");
        assert!(matches!(sessions.admit(client(1, 3), b"a"), Admission::Full(_)));
        let _other = start(&mut sessions, client(2, 3), b"a");
        sessions.finish(&first);
        start(&mut sessions, client(1, 3), b"a");
    }

    #[test]
    fn who_never_answers_makes_room_for_who_comes() {
        let mut sessions = sessions(3, 9);
        let (proven, _stop) = start(&mut sessions, client(1, 1), b"a");
        proven.last_seen.record(clock::now());
        let (_, forged) = start(&mut sessions, client(2, 1), b"a");
        let (later, _stop) = start(&mut sessions, client(3, 1), b"a");
        let (new, _stop) = start(&mut sessions, client(4, 1), b"a");
        assert!(forged.is_closed(), "the oldest one that has not answered");
        later.last_seen.record(clock::now());
        new.last_seen.record(clock::now());
        assert!(matches!(sessions.admit(client(5, 1), b"a"), Admission::Full(_)), "all are at work");
        assert_eq!(sessions.running.len(), 3);
    }

    #[test]
    fn who_asks_a_lot_pushes_only_itself_aside() {
        let mut sessions = sessions(3, 9);
        let (_, honest) = start(&mut sessions, client(1, 1), b"a");
        let (_, first) = start(&mut sessions, client(2, 1), b"a");
        let (_, second) = start(&mut sessions, client(2, 2), b"a");
        let _third = start(&mut sessions, client(2, 3), b"a");
        assert!((first.is_closed(), second.is_closed(), honest.is_closed()) == (true, false, false));
        let _stranger = start(&mut sessions, client(3, 1), b"a");
        assert!(honest.is_closed(), "the oldest one makes room for another address");
    }

    /// What had ended counted, and so pushed off the list what had not: that kept its place, and others out.
    #[test]
    fn short_requests_do_not_hide_the_strangers_that_stay() {
        let mut sessions = sessions(4, 4);
        let _standing: Vec<_> = (1..4).map(|last| start(&mut sessions, client(last, 9), b"a")).collect();
        for port in 0..1000 {
            let (ticket, _stop) = start(&mut sessions, client(9, port), b"a");
            sessions.finish(&ticket);
        }
        assert_eq!(sessions.unproven.len(), 3, "the list does not grow");
        let _new: Vec<_> = (11..15).map(|last| start(&mut sessions, client(last, 9), b"a")).collect();
    }
}
