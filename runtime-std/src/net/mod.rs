//! UDP sockets of the server and its transfers, path MTUs, and the kernel's neighbour table.

mod datagrams;
mod fragments;
mod listener;
pub(crate) mod mtu;
pub(crate) mod neighbour;
pub(crate) mod ports;
mod transfer_socket;
mod unknown_tid;

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
    datagrams::Datagrams,
    listener::Listener,
    transfer_socket::{TransferSocket, send_reply},
    unknown_tid::{UnknownTidReplies, UnknownTidSockets},
};

/// The two addresses of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The source address; that of an IPv4 client is an IPv4 address, even on a dual-stack socket.
    pub(crate) client: SocketAddr,
    /// The destination address, which replies must come from.
    pub(crate) local: IpAddr,
}

impl Route {
    /// Returns the destination address without its port.
    fn local_address(self) -> SocketAddr {
        match (self.local, self.client) {
            // A link-local address needs the interface it is on.
            (IpAddr::V6(ip), SocketAddr::V6(client)) => SocketAddrV6::new(ip, 0, 0, client.scope_id()).into(),
            (ip, _) => SocketAddr::new(ip, 0),
        }
    }
}

/// Returns whether an error means that the process or the system has no descriptor left.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Sets the size of a socket's receive buffer in bytes. Only root may exceed the system's limit.
pub(crate) fn set_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    // The socket may have been opened by root. The kernel reports twice the requested size (socket(7)).
    if getsockopt(socket, sockopt::RcvBuf)? / 2 >= bytes {
        return Ok(());
    }
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// Opens a socket on a free port, of the same address family as `destination`.
pub(crate) fn open_for(destination: SocketAddr) -> io::Result<UdpSocket> {
    let any = if destination.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
}

/// Opens a non-blocking socket bound to an address.
fn open(address: SocketAddr) -> Result<UdpSocket, Errno> {
    let socket = open_unbound(address)?;
    bind_to(&socket, address)?;
    Ok(socket)
}

/// Opens a non-blocking socket of the address's family without binding it.
fn open_unbound(address: SocketAddr) -> Result<UdpSocket, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None).map(UdpSocket::from)
}

/// Binds a socket.
fn bind_to(socket: &UdpSocket, address: SocketAddr) -> Result<(), Errno> {
    // Not `SockaddrStorage`: authbind rejects addresses longer than those of their family.
    match address {
        SocketAddr::V4(address) => bind(socket.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => bind(socket.as_raw_fd(), &SockaddrIn6::from(address)),
    }
}

/// Converts an address to the standard library's type.
pub(crate) fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|&v4| SocketAddr::from(SocketAddrV4::from(v4)));
    let v6 = || address.as_sockaddr_in6().map(|&v6| SocketAddrV6::from(v6));
    // An IPv4 client of a dual-stack socket has an IPv4-mapped address; the scope of a link-local address is kept.
    v4().or_else(|| {
        v6().map(|v6| match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => SocketAddr::from(v6),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{event_loop::EventLoop, net::ports::Ports};

    pub(super) fn event_loop() -> Arc<EventLoop> {
        EventLoop::new().expect("an event loop")
    }

    pub(super) fn loopback(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// Sends a request to a listener, and returns the client's socket and the route.
    pub(super) fn request(
        event_loop: &Arc<EventLoop>,
        listen: Option<IpAddr>,
        from: IpAddr,
        to: IpAddr,
    ) -> (UdpSocket, Route) {
        request_to(&Listener::bind(event_loop, listen, 0).expect("a listener"), event_loop, from, to)
    }

    /// Receives the only datagram that has arrived.
    pub(super) fn receive_one(event_loop: &Arc<EventLoop>, listener: &Listener) -> io::Result<(Vec<u8>, Route)> {
        let mut datagrams = Datagrams::new();
        event_loop.block_on(listener.receive(&mut datagrams))?;
        let received: Vec<_> = datagrams.iter().collect();
        let [(datagram, route)] = received[..] else { panic!("received {received:?}") };
        Ok((datagram.to_vec(), route))
    }

    pub(super) fn request_to(
        listener: &Listener,
        event_loop: &Arc<EventLoop>,
        from: IpAddr,
        to: IpAddr,
    ) -> (UdpSocket, Route) {
        let client = UdpSocket::bind((from, 0)).expect("a client");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        client.send_to(b"hello", (to, listener.local_addr().expect("bound").port())).expect("sent");
        let (datagram, route) = receive_one(event_loop, listener).expect("received");
        assert_eq!(datagram, b"hello");
        assert_eq!(route.client, client.local_addr().expect("bound"));
        (client, route)
    }

    #[test]
    fn replies_from_the_requested_address() {
        let event_loop = event_loop();
        for (from, to) in [(loopback(7), loopback(5)), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())] {
            let (client, route) = request(&event_loop, None, from, to);
            assert_eq!(route.local, to);
            let mut socket = TransferSocket::open(&Ports::default(), route).expect("a port");
            assert_eq!(socket.send(b"answer", 6), 6);
            let mut buf = [0; 64];
            let (len, sender) = client.recv_from(&mut buf).expect("a reply");
            assert_eq!((&buf[..len], sender.ip()), (&b"answer"[..], to));
        }
    }
}
