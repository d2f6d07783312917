//! Which packets belong to a transfer: the check of the server's transfer ID (RFC 1350 section 4).

use core::fmt;

use crate::{
    time::Instant,
    transfer::{io::BlockSink, receiver::Receiver},
    wire::packet::Packet,
};

/// The server's endpoint, for the driver of a [`Receiver`]: an address `A` and a UDP port, the server's transfer ID (TID).
///
/// The request goes to the server's well-known port. The server answers from a port of its own choice; from its first answer on
/// only that port belongs to the transfer, for sending too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Peer<A> {
    address: A,
    port: u16,
    /// Whether `port` is the server's TID.
    is_known: bool,
}

impl<A: Copy + PartialEq> Peer<A> {
    /// Starts with the endpoint that the request goes to.
    pub const fn new(address: A, port: u16) -> Self {
        Self { address, port, is_known: false }
    }

    /// Returns the address to send to.
    #[must_use]
    pub const fn address(&self) -> A {
        self.address
    }

    /// Returns the port to send to: the port for requests, then the server's TID.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether a datagram from `source` belongs to the transfer: it comes from the server's address and, after the first
    /// answer, from its TID.
    #[must_use]
    pub fn accepts(&self, source: (A, u16)) -> bool {
        let (address, port) = source;
        address == self.address && (port == self.port || !self.is_known)
    }

    /// Passes a packet from `source` to `receiver`, and remembers the server's TID when `receiver` accepts its first answer.
    ///
    /// # Errors
    ///
    /// [`UnknownSource`] if the packet does not belong to the transfer. Answer it with [`Packet::UNKNOWN_TRANSFER_ID`], unless
    /// it is an ERROR; the transfer goes on.
    pub fn handle(
        &mut self,
        receiver: &mut Receiver,
        now: Instant,
        source: (A, u16),
        packet: Packet<'_>,
        sink: &mut impl BlockSink,
    ) -> Result<(), UnknownSource> {
        if !self.accepts(source) {
            return Err(UnknownSource);
        }
        receiver.handle_packet(now, packet, sink);
        if receiver.has_peer() {
            (self.port, self.is_known) = (source.1, true);
        }
        Ok(())
    }
}

/// A packet that does not come from the server of the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct UnknownSource;

impl fmt::Display for UnknownSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the packet comes from an unknown source")
    }
}

impl core::error::Error for UnknownSource {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::{io::WriteFailed, receiver::ReceiverConfig};

    const NOW: Instant = Instant::from_micros(0);
    const ACK_7: Packet<'_> = Packet::Ack { block: 7 };
    const DATA_1: Packet<'_> = Packet::Data { block: 1, payload: b"end" };

    struct Discard;

    impl BlockSink for Discard {
        fn write(&mut self, _: u64, _: &[u8]) -> Result<(), WriteFailed> {
            Ok(())
        }
    }

    #[test]
    fn first_answer_fixes_the_port() {
        let mut receiver = Receiver::new(NOW, b"file", ReceiverConfig::default()).expect("a valid request");
        let mut peer = Peer::new("server", 69);
        let mut handle =
            |peer: &mut Peer<_>, source, packet| peer.handle(&mut receiver, NOW, source, packet, &mut Discard);
        assert_eq!(handle(&mut peer, ("other", 69), DATA_1), Err(UnknownSource));
        assert_eq!(handle(&mut peer, ("server", 4000), ACK_7), Ok(()));
        assert_eq!(peer.port(), 69, "an ACK is no answer to a request");
        assert_eq!(handle(&mut peer, ("server", 5000), DATA_1), Ok(()));
        assert_eq!((peer.address(), peer.port()), ("server", 5000));
        assert_eq!(handle(&mut peer, ("server", 69), DATA_1), Err(UnknownSource));
        assert_eq!(handle(&mut peer, ("server", 5000), DATA_1), Ok(()));
    }
}
