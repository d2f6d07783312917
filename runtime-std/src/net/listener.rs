//! The listening socket.

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

use super::{Route, open, set_receive_buffer, socket_addr};
use crate::event_loop::{EventLoop, Registered};

/// The size of the receive buffer in bytes, as the kernel counts them: about 2 KiB per request.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The size of the send buffer in bytes, as the kernel counts them, if all transfers share the socket.
const SEND_BUFFER: usize = 4 << 20;

/// The socket that receives requests.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Registered,
}

impl Listener {
    /// Binds one address, or all IPv4 and IPv6 addresses. Port 0 selects a free port.
    pub(crate) fn bind(event_loop: &Arc<EventLoop>, ip: Option<IpAddr>, port: u16) -> io::Result<Self> {
        let socket = match ip {
            Some(ip) => open((ip, port).into())?,
            // On Linux, one socket receives both; a machine without IPv6 needs an IPv4 socket.
            None => open((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|errno| match errno {
                Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL => open((Ipv4Addr::UNSPECIFIED, port).into()),
                _ => Err(errno),
            })?,
        };
        Self::on(event_loop, socket)
    }

    /// Listens on a socket that is already bound.
    pub(crate) fn on(event_loop: &Arc<EventLoop>, socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // For the requests of a whole cluster that is switched on at once.
        set_receive_buffer(&socket, RECEIVE_BUFFER)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket: Registered::new(event_loop, Arc::new(socket)) })
    }

    /// Returns the local address.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }

    /// Duplicates the socket, for transfers that send from its port.
    pub(crate) fn share(&self) -> io::Result<UdpSocket> {
        let socket = self.socket.get();
        // In a send buffer for one transfer, many would wait for each other. Only root may exceed the system's limit.
        if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            setsockopt(socket, sockopt::SndBuf, &SEND_BUFFER)?;
        }
        socket.try_clone()
    }

    /// Receives a datagram into `buf`, and returns its length and route. Ignores datagrams sent to a broadcast or multicast address
    /// (RFC 1123 section 4.2.3.5).
    pub(crate) async fn recv(&self, buf: &mut [u8]) -> io::Result<(usize, Route)> {
        loop {
            match recv(self.socket.get(), buf) {
                Ok(Some(received)) => return Ok(received),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Receives one datagram; `None` if it was not sent to a unicast address.
fn recv(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Option<(usize, Route)>> {
    let mut iov = [IoSliceMut::new(buf)];
    let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::empty())?;
    let route = message.address.and_then(|address| socket_addr(&address)).zip(destination(&message)?);
    Ok(route.map(|(client, local)| (message.bytes, Route { client, local })))
}

/// Returns the address that a datagram was sent to, if it is a unicast address.
fn destination(message: &RecvMsg<'_, '_, SockaddrStorage>) -> io::Result<Option<IpAddr>> {
    let (mut v4, mut v6) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let is_unicast = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
                v4 = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())).filter(|_| is_unicast);
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
    fn listens_on_one_address() {
        let event_loop = event_loop();
        let (_, route) = request(&event_loop, Some(loopback(9)), loopback(7), loopback(9));
        assert_eq!(route.local, loopback(9));
    }

    #[test]
    fn listens_on_inherited_socket() {
        let event_loop = event_loop();
        for ip in [loopback(1), Ipv6Addr::LOCALHOST.into()] {
            let socket = UdpSocket::bind((ip, 0)).expect("a blocking socket");
            let client = UdpSocket::bind((ip, 0)).expect("a client");
            let listener = Listener::on(&event_loop, socket).expect("a listener");
            client.send_to(b"hello", listener.local_addr().expect("bound")).expect("sent");
            let mut buf = [0; 64];
            let (len, route) = event_loop.block_on(listener.recv(&mut buf)).expect("received");
            assert_eq!((&buf[..len], route.local), (&b"hello"[..], ip));
        }
    }

    #[test]
    fn ignores_broadcasts() {
        let event_loop = event_loop();
        let listener = Listener::bind(&event_loop, None, 0).expect("a listener");
        let port = listener.local_addr().expect("bound").port();
        let client = UdpSocket::bind((loopback(7), 0)).expect("a client");
        client.set_broadcast(true).expect("allowed");
        client.send_to(b"broadcast", ("127.255.255.255", port)).expect("sent");
        client.send_to(b"unicast", ("127.0.0.1", port)).expect("sent");
        let mut buf = [0; 64];
        let (len, _) = event_loop.block_on(listener.recv(&mut buf)).expect("received");
        assert_eq!(&buf[..len], b"unicast");
    }
}
