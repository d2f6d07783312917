//! The ports of transfers: one each (RFC 1350 section 4), or the listening port for all of them.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::errno::Errno;

use super::fragments::FragmentedHosts;

/// The ports for transfers: any free ones, those of a range that firewalls allow, or the listening port.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    range: Option<RangeInclusive<u16>>,
    /// The number of ports requested so far. Ports are used in rotation, so that a late packet for one transfer does not reach the
    /// next on its port.
    requested: AtomicUsize,
    shared: Option<UdpSocket>,
    fragmented: FragmentedHosts,
}

impl Ports {
    pub(crate) fn new(range: Option<RangeInclusive<u16>>) -> Self {
        Self { range, ..Self::default() }
    }

    /// Returns the port of the listening socket, which receives for all transfers.
    pub(crate) fn shared(socket: UdpSocket) -> Self {
        Self { shared: Some(socket), ..Self::default() }
    }

    /// Returns the listening socket, if transfers share its port.
    pub(crate) fn shared_socket(&self) -> Option<&UdpSocket> {
        self.shared.as_ref()
    }

    /// Returns the hosts that receive blocks only in fragments.
    pub(crate) fn fragmented_hosts(&self) -> &FragmentedHosts {
        &self.fragmented
    }

    /// Returns the number of ports, or `None` if any port may be used.
    pub(crate) fn count(&self) -> Option<usize> {
        self.range.as_ref().map(ExactSizeIterator::len)
    }

    /// Opens a socket with `open` on the next free port; the port in `address` is ignored.
    ///
    /// # Errors
    ///
    /// That of `open`, except `EADDRINUSE` while there are other ports; all ports of the range are in use.
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
            let index = self.requested.fetch_add(1, Ordering::Relaxed) % range.len();
            address.set_port(range.clone().nth(index).unwrap_or(*range.start()));
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

    /// Opens a port, as far as `free` allows, and returns it.
    fn opened(ports: &Ports, free: impl Fn(u16) -> Result<(), Errno>) -> io::Result<u16> {
        let port = std::cell::Cell::new(0);
        ports.open(LOCALHOST, |address| {
            free(address.port())?;
            port.set(address.port());
            UdpSocket::bind(LOCALHOST).map_err(|_| Errno::EIO)
        })?;
        Ok(port.get())
    }

    #[test]
    fn uses_ports_in_rotation() {
        let ports = Ports::new(Some(65_533..=65_535));
        let used: Vec<_> = (0..5).map(|_| opened(&ports, |_| Ok(())).expect("a port")).collect();
        assert_eq!(used, [65_533, 65_534, 65_535, 65_533, 65_534]);
        assert_eq!(ports.count(), Some(3));
    }

    #[test]
    fn skips_ports_in_use() {
        let ports = Ports::new(Some(7000..=7009));
        let busy = |port| if port == 7004 { Ok(()) } else { Err(Errno::EADDRINUSE) };
        for _ in 0..3 {
            assert_eq!(opened(&ports, busy).expect("the free one"), 7004);
        }
        let none = opened(&ports, |_| Err(Errno::EADDRINUSE)).expect_err("none is free");
        assert_eq!(none.to_string(), "all ports from 7000 to 7009 are in use");
        let other = opened(&ports, |_| Err(Errno::EADDRNOTAVAIL)).expect_err("another error");
        assert_eq!(other.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn uses_any_port_without_range() {
        assert_eq!(opened(&Ports::default(), |_| Ok(())).expect("a port"), 0);
        assert_eq!(Ports::default().count(), None);
    }
}
