//! Receives several datagrams in one call.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg},
};

use super::{Route, socket_addr};

/// The largest datagram that is read, in bytes. A request has at most 512 (RFC 2347).
const MAX_DATAGRAM: usize = 2048;
/// The number of datagrams received at once. A burst must not overflow the socket while other tasks run.
const MAX_DATAGRAMS: usize = 32;

/// The memory for datagrams that are received at once.
#[derive(Debug)]
pub(crate) struct Datagrams {
    bytes: Vec<u8>,
    /// The positions, lengths and routes of those that were received.
    received: Vec<(usize, usize, Route)>,
    /// Whether as many were received as fit, so that there may be more.
    is_full: bool,
}

impl Datagrams {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; MAX_DATAGRAMS * MAX_DATAGRAM],
            received: Vec::with_capacity(MAX_DATAGRAMS),
            is_full: false,
        }
    }

    /// Returns the datagrams that were received last, with their routes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Route)> {
        self.received.iter().map(|&(index, len, route)| {
            let start = index * MAX_DATAGRAM;
            (&self.bytes[start..start + len], route)
        })
    }

    /// Returns whether no datagram was received last.
    pub(super) fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Returns whether more datagrams may have arrived than were received last.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Receives the datagrams that have arrived, instead of those before. Leaves out those that were not sent to a unicast address.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.received.clear();
        self.is_full = false;
        // The kernel changes the headers: they cannot be used again.
        let mut headers =
            MultiHeaders::preallocate(MAX_DATAGRAMS, Some(cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo)));
        let mut buffers: Vec<_> = self.bytes.chunks_mut(MAX_DATAGRAM).map(|bytes| [IoSliceMut::new(bytes)]).collect();
        let messages =
            recvmmsg::<_, SockaddrStorage, _>(socket.as_raw_fd(), &mut headers, &mut buffers, MsgFlags::empty(), None)?;
        for (index, message) in messages.enumerate() {
            self.is_full = index + 1 == MAX_DATAGRAMS;
            let client = message.address.and_then(|address| socket_addr(&address));
            if let Some((client, local)) = client.zip(destination(&message)?) {
                self.received.push((index, message.bytes, Route { client, local }));
            }
        }
        Ok(())
    }
}

/// Returns the address that a datagram was sent to, if it is a unicast address.
fn destination(message: &RecvMsg<'_, '_, SockaddrStorage>) -> io::Result<Option<IpAddr>> {
    let (mut v4, mut v6) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let is_unicast = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
                v4 = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())).filter(|_| is_unicast);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                v6 = Some(IpAddr::from(address))
                    .filter(|_| !address.is_multicast() && address.to_ipv4_mapped().is_none());
            }
            _ => {}
        }
    }
    Ok(v4.or(v6))
}
