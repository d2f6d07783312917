//! The socket that requests come to.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt, sockopt},
};

use super::{Route, make_room, open, socket_addr};
use crate::event_loop::{EventLoop, Socket};

/// How much room there is for requests that wait, in bytes as the kernel counts them: some 2 KiB each.
const REQUESTS_BUFFER: usize = 4 << 20;

/// How much room there is for answers that wait, if all leave from one socket, in bytes as the kernel counts them.
const ANSWERS_BUFFER: usize = 4 << 20;

/// The socket that requests come to.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
}

impl Listener {
    /// Listens on one address, or on all of IPv4 and IPv6. Port 0 takes a free one.
    pub(crate) fn bind(event_loop: &Arc<EventLoop>, ip: Option<IpAddr>, port: u16) -> io::Result<Self> {
        let socket = match ip {
            Some(ip) => open((ip, port).into())?,
            // One socket takes both, as Linux has it; a machine without IPv6 has IPv4 only.
            None => open((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|errno| match errno {
                Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL => open((Ipv4Addr::UNSPECIFIED, port).into()),
                _ => Err(errno),
            })?,
        };
        Self::on(event_loop, socket)
    }

    /// Listens on a socket that is bound already.
    pub(crate) fn on(event_loop: &Arc<EventLoop>, socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Room for the requests of a whole cluster that is switched on at once.
        make_room(&socket, REQUESTS_BUFFER)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket: Socket::new(event_loop, Arc::new(socket)) })
    }

    /// The address that is listened on.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }

    /// The socket once more, for those who answer from its port.
    pub(crate) fn share(&self) -> io::Result<UdpSocket> {
        let socket = self.socket.get();
        // With the room of one transfer, many would wait for each other; only root may have as much as it likes.
        if setsockopt(socket, sockopt::SndBufForce, &ANSWERS_BUFFER).is_err() {
            setsockopt(socket, sockopt::SndBuf, &ANSWERS_BUFFER)?;
        }
        socket.try_clone()
    }

    /// Waits for a datagram and returns its length in `buf`. What was sent to a broadcast or multicast address is passed over
    /// (RFC 1123 section 4.2.3.5).
    pub(crate) async fn recv(&self, buf: &mut [u8]) -> io::Result<(usize, Route)> {
        loop {
            match recv(self.socket.get(), buf) {
                Ok(Some(received)) => return Ok(received),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(self.socket.readable(None).await),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Receives one datagram; `None` when it was not sent to us alone.
fn recv(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Option<(usize, Route)>> {
    let mut iov = [IoSliceMut::new(buf)];
    let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
    let route = message.address.and_then(|address| socket_addr(&address)).zip(destination(&message)?);
    Ok(route.map(|(client, local)| (message.bytes, Route { client, local })))
}

/// The address of ours that a datagram was sent to, if it is one of ours.
fn destination(message: &RecvMsg<'_, '_, SockaddrStorage>) -> io::Result<Option<IpAddr>> {
    let (mut v4, mut v6) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let ours = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
                v4 = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())).filter(|_| ours);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                v6 = Some(IpAddr::from(address))
                    .filter(|_| !address.is_multicast() && address.to_ipv4_mapped().is_none());
            }
            _ => {}
        }
    }
    Ok(v4.or(v6))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{event_loop, loopback, request},
        *,
    };

    #[test]
    fn one_address_can_be_listened_on() {
        let event_loop = event_loop();
        let (_, route) = request(&event_loop, Some(loopback(9)), loopback(7), loopback(9));
        assert_eq!(route.local, loopback(9));
    }

    #[test]
    fn a_socket_of_somebody_else_can_be_listened_on() {
        let event_loop = event_loop();
        for ip in [loopback(1), Ipv6Addr::LOCALHOST.into()] {
            let socket = UdpSocket::bind((ip, 0)).expect("a socket that blocks and does not tell addresses");
            let client = UdpSocket::bind((ip, 0)).expect("a client");
            let listener = Listener::on(&event_loop, socket).expect("a listener");
            client.send_to(b"hello", listener.local_addr().expect("bound")).expect("sent");
            let mut buf = [0; 64];
            let (len, route) = event_loop.block_on(listener.recv(&mut buf)).expect("received");
            assert_eq!((&buf[..len], route.local), (&b"hello"[..], ip));
        }
    }

    #[test]
    fn what_is_sent_to_everybody_is_passed_over() {
        let event_loop = event_loop();
        let listener = Listener::bind(&event_loop, None, 0).expect("a listener");
        let port = listener.local_addr().expect("bound").port();
        let client = UdpSocket::bind((loopback(7), 0)).expect("a client");
        client.set_broadcast(true).expect("allowed");
        client.send_to(b"everybody", ("127.255.255.255", port)).expect("sent");
        client.send_to(b"you", ("127.0.0.1", port)).expect("sent");
        let mut buf = [0; 64];
        let (len, _) = event_loop.block_on(listener.recv(&mut buf)).expect("received");
        assert_eq!(&buf[..len], b"you");
    }
}
