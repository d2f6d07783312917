//! The socket of one transfer.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use rustix::net::{
    SendFlags, send,
    sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover, set_ip_mtu_discover},
};

use super::{
    Route, open,
    unknown_tid::{UnknownTidSocket, UnknownTidSockets},
};
use crate::{
    event_loop::{EventLoop, Socket},
    net::ports::Ports,
};

/// What the kernel takes in one call: 64 segments, and no more bytes than the largest UDP payload.
const MAX_SEGMENTS: usize = 64;
const MAX_BATCH: usize = 65_507;

/// The socket of one transfer: a port of its own, which is the transfer's identity (RFC 1350 section 4), and one client, which it is
/// connected to.
///
/// Or it is one more descriptor of the listener's socket. Then the listener receives for it, and the client's address and port alone
/// are the transfer's identity.
#[derive(Debug)]
pub(crate) struct TransferSocket {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    /// The address that answers come from, if the socket is the listener's, which may have many.
    shares: Option<IpAddr>,
    /// Whether the kernel cuts a buffer into datagrams for us, until it says that it cannot on this path.
    segmentation: bool,
    /// Keeps strangers away.
    guard: Option<UnknownTidSocket>,
}

impl TransferSocket {
    /// Opens a port for a transfer, or lets it share the listener's.
    ///
    /// # Errors
    ///
    /// There is no port, or no way to the client.
    pub(crate) fn new(ports: &Ports, route: Route) -> io::Result<Self> {
        if let Some(shared) = ports.shared() {
            return Ok(Self::on(shared.try_clone()?, route.client, Some(route.local)));
        }
        let local = match (route.local, route.client) {
            // A link-local address is complete only with the interface it is on.
            (IpAddr::V6(ip), SocketAddr::V6(client)) => SocketAddrV6::new(ip, 0, 0, client.scope_id()).into(),
            (ip, _) => SocketAddr::new(ip, 0),
        };
        let told = |what, error| io::Error::other(format!("{what}: {error}"));
        let socket = ports.open(local, open).map_err(|error| told("no port for a transfer", error))?;
        // Saves the kernel the numbering of datagrams for those who put fragments together, which is slow with many clients.
        if local.is_ipv4()
            && let Err(error) = set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)
        {
            log::debug!("{}: fragments are allowed: {error}", route.client);
        }
        socket.connect(route.client).map_err(|error| told("no way to the client", error))?;
        Ok(Self::on(socket, route.client, None))
    }

    fn on(socket: UdpSocket, client: SocketAddr, shares: Option<IpAddr>) -> Self {
        Self { socket: Arc::new(socket), client, shares, segmentation: true, guard: None }
    }

    /// Has everybody else who sends to the port told that it is not theirs. They do no harm to the transfer either way.
    pub(crate) fn guard(&mut self, guards: &Arc<UnknownTidSockets>) {
        if !self.shares_port() {
            let guard = guards.at(&self.socket);
            self.guard = guard.inspect_err(|error| log::debug!("{}: no guard: {error}", self.client)).ok();
        }
    }

    /// The transfer's own address.
    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The socket for waiting, until there is room to send or, unless the port is shared, something to receive.
    pub(crate) fn socket(&self, event_loop: &Arc<EventLoop>) -> Socket {
        let new = if self.shares_port() { Socket::to_send } else { Socket::new };
        new(event_loop, self.socket.clone())
    }

    /// Whether the port is the listener's.
    pub(crate) fn shares_port(&self) -> bool {
        self.shares.is_some()
    }

    /// Whether what came this way to a shared port is the client's word to this transfer.
    pub(crate) fn is_at(&self, route: Route) -> bool {
        self.client == route.client && self.shares == Some(route.local)
    }

    /// Sends datagrams that lie one after the other in `buf`, each `segment` bytes long, only the last may be shorter. Returns
    /// how many bytes have left: all, or those before the first datagram that there is no room for at the moment.
    ///
    /// A datagram that the network refuses is a lost one: the transfer's own timer is there for that.
    pub(crate) fn send(&mut self, buf: &[u8], segment: usize) -> usize {
        let (mut sent, mut complained) = (0, false);
        while let Some(rest) = buf.get(sent..).filter(|rest| !rest.is_empty()) {
            let datagram = &rest[..segment.min(rest.len())];
            let most = if self.segmentation { (MAX_BATCH / segment).clamp(1, MAX_SEGMENTS) * segment } else { segment };
            let batch = &rest[..most.min(rest.len())];
            let result = if let Some(local) = self.shares {
                send_from(&self.socket, Route { client: self.client, local }, batch, segment)
            } else if batch.len() > datagram.len() {
                send_segments(&self.socket, batch, segment)
            } else {
                send(&self.socket, datagram, SendFlags::empty()).map(drop).map_err(io::Error::from)
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return sent,
                // It may be the network's complaint about what was sent before, which comes instead of sending.
                Err(_) if !std::mem::replace(&mut complained, true) => continue,
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) && self.allow_fragments() => {
                    continue;
                }
                // No checksum offload on this path, or the segment exceeds the MTU: fragments must be sent one by one.
                Err(error) if batch.len() > datagram.len() => {
                    log::debug!("{}: sending one datagram at a time: {error}", self.client);
                    self.segmentation = false;
                    continue;
                }
                Err(error) => log::debug!("{}: datagram not sent: {error}", self.client),
                Ok(()) => {}
            }
            sent += batch.len();
        }
        sent
    }

    /// Lets the kernel send what is larger than the path takes in fragments; whether that is new.
    fn allow_fragments(&mut self) -> bool {
        let want = Ipv4PathMtuDiscovery::WANT;
        self.client.is_ipv4()
            && ip_mtu_discover(&self.socket) != Ok(want)
            && set_ip_mtu_discover(&self.socket, want).is_ok()
    }

    /// Receives a datagram of the client, if there is one, and returns its length in `buf`.
    ///
    /// From a shared port nothing is received here: it could be anybody's.
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> Option<usize> {
        if self.shares_port() {
            return None;
        }
        // The network's complaint about what was sent before comes first.
        for _ in 0..2 {
            match self.socket.recv(buf) {
                Ok(len) => return Some(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => log::debug!("{}: receiving: {error}", self.client),
            }
        }
        None
    }
}

/// Sends many datagrams in one call (`UDP_SEGMENT`).
fn send_segments(socket: &UdpSocket, buf: &[u8], segment: usize) -> io::Result<()> {
    let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
    send_message(socket, None, buf, &[ControlMessage::UdpGsoSegments(&segment)])
}

/// Sends a datagram, or many in one call, from one of the socket's addresses (`IP_PKTINFO`, `IPV6_PKTINFO`).
fn send_from(socket: &UdpSocket, route: Route, buf: &[u8], segment: usize) -> io::Result<()> {
    let is_one = buf.len() <= segment;
    let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (v4, v6);
    let source = match route.local {
        IpAddr::V4(ip) => {
            let none = libc::in_addr { s_addr: 0 };
            let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
            v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: none };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(ip) => {
            // A link-local address is complete only with the interface it is on, which that of the client names.
            v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let control = [source, ControlMessage::UdpGsoSegments(&segment)];
    send_message(socket, Some(route.client), buf, if is_one { &control[..1] } else { &control })
}

/// Sends what is to be sent in one call, the way that the control messages say, to whom the socket is connected unless an address is
/// given.
fn send_message(
    socket: &UdpSocket,
    client: Option<SocketAddr>,
    buf: &[u8],
    control: &[ControlMessage<'_>],
) -> io::Result<()> {
    let address = client.map(SockaddrStorage::from);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(buf)], control, MsgFlags::empty(), address.as_ref())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, time::Duration};

    use super::{
        super::{
            Listener,
            tests::{event_loop, loopback, request, request_to},
        },
        *,
    };

    #[test]
    fn answers_come_from_the_port_that_was_asked_if_it_is_shared() {
        let event_loop = event_loop();
        let (four, six) = ((loopback(7), loopback(5)), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()));
        for (listen, (from, to)) in [(None, four), (None, six), (Some(four.1), four), (Some(six.1), six)] {
            let listener = Listener::bind(&event_loop, listen, 0).expect("a listener");
            let ports = Ports::sharing(listener.share().expect("a descriptor"));
            let asked = SocketAddr::new(to, listener.local_addr().expect("bound").port());
            let (client, route) = request_to(&listener, &event_loop, from, to);
            let mut peer = TransferSocket::new(&ports, route).expect("the port");
            assert!(peer.is_at(route) && !peer.is_at(Route { local: loopback(6), ..route }));
            // One datagram, and several in one call.
            assert_eq!((peer.send(b"answer", 6), peer.send(b"parts", 2)), (6, 5));
            assert!(peer.segmentation);
            let mut buf = [0; 64];
            for expected in [&b"answer"[..], b"pa", b"rt", b"s"] {
                let (len, sender) = client.recv_from(&mut buf).expect("an answer");
                assert_eq!((&buf[..len], sender), (expected, asked));
            }
            client.send_to(b"word", asked).expect("sent");
            assert_eq!(peer.recv(&mut buf), None);
            let (len, _) = event_loop.block_on(listener.recv(&mut buf)).expect("it is the listener's");
            assert_eq!(&buf[..len], b"word");
        }
    }

    #[test]
    fn a_complaint_about_what_was_sent_before_loses_nothing() {
        let event_loop = event_loop();
        let (client, route) = request(&event_loop, None, loopback(7), loopback(1));
        let mut peer = TransferSocket::new(&Ports::default(), route).expect("a port");
        drop(client);
        for (datagrams, expected) in [(&b"one"[..], &["one"][..]), (b"two...", &["two", "..."])] {
            peer.send(b"into nowhere", 12);
            let client = UdpSocket::bind(route.client).expect("the same port again");
            client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
            assert_eq!(peer.send(datagrams, 3), datagrams.len());
            let mut buf = [0; 64];
            for datagram in expected {
                let len = client.recv(&mut buf).expect("received");
                assert_eq!(&buf[..len], datagram.as_bytes());
            }
        }
        assert!(peer.segmentation);
        peer.send(b"into nowhere", 12);
        let client = UdpSocket::bind(route.client).expect("the same port again");
        client.send_to(b"word", peer.local_addr().expect("bound")).expect("sent");
        assert_eq!(peer.recv(&mut [0; 64]), Some(4));
    }

    #[test]
    fn a_buffer_leaves_as_datagrams_in_order() {
        let event_loop = event_loop();
        // Also more segments, and more bytes, than one call can take, and segments above the loopback's MTU.
        let sizes = [(100, 3), (12, 200), (1472, 100), (65_468, 3)];
        let cases = sizes.into_iter().flat_map(|(segment, count)| [(segment, count, false), (segment, count, true)]);
        for (segment, count, shared) in cases {
            let listener = Listener::bind(&event_loop, None, 0).expect("a listener");
            let ports = if shared { Ports::sharing(listener.share().expect("a descriptor")) } else { Ports::default() };
            let (client, route) = request_to(&listener, &event_loop, loopback(7), loopback(1));
            let mut peer = TransferSocket::new(&ports, route).expect("a port");
            let sent: Vec<u8> = (0..segment * count - 5).map(|at| (at / 3) as u8).collect();
            let receiver = std::thread::spawn(move || {
                let mut received = vec![];
                let mut buf = vec![0; 65_536];
                for number in 1..=count {
                    let len = client.recv(&mut buf).expect("a datagram");
                    assert_eq!(len, if number == count { segment - 5 } else { segment });
                    received.extend_from_slice(&buf[..len]);
                }
                received
            });
            // Sent in parts that the socket's buffer holds, as a window is.
            for part in sent.chunks(segment * 25) {
                assert_eq!(peer.send(part, segment), part.len());
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(receiver.join().expect("all received") == sent, "segment {segment}, shared port: {shared}");
        }
    }
}
