//! NBD URIs.

mod error;
mod limits;
mod syntax;
#[cfg(test)]
mod tests;
mod tls;

use core::{
    fmt::{self, Write},
    net::Ipv6Addr,
};

use heapless::String;

pub(crate) use self::syntax::{parse_hostname, percent_encode};
pub use self::{
    error::InvalidUri,
    limits::{MAX_EXPORT, MAX_HOST, MAX_SOCKET, MAX_TLS_PATH},
    tls::TlsParameters,
};
use self::{
    syntax::{is_host, is_plain, percent_decode},
    tls::Query,
};

/// The default port of an NBD server.
pub const DEFAULT_PORT: u16 = 10809;

/// The address of an NBD export, by the [NBD URI specification].
///
/// [NBD URI specification]: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NbdUri {
    /// The address of the server.
    pub server: NbdServer,
    /// The name of the export, percent-decoded; empty for the server's default export.
    pub export: String<MAX_EXPORT>,
    /// The parameters of TLS, if the connection must be encrypted.
    pub tls: Option<TlsParameters>,
}

/// The address of an NBD server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NbdServer {
    /// A host name, an IPv4 address or an IPv6 address (without brackets), and a TCP port.
    Tcp {
        /// The host.
        host: String<MAX_HOST>,
        /// The port, never 0.
        port: u16,
    },
    /// The path of a Unix socket, percent-decoded.
    Unix(String<MAX_SOCKET>),
    /// A virtual machine, or its host, and a port (vsock).
    Vsock {
        /// The context identifier: 2 is the host.
        cid: u32,
        /// The port.
        port: u32,
    },
}

/// How a server is reached.
#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Unix,
    Vsock,
}

/// The schemes: name, whether with TLS, transport.
const SCHEMES: [(&str, bool, Transport); 6] = [
    ("nbd", false, Transport::Tcp),
    ("nbds", true, Transport::Tcp),
    ("nbd+unix", false, Transport::Unix),
    ("nbds+unix", true, Transport::Unix),
    ("nbd+vsock", false, Transport::Vsock),
    ("nbds+vsock", true, Transport::Vsock),
];

impl NbdUri {
    /// Parses `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH` or `nbd+vsock://CID[:PORT]/EXPORT`, with TLS `nbds` instead
    /// of `nbd`.
    ///
    /// The export name is the path without its first `/`: `nbd://h//disk` names `/disk`, `nbd://h` names the default export.
    ///
    /// # Errors
    ///
    /// [`InvalidUri`] names what was expected instead.
    pub fn parse(uri: &str) -> Result<Self, InvalidUri> {
        let (scheme, rest) = uri.split_once("://").ok_or(InvalidUri::Scheme)?;
        let found = SCHEMES.into_iter().find(|(name, ..)| scheme.eq_ignore_ascii_case(name));
        let (_, is_tls, transport) = found.ok_or(InvalidUri::Scheme)?;
        if rest.contains('#') {
            return Err(InvalidUri::Fragment);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let Query { socket, tls } = Query::parse(query, matches!(transport, Transport::Unix), is_tls)?;
        let server = match transport {
            Transport::Tcp => tcp_server(authority)?,
            Transport::Unix => unix_server(authority, socket)?,
            Transport::Vsock => vsock_server(authority)?,
        };
        let export = percent_decode(path, InvalidUri::ExportTooLong)?;
        Ok(Self { server, export, tls: is_tls.then_some(tls) })
    }
}

/// Parses `HOST[:PORT]`.
fn tcp_server(authority: &str) -> Result<NbdServer, InvalidUri> {
    if authority.contains('@') {
        return Err(InvalidUri::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']').ok_or(InvalidUri::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| InvalidUri::Host)?;
            let mut host = String::new();
            write!(host, "{address}").map_err(|_| InvalidUri::Host)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or(InvalidUri::Port)?),
            };
            (host, port)
        }
        None => {
            // The last colon: an IPv6 address without brackets is then an invalid host, not an invalid port.
            let (host, port) = authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            if !is_host(host) {
                return Err(InvalidUri::Host);
            }
            (host.try_into().map_err(|_| InvalidUri::Host)?, port)
        }
    };
    Ok(NbdServer::Tcp { host, port: port.map_or(Ok(DEFAULT_PORT), parse_port)? })
}

fn parse_port(port: &str) -> Result<u16, InvalidUri> {
    // `parse` alone would accept `+1`.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidUri::Port);
    }
    port.parse().ok().filter(|&port| port != 0).ok_or(InvalidUri::Port)
}

fn unix_server(authority: &str, socket: Option<&str>) -> Result<NbdServer, InvalidUri> {
    if !authority.is_empty() {
        return Err(InvalidUri::Authority);
    }
    Ok(NbdServer::Unix(percent_decode(socket.ok_or(InvalidUri::Socket)?, InvalidUri::SocketTooLong)?))
}

/// Parses `CID[:PORT]`.
fn vsock_server(authority: &str) -> Result<NbdServer, InvalidUri> {
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        // The largest number means any.
        text.parse().ok().filter(|&number| is_number && number != u32::MAX).ok_or(InvalidUri::Vsock)
    };
    let (cid, port) = authority.split_once(':').map_or((authority, None), |(cid, port)| (cid, Some(port)));
    Ok(NbdServer::Vsock { cid: number(cid)?, port: port.map_or(Ok(DEFAULT_PORT.into()), number)? })
}

impl fmt::Display for NbdUri {
    /// Writes the URI in ASCII and without the default port. [`NbdUri::parse`] returns the same value for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "nbds" } else { "nbd" })?;
        let mut separator = '?';
        match &self.server {
            NbdServer::Tcp { host, port } => {
                if host.contains(':') {
                    write!(f, "://[{host}]")?;
                } else {
                    write!(f, "://{host}")?;
                }
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                f.write_char('/')?;
                percent_encode(f, &self.export, is_plain)?;
            }
            NbdServer::Unix(socket) => {
                f.write_str("+unix:///")?;
                percent_encode(f, &self.export, is_plain)?;
                f.write_str("?socket=")?;
                percent_encode(f, socket, is_plain)?;
                separator = '&';
            }
            NbdServer::Vsock { cid, port } => {
                write!(f, "+vsock://{cid}")?;
                if *port != DEFAULT_PORT.into() {
                    write!(f, ":{port}")?;
                }
                f.write_char('/')?;
                percent_encode(f, &self.export, is_plain)?;
            }
        }
        self.tls.as_ref().map_or(Ok(()), |tls| tls.write(f, separator))
    }
}
