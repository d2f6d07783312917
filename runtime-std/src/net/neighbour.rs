//! The kernel's neighbour table (rtnetlink(7)).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
};
use smol::{Timer, lock::Semaphore};

use crate::net::open_for;

/// The link address of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkAddress {
    /// The MAC address.
    Mac([u8; 6]),
    /// Not resolved yet: the host is on a local network, but not in the neighbour table.
    Unresolved,
    /// None: the host is behind a router, is this host, or is on a network without MAC addresses.
    None,
}

/// Looks up a host in the neighbour table. Takes some microseconds.
///
/// # Errors
///
/// `AF_NETLINK` sockets are not permitted, or the kernel is older than Linux 5.0.
pub(crate) fn link_address(host: SocketAddr) -> io::Result<LinkAddress> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let interface = match interface_to(&kernel, host) {
        Ok(Some(interface)) => interface,
        Ok(None) | Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => return Ok(LinkAddress::None),
        Err(errno) => return Err(errno.into()),
    };
    // struct ndmsg: family, padding, interface, state, flags, type
    let [a, b, c, d] = interface;
    let mut query = Query::new(libc::RTM_GETNEIGH, [family(host), 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
    query.attribute(libc::NDA_DST, &octets(host));
    match query.send(&kernel) {
        Ok(reply) => Ok(parse_neighbour(&reply)),
        Err(Errno::ENOENT) => Ok(LinkAddress::Unresolved),
        Err(errno) => Err(errno.into()),
    }
}

/// The hosts that are being resolved at a time: a flood with addresses of the local network must not become one of ARP requests.
static PLACES: Semaphore = Semaphore::new(64);

/// Makes the kernel resolve the link address (ARP, NDP), and waits for the result; usually a millisecond, at most half a second. Waits
/// longer while too many hosts are being resolved, but a host that sends requests usually resolves the server, and so itself, first.
///
/// # Errors
///
/// Those of [`link_address`]; the network is down.
pub(crate) async fn resolve(host: SocketAddr) -> io::Result<LinkAddress> {
    let _place = PLACES.acquire().await;
    let mut discard = host;
    // The discard port (RFC 863).
    discard.set_port(9);
    open_for(host)?.send_to(&[], discard)?;
    for pause in RESOLVE_PAUSES {
        Timer::after(Duration::from_millis(pause)).await;
        match link_address(host)? {
            LinkAddress::Unresolved => {}
            resolved => return Ok(resolved),
        }
    }
    Ok(LinkAddress::Unresolved)
}

/// The pauses before each lookup while an address is being resolved, in milliseconds.
const RESOLVE_PAUSES: [u64; 7] = [2, 5, 10, 20, 50, 100, 300];

/// Returns the index of the interface to a host's network; `None` if that is not a local network.
fn interface_to(kernel: &OwnedFd, host: SocketAddr) -> Result<Option<[u8; 4]>, Errno> {
    // struct rtmsg: family, length of the destination in bits, unused fields
    let bits = if host.is_ipv4() { 32 } else { 128 };
    let mut query = Query::new(libc::RTM_GETROUTE, [family(host), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    query.attribute(libc::RTA_DST, &octets(host));
    // A link-local address needs the interface it is on.
    if let SocketAddr::V6(host) = host
        && host.scope_id() != 0
    {
        query.attribute(libc::RTA_OIF, &host.scope_id().to_ne_bytes());
    }
    query.send(kernel).map(|reply| direct_interface(&reply))
}

/// Returns the interface of a route (struct rtmsg and attributes), unless it leads through a router.
fn direct_interface(route: &[u8]) -> Option<[u8; 4]> {
    /// A gateway of the other address family; not in `libc` for every C library.
    const RTA_VIA: u16 = 18;
    let is_unicast = route.get(7) == Some(&libc::RTN_UNICAST);
    let attribute = |wanted| attributes(route).find(|(kind, _)| *kind == wanted);
    if !is_unicast || attribute(libc::RTA_GATEWAY).is_some() || attribute(RTA_VIA).is_some() {
        return None;
    }
    attribute(libc::RTA_OIF)?.1.try_into().ok()
}

/// Parses an entry of the neighbour table (struct ndmsg and attributes).
fn parse_neighbour(neighbour: &[u8]) -> LinkAddress {
    let state = match neighbour {
        [_, _, _, _, _, _, _, _, a, b, ..] => u16::from_ne_bytes([*a, *b]),
        _ => libc::NUD_NONE,
    };
    if state & libc::NUD_NOARP != 0 {
        return LinkAddress::None;
    }
    // The kernel includes the address only while it is valid.
    match attributes(neighbour).find(|(kind, _)| *kind == libc::NDA_LLADDR) {
        Some((_, address)) => address.try_into().map_or(LinkAddress::None, LinkAddress::Mac),
        None => LinkAddress::Unresolved,
    }
}

/// The length of the fixed part of a route or neighbour message, before the attributes, in bytes.
const FIXED_LEN: usize = 12;

/// Returns the types and values of the attributes of a route or neighbour message, up to the first truncated one.
fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(FIXED_LEN..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *rest else { return None };
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]), value))
    })
}

/// A netlink request (netlink(7)): a header of 16 bytes, the fixed part, attributes.
struct Query(Vec<u8>);

impl Query {
    fn new(kind: u16, fixed: [u8; FIXED_LEN]) -> Self {
        // struct nlmsghdr: length (set in `send`), type, flags, sequence number, sender
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend(fixed);
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = 4 + value.len() as u16;
        self.0.extend([len.to_ne_bytes(), kind.to_ne_bytes()].as_flattened());
        self.0.extend(value);
    }

    /// Sends the request, and returns the fixed part and the attributes of the reply.
    fn send(mut self, kernel: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        sendto(kernel.as_raw_fd(), &self.0, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        // The kernel replies before `sendto` returns.
        let mut buf = [0; 4096];
        let len = recv(kernel.as_raw_fd(), &mut buf, MsgFlags::empty())?;
        parse_reply(&buf[..len]).map(<[u8]>::to_vec)
    }
}

/// Returns the body of a reply, or the error that it reports.
fn parse_reply(message: &[u8]) -> Result<&[u8], Errno> {
    let [a, b, c, d, e, f, ..] = *message else { return Err(Errno::EBADMSG) };
    let len = u32::from_ne_bytes([a, b, c, d]) as usize;
    let body = message.get(16..len).ok_or(Errno::EBADMSG)?;
    if i32::from(u16::from_ne_bytes([e, f])) != libc::NLMSG_ERROR {
        return Ok(body);
    }
    // struct nlmsgerr: the negative error number, the request
    match *body {
        [a, b, c, d, ..] => Err(Errno::from_raw(i32::from_ne_bytes([a, b, c, d]).saturating_neg())),
        _ => Err(Errno::EBADMSG),
    }
}

fn family(host: SocketAddr) -> u8 {
    let family = if host.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

fn octets(host: SocketAddr) -> Vec<u8> {
    match host.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Returns a message with these bytes set in the fixed part, and padded attributes.
    fn message(fixed: &[(usize, u8)], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_LEN];
        fixed.iter().for_each(|&(at, byte)| bytes[at] = byte);
        for (kind, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// The offset of the low byte of the state.
    const STATE: usize = if cfg!(target_endian = "little") { 8 } else { 9 };
    const REACHABLE: u8 = 2;
    const FAILED: u8 = 0x20;
    const NOARP: u8 = 0x40;
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

    #[test]
    fn parses_neighbours() {
        let ip = (libc::NDA_DST, &[10, 0, 0, 5][..]);
        let mac = (libc::NDA_LLADDR, &MAC[..]);
        for (state, attributes, expected) in [
            (REACHABLE, &[ip, mac][..], LinkAddress::Mac(MAC)),
            (REACHABLE, &[mac, ip], LinkAddress::Mac(MAC)),
            (FAILED, &[ip], LinkAddress::Unresolved),
            (NOARP, &[ip, mac], LinkAddress::None),
            // InfiniBand and a tunnel.
            (REACHABLE, &[ip, (libc::NDA_LLADDR, &[1; 20])], LinkAddress::None),
            (REACHABLE, &[(libc::NDA_LLADDR, &[]), ip], LinkAddress::None),
            (REACHABLE, &[], LinkAddress::Unresolved),
        ] {
            assert_eq!(parse_neighbour(&message(&[(STATE, state)], attributes)), expected, "{state} {attributes:?}");
        }
    }

    #[test]
    fn finds_no_interface_behind_router() {
        let (dst, oif) = ((libc::RTA_DST, &[10, 0, 0, 5][..]), (libc::RTA_OIF, &[7, 0, 0, 0][..]));
        let gateway = (libc::RTA_GATEWAY, &[10, 0, 0, 1][..]);
        let via = (18, &[10, 0, 1, 2, 3, 4][..]);
        let (unicast, local) = (libc::RTN_UNICAST, 2);
        for (kind, attributes, expected) in [
            (unicast, &[dst, oif][..], Some([7, 0, 0, 0])),
            (unicast, &[dst, gateway, oif], None),
            (unicast, &[dst, oif, via], None),
            (local, &[dst, oif], None),
            (unicast, &[dst], None),
            (unicast, &[(libc::RTA_OIF, &[7, 0])], None),
        ] {
            assert_eq!(direct_interface(&message(&[(7, kind)], attributes)), expected, "{kind} {attributes:?}");
        }
    }

    #[test]
    fn parses_truncated_messages() {
        let whole = message(&[(STATE, REACHABLE)], &[(libc::NDA_DST, &[10, 0, 0, 5]), (libc::NDA_LLADDR, &MAC)]);
        for len in 0..FIXED_LEN + 8 + 4 + MAC.len() {
            assert_eq!(parse_neighbour(&whole[..len]), LinkAddress::Unresolved, "{len} bytes");
            assert_eq!(direct_interface(&whole[..len]), None);
        }
        // Invalid attribute lengths must not cause an endless loop.
        for len in [0, 1, 3, 5, u16::MAX] {
            let mut broken = whole.clone();
            broken[FIXED_LEN..FIXED_LEN + 2].copy_from_slice(&len.to_ne_bytes());
            assert!(attributes(&broken).count() <= broken.len());
        }
    }

    #[test]
    fn parses_error_replies() {
        let header = |len: u32, kind: i32| [&len.to_ne_bytes()[..], &(kind as u16).to_ne_bytes(), &[0; 10]].concat();
        let error = |errno: i32| [header(20, libc::NLMSG_ERROR), errno.to_ne_bytes().to_vec()].concat();
        assert_eq!(parse_reply(&[header(19, 28), vec![1, 2, 3, 4]].concat()), Ok(&[1, 2, 3][..]));
        assert_eq!(parse_reply(&error(-libc::ENOENT)), Err(Errno::ENOENT));
        assert_eq!(parse_reply(&error(i32::MIN)), Err(Errno::UnknownErrno));
        for broken in [vec![], vec![0; 5], header(15, 28), header(17, 28), header(0, 28), header(16, libc::NLMSG_ERROR)]
        {
            assert_eq!(parse_reply(&broken), Err(Errno::EBADMSG), "{broken:?}");
        }
    }

    #[test]
    fn has_no_link_address_for_this_host() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            // Without IPv6 there is no route.
            assert_eq!(link_address((ip, 69).into()).expect("a reply"), LinkAddress::None, "{ip}");
        }
    }
}
