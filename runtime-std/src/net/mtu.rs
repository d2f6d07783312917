//! The path MTU to a client.

use std::{io, net::SocketAddr};

use nix::{
    getsockopt_impl, libc, setsockopt_impl, sockopt_impl,
    sys::socket::{getsockopt, sockopt},
};

use crate::net::open_for;

sockopt_impl!(
    /// The path MTU of a connected IPv6 socket; if it is set, the size of fragments.
    Ipv6Mtu,
    Both,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

/// The length of the headers before a block, in bytes: IP without options, UDP and DATA.
const HEADERS_V4: i32 = 20 + 8 + 4;
const HEADERS_V6: i32 = 40 + 8 + 4;
/// The smallest block in bytes (RFC 2348).
const MIN_BLOCK: i32 = 8;

/// Returns the size in bytes of the largest block that is sent to a client without fragmentation.
///
/// The kernel knows the MTU of the local network, and that of the path from routers that have rejected a packet (RFC 1191, RFC 8201).
///
/// # Errors
///
/// Those of `socket`, `connect` and `getsockopt`.
pub(crate) fn largest_block(client: SocketAddr) -> io::Result<u16> {
    let socket = open_for(client)?;
    // Sends nothing.
    socket.connect(client)?;
    let (mtu, headers) = if client.is_ipv4() {
        (getsockopt(&socket, sockopt::IpMtu)?, HEADERS_V4)
    } else {
        (getsockopt(&socket, Ipv6Mtu)?, HEADERS_V6)
    };
    let block = mtu.saturating_sub(headers).max(MIN_BLOCK);
    Ok(u16::try_from(block).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn reads_mtu_of_loopback() {
        let mtu = std::fs::read_to_string("/sys/class/net/lo/mtu").expect("the loopback's MTU");
        let mtu: usize = mtu.trim().parse().expect("a number");
        // The largest packet has 65,535 bytes; IPv6 does not count its header.
        for (ip, max, headers) in
            [(IpAddr::from(Ipv4Addr::LOCALHOST), 65_535, 32), (Ipv6Addr::LOCALHOST.into(), 65_575, 52)]
        {
            let block = largest_block((ip, 1234).into()).expect("an MTU");
            assert_eq!(usize::from(block), mtu.min(max) - headers, "{ip}");
        }
    }
}
