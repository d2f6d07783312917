//! The client's socket of a transfer, and the server's address for it.

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

/// The size of the kernel's receive buffer in bytes: room for the windows that arrive while this program does not run.
const KERNEL_BUFFER: usize = 4 << 20;

/// The maximum number of errors that are taken from the socket's error queue at a time.
const MAX_QUEUED_ERRORS: usize = 64;

/// The socket of a transfer, with the two ports of RFC 1350 section 4.
#[derive(Debug)]
pub(super) struct TransferSocket {
    socket: Async<UdpSocket>,
    /// The destination: the port for requests, then the server's port for the transfer, from its first answer.
    server: SocketAddr,
    peer: Peer<IpAddr>,
    /// Whether a datagram was sent.
    has_sent: bool,
    /// The number of errors that concern the server since its last packet.
    unreachable: u32,
    unknown_tid_replies: UnknownTidReplies,
}

/// Consecutive datagrams of one source in the buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// The total length in bytes.
    pub(super) len: usize,
    /// The length of each datagram except the last, which may be shorter. Never 0.
    pub(super) segment: usize,
    pub(super) source: SocketAddr,
}

impl TransferSocket {
    /// Opens a socket for a transfer from this server.
    pub(super) fn open(server: SocketAddr) -> io::Result<Self> {
        let socket = open_for(server)?;
        set_receive_buffer(&socket, KERNEL_BUFFER)?;
        // The socket is not connected, since the server answers from another port. Without a connection, the kernel reports
        // closed ports only if requested (ip(7), `IP_RECVERR`).
        if server.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // Optional: without it, the kernel returns one datagram at a time.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        Ok(Self {
            socket: Async::new(socket)?,
            server,
            peer: Peer::new(server.ip(), server.port()),
            has_sent: false,
            unreachable: 0,
            unknown_tid_replies: UnknownTidReplies::default(),
        })
    }

    /// Returns the destination of datagrams.
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
    pub(super) async fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.server).await?;
        self.has_sent = true;
        Ok(())
    }

    /// Returns whether this machine has sent a datagram.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Receives datagrams.
    pub(super) async fn receive(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.socket.read_with(|socket| receive(socket, buf)).await
    }

    /// Replies ERROR 5 to an unknown source (RFC 1350 section 4).
    pub(super) fn reject(&mut self, source: SocketAddr, datagram: &[u8]) {
        self.unknown_tid_replies.reply(self.socket.get_ref(), source, datagram);
    }

    /// Returns whether the last error concerns the server's current port, not an unknown source or the port for requests.
    pub(super) fn error_concerns_server(&self) -> bool {
        let destinations = queued_errors(self.socket.get_ref());
        destinations.is_empty() || destinations.contains(&self.server)
    }

    /// Counts an error that concerns the server; returns the number of consecutive errors.
    pub(super) fn count_unreachable(&mut self) -> u32 {
        self.unreachable = self.unreachable.saturating_add(1);
        self.unreachable
    }
}

/// Receives a datagram, or several that the kernel has coalesced (`UDP_GRO`).
fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
    let mut iov = [IoSliceMut::new(buf)];
    let mut control = cmsg_space!(i32);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
    let source = message.address.and_then(|address| socket_addr(&address)).ok_or(io::ErrorKind::InvalidData)?;
    let segment = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
        _ => None,
    });
    Ok(Received { len: message.bytes, segment: segment.unwrap_or(message.bytes).max(1), source })
}

/// Empties the error queue of the socket; returns the destinations of the datagrams that caused the errors.
///
/// The socket stays readable as long as the queue is not empty, so waiting for it would become a busy loop.
fn queued_errors(socket: &UdpSocket) -> Vec<SocketAddr> {
    let mut buf = [0; 1];
    let next = || {
        let mut iov = [IoSliceMut::new(&mut buf)];
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, None, MsgFlags::MSG_ERRQUEUE).ok()?.address
    };
    std::iter::from_fn(next).take(MAX_QUEUED_ERRORS).filter_map(|address| socket_addr(&address)).collect()
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

    /// Returns the address of a port that rejects datagrams: its socket is connected to another one.
    fn closed_port() -> (UdpSocket, SocketAddr) {
        let (socket, address) = socket();
        socket.connect("127.0.0.1:1").expect("connected");
        (socket, address)
    }

    #[test]
    fn distinguishes_closed_ports_of_server_and_unknown_source() {
        let (_socket, closed) = closed_port();
        let mut client = TransferSocket::open(closed).expect("a socket");
        let mut buf = [0; 64];
        for times in 1..3 {
            block_on(client.send(b"\0\x04\0\0")).expect("sent");
            let error = block_on(client.receive(&mut buf)).expect_err("an error of the closed port");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(client.error_concerns_server());
            assert_eq!(client.count_unreachable(), times);
        }
        let (server, address) = socket();
        let mut client = TransferSocket::open(address).expect("a socket");
        client.reject(closed, b"\0\x04\0\0");
        assert!(block_on(client.receive(&mut buf)).is_err());
        assert!(!client.error_concerns_server(), "the port of the unknown source is closed, not the server's");
        let own = SocketAddr::from(([127, 0, 0, 1], client.socket.get_ref().local_addr().expect("bound").port()));
        server.send_to(b"answer", own).expect("sent");
        let received = block_on(client.receive(&mut buf)).expect("the error queue is empty");
        assert_eq!((received.len, received.segment, received.source), (6, 6, address));
    }
}
