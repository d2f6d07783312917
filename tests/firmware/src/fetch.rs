//! Drives rtftp-core's receiver with smoltcp.

use rtftp_core::{BlockSink, Outcome, Output, Packet, Peer, Receiver, transfer::receiver::MAX_REQUEST};
use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    socket::udp,
    time::Instant,
    wire::{IpAddress, IpEndpoint},
};

use crate::{clock::Clock, lan9118::Lan9118};

/// The network: one interface with one UDP socket.
pub struct Network<'a> {
    pub device: Lan9118,
    pub interface: Interface,
    pub sockets: SocketSet<'a>,
    pub socket: SocketHandle,
}

/// Receives a file from `server` into `sink`. Returns the time at which the file was complete.
///
/// It polls without a pause. A program with other work would sleep until the instant of `Wait` or the controller's interrupt,
/// whichever comes first.
pub fn fetch(
    receiver: &mut Receiver,
    sink: &mut impl BlockSink,
    network: &mut Network<'_>,
    clock: &mut Clock,
    server: IpEndpoint,
) -> Result<rtftp_core::Instant, Outcome> {
    let mut peer = Peer::<IpAddress>::new(server.addr, server.port);
    let mut complete = None;
    let mut packet = [0; MAX_REQUEST];
    loop {
        let now = clock.now();
        network.interface.poll(to_smoltcp(now), &mut network.device, &mut network.sockets);
        let socket = network.sockets.get_mut::<udp::Socket<'_>>(network.socket);
        while let Ok((datagram, from)) = socket.recv() {
            let source = (from.endpoint.addr, from.endpoint.port);
            if let Ok(packet) = Packet::parse(datagram) {
                // Unknown sources get no ERROR 5 (RFC 1350 section 4): this network has none.
                let _ = peer.handle(receiver, now, source, packet, sink);
            }
        }
        if receiver.is_delivered() {
            complete.get_or_insert(now);
        }
        // The packet stays in the receiver until the socket has room.
        if !socket.can_send() {
            continue;
        }
        match receiver.poll(now, &mut packet) {
            // A packet for which the stack has no room is lost; the receiver repeats it.
            Output::Transmit(transmit) => {
                let _ = socket.send_slice(&packet[..transmit.len], IpEndpoint::new(peer.address(), peer.port()));
            }
            Output::Finished(Outcome::Complete) => return Ok(complete.unwrap_or(now)),
            Output::Finished(outcome) => return Err(outcome),
            Output::Wait(_) | Output::NeedData => {}
        }
    }
}

fn to_smoltcp(now: rtftp_core::Instant) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}
