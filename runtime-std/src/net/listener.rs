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
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use smol::future::yield_now;

use super::{datagrams::Datagrams, open, set_receive_buffer, socket_addr};
use crate::event_loop::{EventLoop, Registered};

/// The size of the receive buffer in bytes, as the kernel counts them: about 2 KiB per request.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The number of ICMP errors that are read at once.
const MAX_ERRORS: usize = 32;

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

    /// Duplicates the socket, for replies without a transfer.
    pub(crate) fn duplicate(&self) -> io::Result<UdpSocket> {
        self.socket.get().try_clone()
    }

    /// Duplicates the socket, for transfers that send from its port.
    pub(crate) fn share(&self) -> io::Result<UdpSocket> {
        let socket = self.socket.get();
        // ICMP errors name the client, whose transfer ends if its port is closed.
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // In a send buffer for one transfer, many would wait for each other. Only root may exceed the system's limit.
        if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            setsockopt(socket, sockopt::SndBuf, &SEND_BUFFER)?;
        }
        socket.try_clone()
    }

    /// Waits for a datagram, and receives those that have arrived. If there may be more than were received before, lets other tasks run
    /// instead of waiting. Ignores datagrams sent to a broadcast or multicast address (RFC 1123 section 4.2.3.5).
    ///
    /// # Errors
    ///
    /// The socket's error, or that of a datagram sent before: read [`closed_ports`](Self::closed_ports) then.
    pub(crate) async fn receive(&self, datagrams: &mut Datagrams) -> io::Result<()> {
        loop {
            let may_have_more = datagrams.is_full();
            if may_have_more {
                yield_now().await;
            } else {
                self.socket.readable().await;
            }
            match datagrams.receive(self.socket.get()) {
                Ok(()) if datagrams.is_empty() => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && may_have_more => {}
                // "Would block" after an event: an error that a transfer was told of is still in the queue, and raises events until it
                // is read.
                received => return received,
            }
        }
    }

    /// Takes ICMP errors from the queue of a shared port, a limited number, and returns the clients that have closed their ports.
    pub(crate) fn closed_ports(&self) -> impl Iterator<Item = SocketAddr> {
        (0..MAX_ERRORS).map_while(|_| take_error(self.socket.get()).ok()).flatten()
    }
}

/// Takes an ICMP error from a socket's queue. Returns the destination of the datagram that caused it, if its port is closed.
fn take_error(socket: &UdpSocket) -> nix::Result<Option<SocketAddr>> {
    let mut byte = [0];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut control = cmsg_space!([u8; 64], libc::in_pktinfo, libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_ERRQUEUE)?;
    let is_refused = message.cmsgs()?.any(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            error.ee_errno == Errno::ECONNREFUSED as u32
        }
        _ => false,
    });
    Ok(message.address.and_then(|address| socket_addr(&address)).filter(|_| is_refused))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            TransferSocket,
            ports::Ports,
            tests::{event_loop, loopback, receive_one, request, request_to},
        },
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
            let received = receive_one(&event_loop, &listener).expect("received");
            assert_eq!((&received.0[..], received.1.local), (&b"hello"[..], ip));
        }
    }

    #[test]
    fn reports_closed_ports_of_shared_port() {
        let event_loop = event_loop();
        let (four, six) = (loopback(1), IpAddr::from(Ipv6Addr::LOCALHOST));
        for (listen, ip) in [(None, four), (None, six), (Some(four), four), (Some(six), six)] {
            let listener = Listener::bind(&event_loop, listen, 0).expect("a listener");
            let ports = Ports::shared(listener.share().expect("a descriptor"));
            let (client, route) = request_to(&listener, &event_loop, ip, ip);
            drop(client);
            for reported_to_transfer in [false, true] {
                let mut socket = TransferSocket::open(&ports, route).expect("the port");
                socket.send(b"unreachable", 11);
                if reported_to_transfer {
                    socket.send(b"another", 7);
                }
                let error = receive_one(&event_loop, &listener).expect_err("a datagram");
                let closed: Vec<_> = listener.closed_ports().collect();
                assert!(
                    !closed.is_empty() && closed.iter().all(|client| *client == route.client),
                    "{error}: {closed:?}"
                );
            }
            let client = UdpSocket::bind((ip, 0)).expect("a client");
            client.send_to(b"request", (ip, listener.local_addr().expect("bound").port())).expect("sent");
            // At most one error is left.
            let received = (0..2).find_map(|_| receive_one(&event_loop, &listener).ok());
            assert_eq!(received.map(|(datagram, _)| datagram), Some(b"request".to_vec()));
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
        let (datagram, _) = receive_one(&event_loop, &listener).expect("received");
        assert_eq!(datagram, b"unicast");
    }
}
