//! The socket of a transfer.

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
use rustix::net::{SendFlags, send};

use super::{
    Route, fragments, is_exhausted, open,
    ports::Ports,
    unknown_tid::{UnknownTidSocket, UnknownTidSockets},
};
use crate::{
    clock,
    event_loop::{EventLoop, Registered},
};

/// The kernel's limits for one segmented send: the number of datagrams, and the largest UDP payload in bytes.
const MAX_SEGMENTS: usize = 64;
const MAX_PAYLOAD: usize = 65_507;
/// The number of calls that may report an ICMP error of another client at a shared port before one datagram counts as lost.
const MAX_PENDING_ERRORS: u32 = 4;

/// The socket of a transfer: connected to the client, on a port of its own, the server's transfer identifier (RFC 1350 section 4).
///
/// Alternatively a duplicate of the listening socket. The listener then receives for the transfer, which is identified by the
/// client's address and port alone.
#[derive(Debug)]
pub(crate) struct TransferSocket {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    /// The source address of replies, if the socket is the listener's, which may have several addresses.
    shared_from: Option<IpAddr>,
    /// Whether the kernel splits a buffer into datagrams (`UDP_SEGMENT`), until that fails on this path.
    segmentation: bool,
    /// Whether datagrams may be fragmented on the way.
    fragments: bool,
    /// Whether the network has reported that nobody receives at the client's port.
    is_port_closed: bool,
    /// The reason why this machine did not send the last datagram; `None` if it did.
    send_error: Option<io::Error>,
    unknown_tid: Option<UnknownTidSocket>,
    /// Opens `unknown_tid` when the client has answered: a forged request costs one socket only.
    unknown_tids: Option<Arc<UnknownTidSockets>>,
}

impl TransferSocket {
    /// Opens a socket on a port for transfers and connects it, or duplicates the listening socket.
    ///
    /// # Errors
    ///
    /// There is no free port, or no route to the client.
    pub(crate) fn open(ports: &Ports, route: Route) -> io::Result<Self> {
        let is_fragmented = ports.fragmented_hosts().contains(route.client.ip(), clock::now());
        if let Some(shared) = ports.shared_socket() {
            let socket = Self::new(shared.try_clone()?, route.client, Some(route.local));
            return Ok(Self { fragments: is_fragmented, ..socket });
        }
        let local = match (route.local, route.client) {
            // A link-local address needs the interface it is on.
            (IpAddr::V6(ip), SocketAddr::V6(client)) => SocketAddrV6::new(ip, 0, 0, client.scope_id()).into(),
            (ip, _) => SocketAddr::new(ip, 0),
        };
        let context = |problem, error| {
            if is_exhausted(&error) { error } else { io::Error::other(format!("{problem}: {error}")) }
        };
        let socket = ports.open(local, open).map_err(|error| context("no port for a transfer", error))?;
        if let Err(error) = fragments::forbid(&socket, route.client) {
            log::debug!("{}: cannot set DF: {error}", route.client);
        }
        socket.connect(route.client).map_err(|error| context("no route to the client", error))?;
        let mut opened = Self::new(socket, route.client, None);
        if is_fragmented {
            opened.allow_fragments();
        }
        Ok(opened)
    }

    fn new(socket: UdpSocket, client: SocketAddr, shared_from: Option<IpAddr>) -> Self {
        Self {
            socket: Arc::new(socket),
            client,
            shared_from,
            segmentation: true,
            fragments: false,
            is_port_closed: false,
            send_error: None,
            unknown_tid: None,
            unknown_tids: None,
        }
    }

    /// Replies to unknown sources from the client's first datagram on, unless the port is shared. Without that, their datagrams are
    /// ignored.
    pub(crate) fn reply_to_unknown_sources(&mut self, sockets: &Arc<UnknownTidSockets>) {
        if !self.shares_port() {
            self.unknown_tids = Some(sockets.clone());
        }
    }

    fn open_unknown_tid(&mut self) {
        if let Some(sockets) = self.unknown_tids.take() {
            let opened = sockets.open(&self.socket);
            let report = |error: &io::Error| log::debug!("{}: no replies to unknown sources: {error}", self.client);
            self.unknown_tid = opened.inspect_err(report).ok();
        }
    }

    /// Returns the local address.
    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Registers the socket with an event loop: for sending and, unless the port is shared, for receiving.
    pub(crate) fn register(&self, event_loop: &Arc<EventLoop>) -> Registered {
        let register = if self.shares_port() { Registered::for_sending } else { Registered::new };
        register(event_loop, self.socket.clone())
    }

    /// Returns whether the port is the listening port.
    pub(crate) fn shares_port(&self) -> bool {
        self.shared_from.is_some()
    }

    /// Returns whether the client has closed its port (ICMP "port unreachable"), unless the port is shared: errors of that are in
    /// the listener's queue.
    pub(crate) fn is_port_closed(&self) -> bool {
        self.is_port_closed
    }

    /// Returns the reason why this machine did not send the last datagram, for example a rule of its firewall.
    pub(crate) fn take_send_error(&mut self) -> Option<io::Error> {
        self.send_error.take()
    }

    /// Returns whether an error means that the client has closed its port, and remembers it. No other socket sends from this port,
    /// so it is about an earlier datagram of this transfer.
    fn note_port_closed(&mut self, error: &io::Error) -> bool {
        let is_refused = error.kind() == io::ErrorKind::ConnectionRefused && !self.shares_port();
        self.is_port_closed |= is_refused;
        is_refused
    }

    /// Returns whether a datagram that arrived at the shared port on this route belongs to the transfer.
    pub(crate) fn has_route(&self, route: Route) -> bool {
        self.client == route.client && self.shared_from == Some(route.local)
    }

    /// Sends the datagrams in `buf`, of `segment` bytes each; the last may be shorter. Returns the number of bytes sent: all, or
    /// those before the first datagram that the send buffer has no space for.
    ///
    /// A datagram that the network rejects counts as sent: to the transfer it is lost, and its retransmission timer handles that.
    /// So does everything after the client has closed its port.
    pub(crate) fn send(&mut self, buf: &[u8], segment: usize) -> usize {
        // Other transfers send through the shared socket.
        if self.shares_port() && self.fragments {
            self.report_option(fragments::allow(&self.socket, self.client));
            let sent = self.send_datagrams(buf, segment);
            self.report_option(fragments::reset(&self.socket, self.client));
            return sent;
        }
        self.send_datagrams(buf, segment)
    }

    fn send_datagrams(&mut self, buf: &[u8], segment: usize) -> usize {
        // An error that is reported instead of sending: at a shared port, several clients may have caused some.
        let mut pending_errors = if self.shares_port() { MAX_PENDING_ERRORS } else { 1 };
        let mut sent = 0;
        while let Some(rest) = buf.get(sent..).filter(|rest| !rest.is_empty()) {
            let datagram = &rest[..segment.min(rest.len())];
            let max =
                if self.segmentation { (MAX_PAYLOAD / segment).clamp(1, MAX_SEGMENTS) * segment } else { segment };
            let batch = &rest[..max.min(rest.len())];
            let result = if let Some(local) = self.shared_from {
                send_from(&self.socket, Route { client: self.client, local }, batch, segment)
            } else if batch.len() > datagram.len() {
                send_segments(&self.socket, batch, segment)
            } else {
                send(&self.socket, datagram, SendFlags::empty()).map(drop).map_err(io::Error::from)
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return sent,
                Err(error) if self.note_port_closed(&error) => return buf.len(),
                // It may be a pending ICMP error for an earlier datagram.
                Err(_) if pending_errors > 0 => {
                    pending_errors -= 1;
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) && self.allow_fragments() => {
                    continue;
                }
                // The path has no checksum offload, or the segment exceeds its MTU: fragments must be sent one datagram at a time.
                Err(error) if batch.len() > datagram.len() => {
                    log::debug!("{}: sending one datagram at a time: {error}", self.client);
                    self.segmentation = false;
                    continue;
                }
                Err(error) => {
                    log::debug!("{}: datagram not sent: {error}", self.client);
                    self.send_error = Some(error);
                }
                Ok(()) => self.send_error = None,
            }
            sent += batch.len();
        }
        sent
    }

    /// Allows the fragmentation of datagrams that exceed the path MTU. Returns whether that was not allowed before.
    pub(crate) fn allow_fragments(&mut self) -> bool {
        if self.fragments {
            return false;
        }
        self.fragments = true;
        if !self.shares_port() {
            self.report_option(fragments::allow(&self.socket, self.client));
        }
        true
    }

    fn report_option(&self, set: io::Result<()>) {
        if let Err(error) = set {
            log::debug!("{}: cannot change the fragmentation: {error}", self.client);
        }
    }

    /// Receives a datagram from the client, if one has arrived, and returns its length in `buf`. Receives nothing from a shared
    /// port, where the next datagram may be from another client.
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> Option<usize> {
        if self.shares_port() {
            return None;
        }
        // A pending ICMP error for an earlier datagram is reported first.
        for _ in 0..2 {
            match self.socket.recv(buf) {
                Ok(len) => {
                    self.open_unknown_tid();
                    return Some(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if self.note_port_closed(&error) => {}
                Err(error) => log::debug!("{}: cannot receive: {error}", self.client),
            }
        }
        None
    }
}

/// Sends a datagram from the listening port. An error that is pending for another client does not keep it from being sent.
pub(crate) fn send_reply(socket: &UdpSocket, route: Route, datagram: &[u8]) -> io::Result<()> {
    let mut sent = Ok(());
    for _ in 0..=MAX_PENDING_ERRORS {
        sent = send_from(socket, route, datagram, datagram.len());
        if sent.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            continue;
        }
        break;
    }
    sent
}

/// Sends several datagrams in one call (`UDP_SEGMENT`).
fn send_segments(socket: &UdpSocket, buf: &[u8], segment: usize) -> io::Result<()> {
    let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
    send_message(socket, None, buf, &[ControlMessage::UdpGsoSegments(&segment)])
}

/// Sends one or more datagrams in one call from one of the socket's addresses (`IP_PKTINFO`, `IPV6_PKTINFO`).
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
            // A link-local address needs the interface it is on, which the client's address contains.
            v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let control = [source, ControlMessage::UdpGsoSegments(&segment)];
    send_message(socket, Some(route.client), buf, if is_one { &control[..1] } else { &control })
}

/// Calls `sendmsg` with control messages, to `client` or to the connected address.
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
    fn replies_from_shared_port() {
        let event_loop = event_loop();
        let (four, six) = ((loopback(7), loopback(5)), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()));
        for (listen, (from, to)) in [(None, four), (None, six), (Some(four.1), four), (Some(six.1), six)] {
            let listener = Listener::bind(&event_loop, listen, 0).expect("a listener");
            let ports = Ports::shared(listener.share().expect("a descriptor"));
            let server = SocketAddr::new(to, listener.local_addr().expect("bound").port());
            let (client, route) = request_to(&listener, &event_loop, from, to);
            let mut socket = TransferSocket::open(&ports, route).expect("the port");
            assert!(socket.has_route(route) && !socket.has_route(Route { local: loopback(6), ..route }));
            // One datagram, and several in one call.
            assert_eq!((socket.send(b"answer", 6), socket.send(b"parts", 2)), (6, 5));
            assert!(socket.segmentation);
            let mut buf = [0; 64];
            for expected in [&b"answer"[..], b"pa", b"rt", b"s"] {
                let (len, sender) = client.recv_from(&mut buf).expect("a reply");
                assert_eq!((&buf[..len], sender), (expected, server));
            }
            client.send_to(b"datagram", server).expect("sent");
            assert_eq!(socket.recv(&mut buf), None);
            let (len, _) = event_loop.block_on(listener.recv(&mut buf)).expect("received by the listener");
            assert_eq!(&buf[..len], b"datagram");
        }
    }

    #[test]
    fn notes_closed_port_and_receives_datagrams_sent_before() {
        let event_loop = event_loop();
        for sends in [false, true] {
            let (client, route) = request(&event_loop, None, loopback(7), loopback(1));
            let mut socket = TransferSocket::open(&Ports::default(), route).expect("a port");
            client.send_to(b"data", socket.local_addr().expect("bound")).expect("sent");
            drop(client);
            assert_eq!(socket.send(b"unreachable", 11), 11);
            assert!(!socket.is_port_closed(), "the network reports an error to the next call");
            if sends {
                assert_eq!(socket.send(b"two...", 3), 6, "nobody receives them");
            }
            assert_eq!(socket.recv(&mut [0; 64]), Some(4));
            assert!(socket.is_port_closed());
        }
    }

    #[test]
    fn errors_of_other_clients_lose_no_datagram_at_shared_port() {
        let event_loop = event_loop();
        let listener = Listener::bind(&event_loop, None, 0).expect("a listener");
        let ports = Ports::shared(listener.share().expect("a descriptor"));
        let (client, route) = request_to(&listener, &event_loop, loopback(7), loopback(1));
        let (other, other_route) = request_to(&listener, &event_loop, loopback(8), loopback(1));
        let mut socket = TransferSocket::open(&ports, route).expect("the port");
        drop(other);
        TransferSocket::open(&ports, other_route).expect("the port").send(b"unreachable", 11);
        assert_eq!(socket.send(b"two...", 3), 6);
        assert!(socket.segmentation && !socket.is_port_closed());
        let mut buf = [0; 64];
        assert_eq!([(); 2].map(|()| client.recv(&mut buf).expect("received")), [3, 3]);
        assert_eq!(listener.closed_ports().collect::<Vec<_>>(), [other_route.client]);
    }

    #[test]
    fn sends_buffer_as_datagrams_in_order() {
        let event_loop = event_loop();
        // Includes more segments and more bytes than one call takes, and segments above the loopback's MTU.
        let sizes = [(100, 3), (12, 200), (1472, 100), (65_468, 3)];
        let cases = sizes.into_iter().flat_map(|(segment, count)| [(segment, count, false), (segment, count, true)]);
        for (segment, count, shared) in cases {
            let listener = Listener::bind(&event_loop, None, 0).expect("a listener");
            let ports = if shared { Ports::shared(listener.share().expect("a descriptor")) } else { Ports::default() };
            let (client, route) = request_to(&listener, &event_loop, loopback(7), loopback(1));
            let mut socket = TransferSocket::open(&ports, route).expect("a port");
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
            // In parts that fit the send buffer, like windows.
            for part in sent.chunks(segment * 25) {
                assert_eq!(socket.send(part, segment), part.len());
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(receiver.join().expect("received") == sent, "segment {segment}, shared port: {shared}");
        }
    }
}
