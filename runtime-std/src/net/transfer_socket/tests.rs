//! Transfer sockets on the loopback.

use std::net::Ipv6Addr;

use super::{
    super::{
        Listener,
        tests::{event_loop, loopback, receive_one, request, request_to},
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
        let (datagram, _) = receive_one(&event_loop, &listener).expect("received by the listener");
        assert_eq!(datagram, b"datagram");
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
        let mut buf = vec![0; 65_536];
        // In parts that fit the receive buffer, like windows.
        let part = (131_072 / segment).clamp(1, 25) * segment;
        for part in sent.chunks(part) {
            assert_eq!(socket.send(part, segment), part.len());
            for datagram in part.chunks(segment) {
                let len = client.recv(&mut buf).expect("a datagram");
                assert!(&buf[..len] == datagram, "segment {segment}, shared port: {shared}");
            }
        }
    }
}

/// Keeps the socket of a transfer that is finished.
fn keep_idle(ports: &Ports, route: Route, mut transfer: TransferSocket, event_loop: &Arc<EventLoop>) {
    assert!(transfer.is_reusable());
    let registered = transfer.register(event_loop);
    drop(transfer);
    ports.keep_idle(route, registered);
}

/// Datagrams and errors for a finished transfer do not reach the next one that uses its socket.
#[test]
fn reuses_socket_with_another_port() {
    let event_loop = event_loop();
    for ip in [loopback(1), Ipv6Addr::LOCALHOST.into()] {
        let ports = Ports::default();
        let mut used = vec![];
        let mut descriptor = None;
        for _ in 0..4 {
            let (client, route) = request(&event_loop, None, ip, ip);
            let mut transfer = TransferSocket::open(&ports, route).expect("a port");
            let address = transfer.local_addr().expect("bound");
            assert_eq!(*descriptor.get_or_insert(transfer.socket.as_raw_fd()), transfer.socket.as_raw_fd());
            assert_eq!(transfer.recv(&mut [0; 64]), None, "for the transfer before");
            client.send_to(b"ack", address).expect("sent");
            assert_eq!((transfer.recv(&mut [0; 64]), transfer.send(b"data", 4)), (Some(3), 4));
            let mut buf = [0; 64];
            assert_eq!(client.recv_from(&mut buf).expect("received"), (4, address));

            client.send_to(b"late", address).expect("sent");
            drop(client);
            transfer.send(b"unreachable", 11);
            used.push(address.port());
            keep_idle(&ports, route, transfer, &event_loop);
            let other = Route { local: loopback(9), client: (loopback(9), 1).into() };
            assert_ne!(
                TransferSocket::open(&ports, other).expect("a port").socket.as_raw_fd(),
                descriptor.unwrap_or(-1)
            );
            UdpSocket::bind(address).expect("the port is free");
        }
        assert!(used.iter().any(|port| *port != used[0]), "{used:?}");
    }
}

#[test]
fn reuses_no_socket_with_more_than_a_few_old_datagrams() {
    let event_loop = event_loop();
    let ports = Ports::default();
    let (client, route) = request(&event_loop, None, loopback(7), loopback(1));
    let transfer = TransferSocket::open(&ports, route).expect("a port");
    let address = transfer.local_addr().expect("bound");
    for _ in 0..100 {
        client.send_to(b"late", address).expect("sent");
    }
    keep_idle(&ports, route, transfer, &event_loop);
    assert_eq!(TransferSocket::open(&ports, route).expect("a port").recv(&mut [0; 64]), None);
}
