use std::time::Duration;

use rtftp_core::{Packet, wire::packet::Mode};
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::net::Route;

const A: &[u8] = b"\x00\x01a\0octet\0";
const B: &[u8] = b"\x00\x01b\0octet\0";

fn sessions(transfers: usize, per_client: usize) -> Sessions {
    Sessions::new(Capacity { transfers, per_client }, false)
}

fn client(last: u8, port: u16) -> SocketAddr {
    ([10, 0, 0, last], port).into()
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(1_000_000 * seconds)
}

fn admit_at(sessions: &mut Sessions, now: Instant, client: SocketAddr, datagram: &[u8]) -> Admission {
    let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { panic!("not a read request") };
    sessions.admit_at(now, client, datagram, &request)
}

fn admit(sessions: &mut Sessions, client: SocketAddr, datagram: &[u8]) -> Admission {
    admit_at(sessions, at(1), client, datagram)
}

type Started = (Arc<SessionHandle>, Receiver<&'static str>);

#[track_caller]
fn start_at(sessions: &mut Sessions, now: Instant, client: SocketAddr, datagram: &[u8]) -> Started {
    match admit_at(sessions, now, client, datagram) {
        Admission::Start(Admitted { handle, stop, .. }) => (handle, stop),
        other => panic!("not started: {other:?}"),
    }
}

#[track_caller]
fn start(sessions: &mut Sessions, client: SocketAddr) -> Started {
    start_at(sessions, at(1), client, A)
}

/// A transfer that has ended, or not.
#[derive(Debug)]
struct Ended(bool);

impl Delivery for Ended {
    fn deliver(&self, _: &[u8], _: Route) -> bool {
        false
    }

    fn port_closed(&self) {}

    fn has_ended(&self) -> bool {
        self.0
    }
}

/// A transfer whose client has answered, but that has not received the answer yet.
#[derive(Debug)]
struct Answered(Arc<SessionHandle>);

impl Delivery for Answered {
    fn deliver(&self, _: &[u8], _: Route) -> bool {
        false
    }

    fn port_closed(&self) {}

    fn has_ended(&self) -> bool {
        self.0.note(at(1), 0);
        false
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
    handle.note(at(1), 0);
    assert!(matches!(admit(&mut sessions, client(1, 7), A), Admission::Duplicate), "sent before the reply");
    start_at(&mut sessions, at(3), client(1, 7), A);
}

#[test]
fn answers_same_request_after_end_of_transfer() {
    let mut sessions = sessions(9, 9);
    let (handle, stop) = start(&mut sessions, client(1, 7));
    handle.delivery.set(Box::new(Ended(true))).expect("a new session");
    start(&mut sessions, client(1, 7));
    assert!(stop.is_closed());
}

#[test]
fn replaces_unverified_session_of_same_port() {
    let mut sessions = sessions(9, 9);
    let (first, stop) = start(&mut sessions, client(1, 7));
    let (second, _stop) = start_at(&mut sessions, at(1), client(1, 7), B);
    assert!(stop.is_closed());
    sessions.finish(&first);
    assert!(!sessions.is_empty(), "the end of the first session removed the second");
    sessions.finish(&second);
    assert!(sessions.table.is_clear());
}

#[test]
fn replaces_active_session_of_same_port_once_client_is_verified() {
    let mut sessions = sessions(9, 9);
    let (first, stop) = start(&mut sessions, client(1, 7));
    first.note(at(1), 512);
    let (_, forged) = start_at(&mut sessions, at(2), client(1, 7), B);
    assert!(!stop.is_closed(), "one forged request ends the transfer");
    let (second, _stop) = start_at(&mut sessions, at(2), client(1, 7), b"\x00\x01c\0octet\0");
    assert!(forged.is_closed() && !stop.is_closed());
    second.note(at(2), 512);
    assert!(stop.is_closed(), "the client uses the new transfer");
    sessions.finish(&first);
    sessions.finish(&second);
    assert!(sessions.table.is_clear());
}

#[test]
fn replaces_silent_session_of_same_port_at_once() {
    let mut sessions = sessions(9, 9);
    let (first, stop) = start(&mut sessions, client(1, 7));
    first.note(at(1), 512);
    start_at(&mut sessions, at(4), client(1, 7), B);
    assert!(stop.is_closed());
}

#[test]
fn replaces_session_at_shared_port_at_once() {
    let mut sessions = Sessions::new(Capacity { transfers: 9, per_client: 9 }, true);
    let (first, stop) = start(&mut sessions, client(1, 7));
    first.note(at(1), 512);
    start_at(&mut sessions, at(1), client(1, 7), B);
    assert!(stop.is_closed());
}

#[test]
fn limits_verified_sessions_per_client() {
    let mut sessions = sessions(9, 2);
    let running: Vec<_> = (1..=2).map(|port| start(&mut sessions, client(1, port))).collect();
    running.iter().for_each(|(handle, _)| handle.note(at(1), 512));
    assert!(matches!(admit(&mut sessions, client(1, 3), A), Admission::Full(Limit::PerClient)));
    let _other = start(&mut sessions, client(2, 3));
    sessions.finish(&running[0].0);
    start(&mut sessions, client(1, 3));
}

#[test]
fn forged_requests_do_not_lock_out_client() {
    let mut sessions = sessions(4096, 128);
    let (board, stop) = start(&mut sessions, client(1, 1));
    board.note(at(1), 512);
    for port in 1000..1500 {
        start(&mut sessions, client(1, port));
    }
    assert!(!stop.is_closed());
    let (new, stop) = start(&mut sessions, client(1, 2));
    new.note(at(1), 512);
    assert!(!stop.is_closed());
    assert_eq!(sessions.len(), 128);
}

#[test]
fn evicts_oldest_unverified_session_without_error() {
    let mut sessions = sessions(3, 9);
    let (verified, stop) = start(&mut sessions, client(1, 1));
    verified.note(at(1), 0);
    let (oldest, evicted) = start(&mut sessions, client(2, 1));
    let (later, _stop) = start(&mut sessions, client(3, 1));
    let (new, _stop) = start(&mut sessions, client(4, 1));
    assert!(evicted.is_closed() && evicted.try_recv().is_err() && !stop.is_closed());
    assert_eq!(oldest.end_reason(), Some(EVICTED));
    later.note(at(1), 0);
    new.note(at(1), 0);
    assert!(matches!(admit(&mut sessions, client(5, 1), A), Admission::Full(Limit::Transfers)), "all are verified");
    assert_eq!(sessions.len(), 3);
}

#[test]
fn receives_waiting_answer_before_eviction() {
    let mut sessions = sessions(2, 9);
    let (honest, stop) = start(&mut sessions, client(1, 1));
    honest.delivery.set(Box::new(Answered(honest.clone()))).expect("a new session");
    let (_, forged) = start(&mut sessions, client(2, 1));
    start(&mut sessions, client(3, 1));
    assert_eq!((stop.is_closed(), forged.is_closed()), (false, true));
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

/// The attack: 32 addresses, 128 transfers each, an acknowledgement every 25 s.
#[test]
fn slow_transfers_of_few_addresses_do_not_lock_out_others() {
    let mut sessions = sessions(4096, 128);
    let mut slow = vec![];
    for number in 0..4096 {
        if let Admission::Start(admitted) = admit(&mut sessions, client((number / 128) as u8, 1000 + number % 128), A) {
            admitted.handle.note(at(1), 0);
            slow.push(admitted);
        }
    }
    println!("the attack holds {} of 4096 places", slow.len());
    slow.iter().for_each(|slow| slow.handle.note(at(26), 512));
    let mut boards = vec![];
    for port in 0..500 {
        let (board, stop) = start_at(&mut sessions, at(27), client(200 + (port / 100) as u8, port), A);
        board.note(at(27), 512);
        boards.push((board, stop));
    }
    assert!(boards.iter().all(|(_, stop)| !stop.is_closed()), "a board was evicted");
    let evicted = slow.iter().filter(|slow| slow.stop.try_recv() == Ok(EVICTED)).count();
    println!("500 of 500 boards have a place, {evicted} slow transfers were ended");
    assert!(evicted > 0 && sessions.len() <= 4096);
}

#[test]
fn evicts_slowest_session_of_largest_network() {
    let mut sessions = sessions(4, 9);
    let network = |host: u16, port| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host], port));
    let ours: Vec<_> = (1..=3).map(|host| start(&mut sessions, network(host, 1))).collect();
    let (other, other_stop) = start(&mut sessions, client(1, 1));
    other.note(at(1), 0);
    for (index, (handle, _)) in ours.iter().enumerate() {
        handle.note(at(1), 0);
        handle.note(at(if index == 1 { 1 } else { 6 }), 512);
    }
    let (newcomer, _stop) = start_at(&mut sessions, at(7), client(2, 1), A);
    newcomer.note(at(7), 0);
    let closed: Vec<_> = ours.iter().map(|(_, stop)| stop.is_closed()).collect();
    assert_eq!((closed, other_stop.is_closed()), (vec![false, true, false], false));
}

#[test]
fn evicts_session_without_progress_if_all_networks_hold_one() {
    let mut sessions = sessions(8, 9);
    let running: Vec<_> = (0..8).map(|last| start(&mut sessions, client(last, 1))).collect();
    running.iter().for_each(|(handle, _)| handle.note(at(1), 0));
    running.iter().skip(1).for_each(|(handle, _)| handle.note(at(2), 512));
    assert!(matches!(admit_at(&mut sessions, at(9), client(9, 1), A), Admission::Full(Limit::Transfers)));
    running.iter().skip(1).for_each(|(handle, _)| handle.note(at(10), 1024));
    start_at(&mut sessions, at(12), client(9, 1), A);
    let closed: Vec<_> = running.iter().map(|(_, stop)| stop.is_closed()).collect();
    assert_eq!(closed.iter().position(|closed| *closed), Some(0));
}

#[test]
fn keeps_places_for_networks_that_hold_none() {
    let mut sessions = sessions(32, 32);
    let mine: Vec<_> = (0..30).map(|port| start(&mut sessions, client(1, port))).collect();
    mine.iter().for_each(|(handle, _)| handle.note(at(1), 0));
    assert!(matches!(admit(&mut sessions, client(1, 99), A), Admission::Full(Limit::Transfers)));
    let _others = [start(&mut sessions, client(2, 1)), start(&mut sessions, client(3, 1))];
    assert!(mine.iter().all(|(_, stop)| !stop.is_closed()));
}

#[test]
fn distinguishes_link_local_addresses_of_different_links() {
    let mut sessions = sessions(9, 1);
    let at = |scope| std::net::SocketAddrV6::new("fe80::5".parse().expect("an address"), 7, 0, scope).into();
    let (first, stop) = start(&mut sessions, at(1));
    first.note(clock::now(), 0);
    start(&mut sessions, at(2));
    assert!(!stop.is_closed());
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
    assert_eq!(sessions.len(), 3);
    let _new: Vec<_> = (11..15).map(|last| start(&mut sessions, client(last, 9))).collect();
}

/// A walk through a full table took 40 us in a release build.
#[test]
fn decides_quickly_with_full_table() {
    let mut sessions = sessions(4096, 4096);
    let mut handles = vec![];
    for number in 0..4096u32 {
        let address = ([10, 1, (number >> 8) as u8, number as u8], 7).into();
        let (handle, stop) = start(&mut sessions, address);
        handle.note(at(1), 512);
        handles.push((handle, stop));
    }
    // On a busy machine, the thread does not run all the time.
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a duration");
    let before = used();
    for number in 0..1000u32 {
        let address = ([10, 2, (number >> 8) as u8, number as u8], 7).into();
        let refused = admit_at(&mut sessions, at(2), address, A);
        assert!(matches!(refused, Admission::Full(_)));
    }
    let each = (used() - before) / 1000;
    println!("{each:?} for each decision with a full table");
    assert!(each < Duration::from_millis(1));
}
