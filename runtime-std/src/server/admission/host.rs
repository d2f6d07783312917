//! The parties that places are counted for.

use std::net::{IpAddr, SocketAddr};

use crate::network::network;

/// The host that a request comes from. Link-local addresses of different links belong to different hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Host {
    ip: IpAddr,
    /// The interface of a link-local address; 0 for all others.
    scope: u32,
}

/// The network that places are shared among: an IPv4 address, or an IPv6 prefix of 64 bits, since one host can use all its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Network(Host);

impl Host {
    pub(super) fn of(client: SocketAddr) -> Self {
        let scope = match client {
            SocketAddr::V6(client) => client.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self { ip: client.ip(), scope }
    }

    pub(super) fn network(self) -> Network {
        Network(Self { ip: network(self.ip), ..self })
    }
}
