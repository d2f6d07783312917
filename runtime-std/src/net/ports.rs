//! The ports of transfers: one each (RFC 1350 section 4), or the listening port for all of them.
//!
//! Opening and closing a socket takes longer than sending a small file. So sockets of finished transfers are used again, and stay
//! registered with their event loop. Each transfer gets another port nevertheless, which the kernel chooses at random: nobody can forge
//! its client's packets without it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::errno::Errno;
use parking_lot::Mutex;
use rustix::net::connect_unspec;

use super::{Route, fragments::FragmentedHosts};
use crate::event_loop::Registered;

/// The number of idle sockets that are kept.
const MAX_IDLE: usize = 128;
/// The number of datagrams for the last transfer that are removed from an idle socket. One with more is closed.
const MAX_OLD_DATAGRAMS: usize = 8;

/// The ports for transfers: any free ones, those of a range that firewalls allow, or the listening port.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    range: Option<RangeInclusive<u16>>,
    /// The number of ports requested so far. Ports are used in rotation, so that a late packet for one transfer does not reach the
    /// next on its port.
    requested: AtomicUsize,
    shared: Option<UdpSocket>,
    fragmented: FragmentedHosts,
    /// The sockets of finished transfers, which have no port, with their local addresses. The first one is idle for the longest time.
    idle: Mutex<VecDeque<(SocketAddr, Registered)>>,
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

    /// Keeps the socket of a finished transfer for another one with the same local address, without its port.
    pub(crate) fn keep_idle(&self, route: Route, socket: Registered) {
        let mut idle = self.idle.lock();
        // The kernel takes back a port that it has chosen itself, but not one of a range.
        if self.range.is_none() && idle.len() < MAX_IDLE && socket.set_idle() && connect_unspec(socket.get()).is_ok() {
            idle.push_back((route.local_address(), socket));
        }
    }

    /// Returns an idle socket with this local address, if there is one. Connecting it gives it a port.
    pub(super) fn take_idle(&self, local: SocketAddr) -> Option<Registered> {
        let mut idle = self.idle.lock();
        let index = idle.iter().position(|(address, _)| *address == local)?;
        let (_, socket) = idle.remove(index)?;
        drop(idle);
        // Without a port it has received nothing more.
        let is_empty = || matches!(socket.get().recv(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        (0..=MAX_OLD_DATAGRAMS).any(|_| is_empty()).then_some(socket)
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
