//! Fragmentation: for clients behind a link with a smaller MTU whose routers do not report it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use nix::sys::socket::setsockopt;
use parking_lot::Mutex;
use rtftp_core::Instant;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

use super::mtu::Ipv6Mtu;

/// The MTU that every IPv6 link has (RFC 8200 section 5).
const MIN_IPV6_MTU: i32 = 1280;
/// Lets the kernel use the path MTU.
const PATH_MTU: i32 = 0;

/// Forbids routers to fragment the datagrams of an IPv4 socket (DF): the kernel does not number them for reassembly, which is slow
/// with many clients. IPv6 routers never fragment.
pub(super) fn forbid(socket: &UdpSocket, client: SocketAddr) -> io::Result<()> {
    match client {
        SocketAddr::V4(_) => Ok(set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?),
        SocketAddr::V6(_) => Ok(()),
    }
}

/// Allows fragments of the datagrams that a socket sends to a client: by routers with IPv4, and by this kernel. With IPv6 it
/// fragments datagrams that exceed the MTU of its own link, so that they pass every link.
pub(super) fn allow(socket: &UdpSocket, client: SocketAddr) -> io::Result<()> {
    match client {
        SocketAddr::V4(_) => Ok(set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?),
        SocketAddr::V6(_) => Ok(setsockopt(socket, Ipv6Mtu, &MIN_IPV6_MTU)?),
    }
}

/// Sets a socket that sends to other clients, too, back to the kernel's default.
pub(super) fn reset(socket: &UdpSocket, client: SocketAddr) -> io::Result<()> {
    match client {
        SocketAddr::V4(_) => Ok(set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?),
        SocketAddr::V6(_) => Ok(setsockopt(socket, Ipv6Mtu, &PATH_MTU)?),
    }
}

/// The hosts that have received blocks only in fragments. Their next transfers start with fragments.
#[derive(Debug, Default)]
pub(crate) struct FragmentedHosts(Mutex<HashMap<IpAddr, Instant>>);

impl FragmentedHosts {
    /// The time after which a path is tried again, as for the path MTUs of the kernel.
    const MAX_AGE: Duration = Duration::from_secs(600);
    /// The maximum number of hosts.
    const MAX_HOSTS: usize = 1024;

    /// Adds a host, if there is space. Returns whether it is new.
    pub(crate) fn add(&self, host: IpAddr, now: Instant) -> bool {
        let mut hosts = self.0.lock();
        hosts.retain(|_, added| now.since(*added) < Self::MAX_AGE);
        hosts.len() < Self::MAX_HOSTS && hosts.insert(host, now).is_none()
    }

    pub(super) fn contains(&self, host: IpAddr, now: Instant) -> bool {
        self.0.lock().get(&host).is_some_and(|added| now.since(*added) < Self::MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn forgets_hosts_after_some_time_and_limits_their_number() {
        let (hosts, start) = (FragmentedHosts::default(), Instant::from_micros(1));
        let host = |n: usize| IpAddr::from(Ipv6Addr::from(n as u128));
        for n in 0..FragmentedHosts::MAX_HOSTS {
            assert!(hosts.add(host(n), start) && hosts.contains(host(n), start));
        }
        assert!(!hosts.add(host(0), start), "known already");
        assert!(!hosts.add(host(5000), start) && !hosts.contains(host(5000), start), "full");
        let later = start.after(FragmentedHosts::MAX_AGE);
        assert!(!hosts.contains(host(0), later));
        assert!(hosts.add(host(5000), later) && hosts.contains(host(5000), later));
    }
}
