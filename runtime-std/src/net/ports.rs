//! The ports that transfers are served from: each has one of its own (RFC 1350 section 4), unless they are told to share one.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::errno::Errno;

/// Any that are free, or those of a range, for networks whose firewalls let only these pass, or the one that requests come to.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    range: Option<RangeInclusive<u16>>,
    /// How many have been asked for; the next is the one after the last, so that a port has the longest possible rest: what is
    /// still under way to the transfer before must not reach the one after.
    turn: AtomicUsize,
    shared: Option<UdpSocket>,
}

impl Ports {
    pub(crate) fn new(range: Option<RangeInclusive<u16>>) -> Self {
        Self { range, ..Self::default() }
    }

    /// The port of this socket alone, which somebody else receives from.
    pub(crate) fn sharing(socket: UdpSocket) -> Self {
        Self { shared: Some(socket), ..Self::default() }
    }

    /// The socket that all transfers share, if they do.
    pub(crate) fn shared(&self) -> Option<&UdpSocket> {
        self.shared.as_ref()
    }

    /// How many there are, if that is known.
    pub(crate) fn count(&self) -> Option<usize> {
        self.range.as_ref().map(ExactSizeIterator::len)
    }

    /// Opens a port of this address with `open`, whatever port the address has.
    ///
    /// # Errors
    ///
    /// That of `open`, unless only the port was the matter; all ports of the range are in use.
    pub(crate) fn open(
        &self,
        mut address: SocketAddr,
        open: impl Fn(SocketAddr) -> Result<UdpSocket, Errno>,
    ) -> io::Result<UdpSocket> {
        let Some(range) = &self.range else {
            address.set_port(0);
            return Ok(open(address)?);
        };
        for _ in range.clone() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % range.len();
            address.set_port(range.clone().nth(turn).unwrap_or(*range.start()));
            match open(address) {
                Err(Errno::EADDRINUSE) => {}
                opened => return Ok(opened?),
            }
        }
        Err(io::Error::other(format!("all ports from {} to {} are in use", range.start(), range.end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// Opens a port of which this test says that it is free, or not; returns the port.
    fn opened(ports: &Ports, free: impl Fn(u16) -> Result<(), Errno>) -> io::Result<u16> {
        let taken = std::cell::Cell::new(0);
        ports.open(LOCALHOST, |address| {
            free(address.port())?;
            taken.set(address.port());
            UdpSocket::bind(LOCALHOST).map_err(|_| Errno::EIO)
        })?;
        Ok(taken.get())
    }

    #[test]
    fn ports_are_taken_in_turn() {
        let ports = Ports::new(Some(65_533..=65_535));
        let turns: Vec<_> = (0..5).map(|_| opened(&ports, |_| Ok(())).expect("a port")).collect();
        assert_eq!(turns, [65_533, 65_534, 65_535, 65_533, 65_534]);
        assert_eq!(ports.count(), Some(3));
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let ports = Ports::new(Some(7000..=7009));
        let busy = |port| if port == 7004 { Ok(()) } else { Err(Errno::EADDRINUSE) };
        for _ in 0..3 {
            assert_eq!(opened(&ports, busy).expect("the free one"), 7004);
        }
        let none = opened(&ports, |_| Err(Errno::EADDRINUSE)).expect_err("none is free");
        assert_eq!(none.to_string(), "all ports from 7000 to 7009 are in use");
        let other = opened(&ports, |_| Err(Errno::EADDRNOTAVAIL)).expect_err("not the port's fault");
        assert_eq!(other.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn without_a_range_the_kernel_chooses() {
        assert_eq!(opened(&Ports::default(), |_| Ok(())).expect("a port"), 0);
        assert_eq!(Ports::default().count(), None);
    }
}
