//! NBD URIs.

#[cfg(test)]
mod tests;

use core::{
    fmt::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

use heapless::{String, Vec};

/// The default port of an NBD server.
pub const DEFAULT_PORT: u16 = 10809;

/// The longest host name, in bytes.
pub const MAX_HOST: usize = 255;

/// The longest export name, in bytes.
pub const MAX_EXPORT: usize = 255;

/// The longest path of a Unix socket, in bytes: Linux allows 108 with the NUL at the end.
pub const MAX_SOCKET: usize = 107;

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
}

impl NbdUri {
    /// Parses `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`.
    ///
    /// The export name is the path without its first `/`: `nbd://h//disk` names `/disk`, `nbd://h` names the default export.
    ///
    /// # Errors
    ///
    /// [`InvalidUri`] names what was expected instead.
    pub fn parse(uri: &str) -> Result<Self, InvalidUri> {
        let (scheme, rest) = uri.split_once("://").ok_or(InvalidUri::Scheme)?;
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        if is("nbds") || is("nbds+unix") {
            return Err(InvalidUri::Tls);
        }
        if !is("nbd") && !is("nbd+unix") {
            return Err(InvalidUri::Scheme);
        }
        if rest.contains('#') {
            return Err(InvalidUri::Fragment);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let server = if is("nbd") { tcp_server(authority, query)? } else { unix_server(authority, query)? };
        Ok(Self { server, export: percent_decode(path, InvalidUri::ExportTooLong)? })
    }
}

/// Parses `HOST[:PORT]`.
fn tcp_server(authority: &str, query: &str) -> Result<NbdServer, InvalidUri> {
    if authority.contains('@') {
        return Err(InvalidUri::UserInfo);
    }
    if !query.is_empty() {
        return Err(InvalidUri::Parameter);
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

/// Returns whether a host is an IPv4 address or a valid name for DNS and hosts files.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.is_empty()
            && !label.starts_with('-')
    };
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        // A dot at the end marks a name without a search domain.
        host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
    }
}

fn parse_port(port: &str) -> Result<u16, InvalidUri> {
    // `parse` alone would accept `+1`.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidUri::Port);
    }
    port.parse().ok().filter(|&port| port != 0).ok_or(InvalidUri::Port)
}

/// Parses `?socket=PATH`, the only supported parameter.
fn unix_server(authority: &str, query: &str) -> Result<NbdServer, InvalidUri> {
    if !authority.is_empty() {
        return Err(InvalidUri::Authority);
    }
    let mut socket = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("socket", path)) if socket.is_none() && !path.is_empty() => socket = Some(path),
            Some(("socket", _)) => return Err(InvalidUri::Socket),
            _ => return Err(InvalidUri::Parameter),
        }
    }
    Ok(NbdServer::Unix(percent_decode(socket.ok_or(InvalidUri::Socket)?, InvalidUri::SocketTooLong)?))
}

/// Decodes percent-encoding into UTF-8 without NUL.
fn percent_decode<const N: usize>(text: &str, too_long: InvalidUri) -> Result<String<N>, InvalidUri> {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => hex_pair(bytes.next(), bytes.next()).ok_or(InvalidUri::Encoding)?,
            byte if is_plain(byte) || b"&+;?".contains(&byte) => byte,
            _ => return Err(InvalidUri::Encoding),
        };
        if byte == 0 {
            return Err(InvalidUri::Encoding);
        }
        decoded.push(byte).map_err(|_| too_long)?;
    }
    String::from_utf8(decoded).map_err(|_| InvalidUri::Encoding)
}

fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16);
    u8::try_from((digit(high?)? << 4) | digit(low?)?).ok()
}

/// Returns whether a byte needs no encoding in a path and in the value of a parameter (RFC 3986 sections 3.3 and 3.4).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:@!$'()*,=".contains(&byte)
}

impl fmt::Display for NbdUri {
    /// Writes the URI in ASCII and without the default port. [`NbdUri::parse`] returns the same value for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            NbdServer::Tcp { host, port } => {
                if host.contains(':') {
                    write!(f, "nbd://[{host}]")?;
                } else {
                    write!(f, "nbd://{host}")?;
                }
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                f.write_char('/')?;
                percent_encode(f, &self.export, is_plain)
            }
            NbdServer::Unix(socket) => {
                f.write_str("nbd+unix:///")?;
                percent_encode(f, &self.export, is_plain)?;
                f.write_str("?socket=")?;
                percent_encode(f, socket, is_plain)
            }
        }
    }
}

/// Percent-encodes all bytes of a text but the plain ones.
pub(super) fn percent_encode(f: &mut impl fmt::Write, text: &str, is_plain: fn(u8) -> bool) -> fmt::Result {
    text.bytes().try_for_each(
        |byte| {
            if is_plain(byte) { f.write_char(char::from(byte)) } else { write!(f, "%{byte:02X}") }
        },
    )
}

/// The reason why a text is not the address of an NBD export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum InvalidUri {
    /// The scheme is neither `nbd` nor `nbd+unix`.
    Scheme,
    /// The scheme requires TLS: `nbds`, `nbds+unix`.
    Tls,
    /// There is a user name before the host.
    UserInfo,
    /// The host is missing, invalid or longer than [`MAX_HOST`].
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// An `nbd+unix` URI has a host.
    Authority,
    /// An `nbd+unix` URI has no socket path, an empty one or two of them.
    Socket,
    /// There is a parameter other than the `socket` of `nbd+unix`.
    Parameter,
    /// There is a fragment (`#`).
    Fragment,
    /// A character that must be percent-encoded is not, or the decoded text is not UTF-8 or contains a NUL.
    Encoding,
    /// The name of the export is longer than [`MAX_EXPORT`].
    ExportTooLong,
    /// The path of the socket is longer than [`MAX_SOCKET`].
    SocketTooLong,
}

impl fmt::Display for InvalidUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "expected nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH",
            Self::Tls => "expected nbd:// or nbd+unix:// (TLS is not supported yet)",
            Self::UserInfo => "expected nbd://HOST[:PORT]/EXPORT without a user name",
            Self::Host => "expected a host name, an IPv4 address or an [IPv6] address after nbd://",
            Self::Port => "expected a port from 1 to 65535 after the host",
            Self::Authority => "expected nbd+unix:///EXPORT?socket=PATH, with three slashes and no host",
            Self::Socket => "expected nbd+unix:///EXPORT?socket=PATH with one socket path",
            Self::Parameter => "expected no parameter but the socket of nbd+unix:///EXPORT?socket=PATH",
            Self::Fragment => "expected no # (in a name it is written %23)",
            Self::Encoding => "expected percent-encoded UTF-8 without NUL (a space is written %20)",
            Self::ExportTooLong => return write!(f, "expected an export name of at most {MAX_EXPORT} bytes"),
            Self::SocketTooLong => return write!(f, "expected a socket path of at most {MAX_SOCKET} bytes"),
        })
    }
}

impl core::error::Error for InvalidUri {}
