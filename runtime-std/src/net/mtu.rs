//! The largest block that reaches a client in one piece.

use std::{io, net::SocketAddr};

use nix::{
    getsockopt_impl, libc, sockopt_impl,
    sys::socket::{getsockopt, sockopt},
};

use crate::net::open_towards;

sockopt_impl!(
    /// The largest packet that the way to the other end of a connected IPv6 socket takes.
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

/// What goes before a block: the headers of IPv4 or IPv6 without options, of UDP, and of DATA.
const BEFORE_V4: i32 = 20 + 8 + 4;
const BEFORE_V6: i32 = 40 + 8 + 4;
/// RFC 2348.
const SMALLEST_BLOCK: i32 = 8;

/// The size of a block that leaves for this client in one packet, and as far as the kernel has been told is not cut on its way:
/// it knows the network at this end, and the rest from routers that could not pass a packet on (RFC 1191, RFC 8201).
pub(crate) fn largest_block(client: SocketAddr) -> io::Result<u16> {
    let socket = open_towards(client)?;
    // Nothing is sent by that.
    socket.connect(client)?;
    let (mtu, before) = if client.is_ipv4() {
        (getsockopt(&socket, sockopt::IpMtu)?, BEFORE_V4)
    } else {
        (getsockopt(&socket, Ipv6Mtu)?, BEFORE_V6)
    };
    let block = mtu.saturating_sub(before).max(SMALLEST_BLOCK);
    Ok(u16::try_from(block).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn what_the_loopback_takes_is_told() {
        let mtu = std::fs::read_to_string("/sys/class/net/lo/mtu").expect("the loopback's MTU");
        let mtu: usize = mtu.trim().parse().expect("a number");
        // The largest packets there are have 65,535 bytes, to which IPv6 does not count its header.
        for (ip, most, before) in
            [(IpAddr::from(Ipv4Addr::LOCALHOST), 65_535, 32), (Ipv6Addr::LOCALHOST.into(), 65_575, 52)]
        {
            let block = largest_block((ip, 1234).into()).expect("an MTU");
            assert_eq!(usize::from(block), mtu.min(most) - before, "{ip}");
        }
    }
}
