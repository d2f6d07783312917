//! The receiver of rtftp-core, driven by smoltcp.

use rtftp_core::{BlockSink, Outcome, Output, Receiver, transfer::receiver::MAX_REQUEST};
use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    socket::udp,
    time::Instant,
    wire::IpEndpoint,
};

use crate::{clock::Clock, lan9118::Lan9118};

/// The network as this program sees it: one interface, one UDP socket.
pub struct Network<'a> {
    pub device: Lan9118,
    pub interface: Interface,
    pub sockets: SocketSet<'a>,
    pub socket: SocketHandle,
}

/// Receives a file of `server` into `sink`. Returns when all of it was there.
///
/// After that it stays until the server can be taken to know, so that it need not wait in vain.
///
/// It polls without a rest; a program with other things to do would sleep until the instant of `Wait` or the controller's
/// interrupt, whichever is first.
pub fn fetch(
    receiver: &mut Receiver,
    sink: &mut impl BlockSink,
    network: &mut Network<'_>,
    clock: &mut Clock,
    server: IpEndpoint,
) -> Result<rtftp_core::Instant, Outcome> {
    let mut peer = server;
    let mut whole = None;
    let mut packet = [0; MAX_REQUEST];
    loop {
        let now = clock.now();
        network.interface.poll(to_smoltcp(now), &mut network.device, &mut network.sockets);
        let socket = network.sockets.get_mut::<udp::Socket<'_>>(network.socket);
        while let Ok((datagram, from)) = socket.recv() {
            let expected = if receiver.has_peer() { from.endpoint == peer } else { from.endpoint.addr == peer.addr };
            // Others get no ERROR 5 (RFC 1350 section 4): on this network there are none.
            if expected {
                peer = from.endpoint;
                receiver.handle(now, datagram, sink);
            }
        }
        if receiver.is_delivered() {
            whole.get_or_insert(now);
        }
        // One packet at a time: the next is asked for when there is room for it.
        if !socket.can_send() {
            continue;
        }
        match receiver.poll(now, &mut packet) {
            // What the stack has no room for is lost, which the receiver survives.
            Output::Transmit(transmit) => drop(socket.send_slice(&packet[..transmit.len], peer)),
            Output::Finished(Outcome::Complete) => return Ok(whole.unwrap_or(now)),
            Output::Finished(outcome) => return Err(outcome),
            Output::Wait(_) | Output::NeedData => {}
        }
    }
}

fn to_smoltcp(now: rtftp_core::Instant) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}
