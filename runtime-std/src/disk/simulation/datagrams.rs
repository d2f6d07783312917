//! A network in virtual time that loses, repeats and reorders datagrams.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::Mutex;
use rtftp_core::Instant;

use super::{
    network::{Link, Wire},
    power_cut::Random,
};
use crate::clock::{self, Timer};

/// The well-known port of TFTP.
pub(super) const TFTP_PORT: u16 = 69;

/// The network between boards and a server.
pub(super) struct Network {
    state: Mutex<State>,
    /// Whether it loses datagrams.
    pub(super) is_lossy: bool,
}

struct State {
    /// From and to the server.
    wires: [Wire; 2],
    inboxes: BTreeMap<SocketAddr, Inbox>,
    /// The number of datagrams until now.
    count: u64,
    next_port: u16,
}

/// A datagram: its time of arrival in microseconds, its number, its source and its bytes.
type Arrival = (u64, u64, SocketAddr, Vec<u8>);

/// The datagrams for a socket, the next one first.
#[derive(Default)]
struct Inbox {
    arrivals: BinaryHeap<Reverse<Arrival>>,
    waker: Option<Waker>,
}

impl Network {
    pub(super) fn new(random: &mut Random) -> Self {
        let is_lossy = random.below(4) > 0;
        let mut wire = || {
            let mut percent = |max| if is_lossy { random.below(max) as f64 / 100.0 } else { 0.0 };
            let (loss, duplicate, reorder) = (percent(8), percent(5), percent(5));
            let (delay, jitter) = (100 + random.below(20_000) as u64, random.below(2_000) as u64);
            let link = Link { delay, jitter, loss, duplicate, reorder, ..Link::default() };
            Wire::new(link, random.below(usize::MAX) as u64)
        };
        let state = State { wires: [wire(), wire()], inboxes: BTreeMap::new(), count: 0, next_port: 1024 };
        Self { state: Mutex::new(state), is_lossy }
    }

    /// Opens a socket at a port, or at one that nobody has used yet.
    pub(super) fn bind(self: &Arc<Self>, host: [u8; 4], port: Option<u16>) -> Socket {
        let mut state = self.state.lock();
        let port = port.unwrap_or_else(|| {
            state.next_port += 1;
            state.next_port
        });
        let address = (host, port).into();
        state.inboxes.insert(address, Inbox::default());
        Socket { network: self.clone(), address }
    }

    /// Returns the number of open sockets.
    pub(super) fn socket_count(&self) -> usize {
        self.state.lock().inboxes.len()
    }
}

/// A UDP socket.
pub(super) struct Socket {
    network: Arc<Network>,
    pub(super) address: SocketAddr,
}

impl Socket {
    /// Sends datagrams of `segment` bytes each; the last may be shorter.
    pub(super) fn send(&self, to: SocketAddr, datagrams: &[u8], segment: usize) {
        let State { wires, inboxes, count, .. } = &mut *self.network.state.lock();
        let is_from_server = self.address.ip() == IpAddr::from(super::SERVER_IP);
        let (wire, now) = (&mut wires[usize::from(is_from_server)], clock::now().as_micros());
        for datagram in datagrams.chunks(segment) {
            let Some(inbox) = inboxes.get_mut(&to) else { return };
            for at in wire.carry(now) {
                *count += 1;
                inbox.arrivals.push(Reverse((at, *count, self.address, datagram.to_vec())));
            }
            inbox.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Receives the next datagram and its source. Returns `None` if there is none until an instant; waits for ever without one.
    pub(super) async fn receive(&self, until: Option<Instant>) -> Option<(SocketAddr, Vec<u8>)> {
        let mut timer = None;
        poll_fn(|context| {
            let mut state = self.network.state.lock();
            let Some(inbox) = state.inboxes.get_mut(&self.address) else { return Poll::Ready(None) };
            let now = clock::now();
            let first = inbox.arrivals.peek().map(|Reverse((at, ..))| Instant::from_micros(*at));
            if first.is_some_and(|first| first <= now) {
                return Poll::Ready(inbox.arrivals.pop().map(|Reverse((_, _, from, datagram))| (from, datagram)));
            }
            if until.is_some_and(|until| until <= now) {
                return Poll::Ready(None);
            }
            inbox.waker = Some(context.waker().clone());
            if let Some(next) = first.into_iter().chain(until).min() {
                // In the future, and so never ready.
                let _ = Pin::new(timer.insert(Timer::at(clock::to_std(next)))).poll(context);
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.state.lock().inboxes.remove(&self.address);
    }
}
