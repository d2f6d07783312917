//! The socket of a fetch: a port of its own, and the server's once the server has chosen it.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use rtftp_core::{BlockSink, Packet, Peer, Receiver};
use smol::Async;

use crate::{
    clock,
    net::{UnknownTidReplies, open_for, set_receive_buffer, socket_addr},
};

/// Room for the windows that a server may send before this program has its turn, in bytes.
const WINDOWS_BUFFER: usize = 4 << 20;

/// How many complaints of the kernel are looked at in one go.
const MAX_COMPLAINTS: usize = 64;

/// The two ports of one transfer (RFC 1350 section 4).
#[derive(Debug)]
pub(super) struct Port {
    socket: Async<UdpSocket>,
    /// Where to send: the port for requests, and the server's own one from its first answer on.
    server: SocketAddr,
    peer: Peer<IpAddr>,
    /// How often the server was said to be out of reach since it was last heard.
    unreachable: u32,
    refusals: UnknownTidReplies,
}

/// Datagrams of one sender, one after the other in the buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// How many bytes they have together.
    pub(super) len: usize,
    /// The length of each; only the last may be shorter. Never 0.
    pub(super) segment: usize,
    pub(super) from: SocketAddr,
}

impl Port {
    /// Opens a port for a transfer from this server.
    pub(super) fn open(server: SocketAddr) -> io::Result<Self> {
        let socket = open_for(server)?;
        set_receive_buffer(&socket, WINDOWS_BUFFER)?;
        // The socket cannot be connected, since the server answers from another port; so word of a closed port comes only
        // when it is asked for (ip(7), `IP_RECVERR`).
        if server.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // Old kernels hand over one datagram at a time, which does as well.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        Ok(Self {
            socket: Async::new(socket)?,
            server,
            peer: Peer::new(server.ip(), server.port()),
            unreachable: 0,
            refusals: UnknownTidReplies::default(),
        })
    }

    /// Where datagrams go.
    pub(super) fn server(&self) -> SocketAddr {
        self.server
    }

    /// Returns whether a datagram from this source belongs to the transfer.
    pub(super) fn accepts(&self, source: SocketAddr) -> bool {
        self.peer.accepts((source.ip(), source.port()))
    }

    /// Passes a packet of the server to `receiver` and follows the server to its own port.
    pub(super) fn handle(
        &mut self,
        receiver: &mut Receiver,
        source: SocketAddr,
        packet: Packet<'_>,
        sink: &mut impl BlockSink,
    ) {
        let handled = self.peer.handle(receiver, clock::now(), (source.ip(), source.port()), packet, sink);
        if handled.is_ok() && receiver.has_peer() {
            self.server.set_port(self.peer.port());
            self.unreachable = 0;
        }
    }

    /// Sends a datagram to the server.
    pub(super) async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.server).await.map(|_| ())
    }

    /// Waits for datagrams.
    pub(super) async fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.socket.read_with(|socket| recv(socket, buf)).await
    }

    /// Tells a stranger that it is one.
    pub(super) fn refuse(&mut self, stranger: SocketAddr, datagram: &[u8]) {
        self.refusals.reply(self.socket.get_ref(), stranger, datagram);
    }

    /// Whether the error that a call has just returned is about the server, not about a stranger or the port for requests.
    pub(super) fn concerns_server(&self) -> bool {
        let complaints = complaints(self.socket.get_ref());
        complaints.is_empty() || complaints.contains(&self.server)
    }

    /// Notes that the server is said to be out of reach; returns how often that was said in a row.
    pub(super) fn unreachable(&mut self) -> u32 {
        self.unreachable = self.unreachable.saturating_add(1);
        self.unreachable
    }
}

/// Receives one datagram, or several at once when the kernel has them together (`UDP_GRO`).
fn recv(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
    let mut iov = [IoSliceMut::new(buf)];
    let mut control = cmsg_space!(i32);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
    let from = message.address.and_then(|address| socket_addr(&address)).ok_or(io::ErrorKind::InvalidData)?;
    let segment = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
        _ => None,
    });
    Ok(Received { len: message.bytes, segment: segment.unwrap_or(message.bytes).max(1), from })
}

/// Takes the errors that came back over the network out of the socket, and returns where they came from.
///
/// They must be taken: as long as one is left the socket counts as readable, and waiting for it would be a busy loop.
fn complaints(socket: &UdpSocket) -> Vec<SocketAddr> {
    let mut buf = [0; 1];
    let next = || {
        let mut iov = [IoSliceMut::new(&mut buf)];
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, None, MsgFlags::MSG_ERRQUEUE).ok()?.address
    };
    std::iter::from_fn(next).take(MAX_COMPLAINTS).filter_map(|address| socket_addr(&address)).collect()
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    /// A port that nobody listens on, as long as the socket lives: it hears one other port only.
    fn closed() -> (UdpSocket, SocketAddr) {
        let (socket, address) = socket();
        socket.connect("127.0.0.1:1").expect("connected");
        (socket, address)
    }

    #[test]
    fn a_closed_port_is_told_apart_from_that_of_a_stranger() {
        let (_held, nobody) = closed();
        let mut port = Port::open(nobody).expect("a port");
        let mut buf = [0; 64];
        for times in 1..3 {
            block_on(port.send(b"\0\x04\0\0")).expect("sent");
            let error = block_on(port.recv(&mut buf)).expect_err("word of a closed port");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(port.concerns_server());
            assert_eq!(port.unreachable(), times);
        }
        let (server, address) = socket();
        let mut port = Port::open(address).expect("a port");
        port.refuse(nobody, b"\0\x04\0\0");
        assert!(block_on(port.recv(&mut buf)).is_err());
        assert!(!port.concerns_server(), "the stranger's port is closed, not the server's");
        let own = SocketAddr::from(([127, 0, 0, 1], port.socket.get_ref().local_addr().expect("bound").port()));
        server.send_to(b"answer", own).expect("sent");
        let received = block_on(port.recv(&mut buf)).expect("all errors are taken out");
        assert_eq!((received.len, received.segment, received.from), (6, 6, address));
    }
}
