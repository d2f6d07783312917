//! The machines on the networks of this one, as its kernel knows them (rtnetlink(7)).

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
use smol::Timer;

use crate::net::open_towards;

/// What is known of the network card of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkAddress {
    /// It has this address.
    Mac([u8; 6]),
    /// It is on a network of ours, but has not been heard of.
    Unresolved,
    /// It is behind a router, or this machine itself, or on a network without such addresses.
    None,
}

/// Looks at the kernel's tables; takes some microseconds.
///
/// # Errors
///
/// The kernel does not answer: this process may not ask it (sockets of `AF_NETLINK`), or it is older than Linux 5.0.
pub(crate) fn link_address(machine: SocketAddr) -> io::Result<LinkAddress> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let interface = match interface_to(&kernel, machine) {
        Ok(Some(interface)) => interface,
        Ok(None) | Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => return Ok(LinkAddress::None),
        Err(errno) => return Err(errno.into()),
    };
    // struct ndmsg: family, padding, interface, state, flags, type
    let [a, b, c, d] = interface;
    let mut query = Query::new(libc::RTM_GETNEIGH, [family(machine), 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
    query.attribute(libc::NDA_DST, &octets(machine));
    match query.ask(&kernel) {
        Ok(answer) => Ok(card(&answer)),
        Err(Errno::ENOENT) => Ok(LinkAddress::Unresolved),
        Err(errno) => Err(errno.into()),
    }
}

/// Has the kernel find out on the network who has this address, and waits for that; for most it takes a millisecond.
///
/// # Errors
///
/// As of [`link_address`], or the network is down.
pub(crate) async fn resolve(machine: SocketAddr) -> io::Result<LinkAddress> {
    let mut discard = machine;
    // The port where everything is thrown away (RFC 863).
    discard.set_port(9);
    open_towards(machine)?.send_to(&[], discard)?;
    for pause in CALL_PAUSES {
        Timer::after(Duration::from_millis(pause)).await;
        match link_address(machine)? {
            LinkAddress::Unresolved => {}
            card => return Ok(card),
        }
    }
    Ok(LinkAddress::Unresolved)
}

/// When to look for the answer to a call, in milliseconds after the time before.
const CALL_PAUSES: [u64; 7] = [2, 5, 10, 20, 50, 100, 300];

/// The index of the interface to the network that a machine is on; `None` when that is not one of ours.
fn interface_to(kernel: &OwnedFd, machine: SocketAddr) -> Result<Option<[u8; 4]>, Errno> {
    // struct rtmsg: family, length of the destination in bits, and what is not asked for
    let bits = if machine.is_ipv4() { 32 } else { 128 };
    let mut query = Query::new(libc::RTM_GETROUTE, [family(machine), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    query.attribute(libc::RTA_DST, &octets(machine));
    // A link-local address is complete only with the interface it is on.
    if let SocketAddr::V6(machine) = machine
        && machine.scope_id() != 0
    {
        query.attribute(libc::RTA_OIF, &machine.scope_id().to_ne_bytes());
    }
    query.ask(kernel).map(|answer| direct_interface(&answer))
}

/// The interface of a route (struct rtmsg and attributes), unless there is a router on it.
fn direct_interface(route: &[u8]) -> Option<[u8; 4]> {
    /// A router of the other family; not in `libc` for every C library.
    const RTA_VIA: u16 = 18;
    let is_unicast = route.get(7) == Some(&libc::RTN_UNICAST);
    let attribute = |wanted| attributes(route).find(|(kind, _)| *kind == wanted);
    if !is_unicast || attribute(libc::RTA_GATEWAY).is_some() || attribute(RTA_VIA).is_some() {
        return None;
    }
    attribute(libc::RTA_OIF)?.1.try_into().ok()
}

/// What an entry of the neighbour table says (struct ndmsg and attributes).
fn card(neighbour: &[u8]) -> LinkAddress {
    let state = match neighbour {
        [_, _, _, _, _, _, _, _, a, b, ..] => u16::from_ne_bytes([*a, *b]),
        _ => libc::NUD_NONE,
    };
    if state & libc::NUD_NOARP != 0 {
        return LinkAddress::None;
    }
    // The kernel adds the address only while it holds it for good.
    match attributes(neighbour).find(|(kind, _)| *kind == libc::NDA_LLADDR) {
        Some((_, address)) => address.try_into().map_or(LinkAddress::None, LinkAddress::Mac),
        None => LinkAddress::Unresolved,
    }
}

/// How long the fixed part of a route or a neighbour is, before its attributes.
const FIXED: usize = 12;

/// The attributes of a route or a neighbour: the kind and the value of each, up to the first that is not whole.
fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(FIXED..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *rest else { return None };
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]), value))
    })
}

/// A question to the kernel (netlink(7)): a header of sixteen bytes, a fixed part, attributes.
struct Query(Vec<u8>);

impl Query {
    fn new(kind: u16, fixed: [u8; FIXED]) -> Self {
        // struct nlmsghdr: length, which is not known yet, type, flags, sequence number, sender
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

    /// Returns the fixed part and the attributes of the answer.
    fn ask(mut self, kernel: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        sendto(kernel.as_raw_fd(), &self.0, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        // The kernel has answered when it has taken the question.
        let mut buf = [0; 4096];
        let len = recv(kernel.as_raw_fd(), &mut buf, MsgFlags::empty())?;
        answer(&buf[..len]).map(<[u8]>::to_vec)
    }
}

/// What follows the header of an answer, which may also be an error.
fn answer(message: &[u8]) -> Result<&[u8], Errno> {
    let [a, b, c, d, e, f, ..] = *message else { return Err(Errno::EBADMSG) };
    let len = u32::from_ne_bytes([a, b, c, d]) as usize;
    let body = message.get(16..len).ok_or(Errno::EBADMSG)?;
    if i32::from(u16::from_ne_bytes([e, f])) != libc::NLMSG_ERROR {
        return Ok(body);
    }
    // struct nlmsgerr: the negative number of the error, the question
    match *body {
        [a, b, c, d, ..] => Err(Errno::from_raw(i32::from_ne_bytes([a, b, c, d]).saturating_neg())),
        _ => Err(Errno::EBADMSG),
    }
}

fn family(machine: SocketAddr) -> u8 {
    let family = if machine.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

fn octets(machine: SocketAddr) -> Vec<u8> {
    match machine.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// A fixed part with this byte at this place, and attributes padded as the kernel pads them.
    fn message(fixed: &[(usize, u8)], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        fixed.iter().for_each(|&(at, byte)| bytes[at] = byte);
        for (kind, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// The state's place, low byte, on this machine.
    const STATE: usize = if cfg!(target_endian = "little") { 8 } else { 9 };
    const REACHABLE: u8 = 2;
    const FAILED: u8 = 0x20;
    const NOARP: u8 = 0x40;
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

    #[test]
    fn a_neighbour_has_the_address_that_the_kernel_holds_for_good() {
        let ip = (libc::NDA_DST, &[10, 0, 0, 5][..]);
        let mac = (libc::NDA_LLADDR, &MAC[..]);
        for (state, attributes, expected) in [
            (REACHABLE, &[ip, mac][..], LinkAddress::Mac(MAC)),
            (REACHABLE, &[mac, ip], LinkAddress::Mac(MAC)),
            (FAILED, &[ip], LinkAddress::Unresolved),
            (NOARP, &[ip, mac], LinkAddress::None),
            // InfiniBand, and a tunnel.
            (REACHABLE, &[ip, (libc::NDA_LLADDR, &[1; 20])], LinkAddress::None),
            (REACHABLE, &[(libc::NDA_LLADDR, &[]), ip], LinkAddress::None),
            (REACHABLE, &[], LinkAddress::Unresolved),
        ] {
            assert_eq!(card(&message(&[(STATE, state)], attributes)), expected, "{state} {attributes:?}");
        }
    }

    #[test]
    fn a_machine_behind_a_router_is_on_no_network_of_ours() {
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
    fn a_broken_message_says_nothing() {
        let whole = message(&[(STATE, REACHABLE)], &[(libc::NDA_DST, &[10, 0, 0, 5]), (libc::NDA_LLADDR, &MAC)]);
        for len in 0..FIXED + 8 + 4 + MAC.len() {
            assert_eq!(card(&whole[..len]), LinkAddress::Unresolved, "{len} bytes");
            assert_eq!(direct_interface(&whole[..len]), None);
        }
        // Lengths that are no lengths: the walk must end.
        for len in [0, 1, 3, 5, u16::MAX] {
            let mut broken = whole.clone();
            broken[FIXED..FIXED + 2].copy_from_slice(&len.to_ne_bytes());
            assert!(attributes(&broken).count() <= broken.len());
        }
    }

    #[test]
    fn an_answer_may_be_an_error() {
        let header = |len: u32, kind: i32| [&len.to_ne_bytes()[..], &(kind as u16).to_ne_bytes(), &[0; 10]].concat();
        let error = |errno: i32| [header(20, libc::NLMSG_ERROR), errno.to_ne_bytes().to_vec()].concat();
        assert_eq!(answer(&[header(19, 28), vec![1, 2, 3, 4]].concat()), Ok(&[1, 2, 3][..]));
        assert_eq!(answer(&error(-libc::ENOENT)), Err(Errno::ENOENT));
        assert_eq!(answer(&error(i32::MIN)), Err(Errno::UnknownErrno));
        for broken in [vec![], vec![0; 5], header(15, 28), header(17, 28), header(0, 28), header(16, libc::NLMSG_ERROR)]
        {
            assert_eq!(answer(&broken), Err(Errno::EBADMSG), "{broken:?}");
        }
    }

    #[test]
    fn this_machine_is_no_neighbour_of_its_own() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            // A machine may have no IPv6 at all; then the kernel knows no way.
            assert_eq!(link_address((ip, 69).into()).expect("an answer"), LinkAddress::None, "{ip}");
        }
    }
}
