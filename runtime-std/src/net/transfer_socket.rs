//! The socket of a transfer.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, UdpSocket},
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
    /// The registration from an earlier transfer.
    registered: Option<Registered>,
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
            let socket = Self::new(Arc::new(shared.try_clone()?), route.client, Some(route.local));
            return Ok(Self { fragments: is_fragmented, ..socket });
        }
        let context = |problem, error| {
            if is_exhausted(&error) { error } else { io::Error::other(format!("{problem}: {error}")) }
        };
        let open = |address| {
            let socket = open(address)?;
            if let Err(error) = fragments::forbid(&socket, route.client) {
                log::debug!("{}: cannot set DF: {error}", route.client);
            }
            Ok(socket)
        };
        let registered = ports.take_idle(route.local_address());
        let socket = match &registered {
            // It gets a new port when it is connected.
            Some(registered) => registered.share(),
            None => {
                let opened = ports.open(route.local_address(), open);
                Arc::new(opened.map_err(|error| context("no port for a transfer", error))?)
            }
        };
        socket.connect(route.client).map_err(|error| context("no route to the client", error))?;
        let mut opened = Self { registered, ..Self::new(socket, route.client, None) };
        if is_fragmented {
            opened.allow_fragments();
        }
        Ok(opened)
    }

    fn new(socket: Arc<UdpSocket>, client: SocketAddr, shared_from: Option<IpAddr>) -> Self {
        Self {
            socket,
            client,
            shared_from,
            segmentation: true,
            fragments: false,
            is_port_closed: false,
            send_error: None,
            unknown_tid: None,
            registered: None,
        }
    }

    /// Replies to unknown sources from now on, unless the port is shared. Before, the kernel answers them with ICMP "port
    /// unreachable".
    pub(crate) fn reply_to_unknown_sources(&mut self, sockets: &Arc<UnknownTidSockets>) {
        if !self.shares_port() && self.unknown_tid.is_none() {
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
    pub(crate) fn register(&mut self, event_loop: &Arc<EventLoop>) -> Registered {
        if let Some(registered) = self.registered.take_if(|registered| Arc::ptr_eq(registered.event_loop(), event_loop))
        {
            return registered;
        }
        self.registered = None;
        let register = if self.shares_port() { Registered::for_sending } else { Registered::new };
        register(event_loop, self.socket.clone())
    }

    /// Returns whether another transfer can use the socket after this one.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.shares_port() && !self.fragments
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
                Ok(len) => return Some(len),
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
mod tests;
