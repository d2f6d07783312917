//! UDP: requests with the address they were sent to, and a whole window in one system call.

mod listener;
pub(crate) mod mtu;
pub(crate) mod neighbour;
pub(crate) mod ports;
mod transfer_socket;
mod unknown_tid;
mod unknown_tid_reply;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind, getsockopt, setsockopt,
        socket, sockopt,
    },
};

pub(crate) use self::{
    listener::Listener, transfer_socket::TransferSocket, unknown_tid::UnknownTidSockets,
    unknown_tid_reply::UnknownTidReplies,
};

/// Where a request came from and the address it was sent to, which the answers must come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The client; an IPv4 client is an IPv4 address, also on a socket for both.
    pub(crate) client: SocketAddr,
    /// The address of ours that the client knows.
    pub(crate) local: IpAddr,
}

/// Lets the kernel keep this many bytes that were not read yet; only root may have as much as it likes.
pub(crate) fn make_room(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    // Who opened the socket for us may have been root. The kernel tells twice what it was asked for (socket(7)).
    if getsockopt(socket, sockopt::RcvBuf)? / 2 >= bytes {
        return Ok(());
    }
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// Opens any free port from which this machine can be talked to.
pub(crate) fn open_towards(machine: SocketAddr) -> io::Result<UdpSocket> {
    let any = if machine.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
}

/// Opens a socket that never blocks.
fn open(address: SocketAddr) -> Result<UdpSocket, Errno> {
    let socket = open_unbound(address)?;
    bind_to(&socket, address)?;
    Ok(socket)
}

/// Opens a socket that never blocks, for an address that it does not have yet.
fn open_unbound(address: SocketAddr) -> Result<UdpSocket, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None).map(UdpSocket::from)
}

/// Gives a socket its address.
fn bind_to(socket: &UdpSocket, address: SocketAddr) -> Result<(), Errno> {
    // Addresses of their own lengths: authbind does not understand longer ones.
    match address {
        SocketAddr::V4(address) => bind(socket.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => bind(socket.as_raw_fd(), &SockaddrIn6::from(address)),
    }
}

/// The address as the standard library has it.
pub(crate) fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|&v4| SocketAddr::from(SocketAddrV4::from(v4)));
    let v6 = || address.as_sockaddr_in6().map(|&v6| SocketAddrV6::from(v6));
    // An IPv4 client on a socket for both is an IPv4 client; the scope of a link-local address must stay.
    v4().or_else(|| {
        v6().map(|v6| match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => SocketAddr::from(v6),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{event_loop::EventLoop, net::ports::Ports};

    pub(super) fn event_loop() -> Arc<EventLoop> {
        EventLoop::new().expect("a event_loop")
    }

    pub(super) fn loopback(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// A client on its own address, and the route a listener sees when it sends there.
    pub(super) fn request(
        event_loop: &Arc<EventLoop>,
        listen: Option<IpAddr>,
        from: IpAddr,
        to: IpAddr,
    ) -> (UdpSocket, Route) {
        request_to(&Listener::bind(event_loop, listen, 0).expect("a listener"), event_loop, from, to)
    }

    pub(super) fn request_to(
        listener: &Listener,
        event_loop: &Arc<EventLoop>,
        from: IpAddr,
        to: IpAddr,
    ) -> (UdpSocket, Route) {
        let client = UdpSocket::bind((from, 0)).expect("a client");
        client.send_to(b"hello", (to, listener.local_addr().expect("bound").port())).expect("sent");
        let mut buf = [0; 64];
        let (len, route) = event_loop.block_on(listener.recv(&mut buf)).expect("received");
        assert_eq!(&buf[..len], b"hello");
        assert_eq!(route.client, client.local_addr().expect("bound"));
        (client, route)
    }

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        let event_loop = event_loop();
        for (from, to) in [(loopback(7), loopback(5)), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())] {
            let (client, route) = request(&event_loop, None, from, to);
            assert_eq!(route.local, to);
            let mut peer = TransferSocket::new(&Ports::default(), route).expect("a port");
            assert_eq!(peer.send(b"answer", 6), 6);
            let mut buf = [0; 64];
            let (len, sender) = client.recv_from(&mut buf).expect("an answer");
            assert_eq!((&buf[..len], sender.ip()), (&b"answer"[..], to));
        }
    }
}
