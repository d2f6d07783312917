//! Resolves the name of a server.

use std::{fmt, io, net::SocketAddr};

/// The port for requests of TFTP (RFC 1350 section 4).
pub const TFTP_PORT: u16 = 69;

/// The name of a server cannot be resolved.
#[derive(Debug)]
pub struct ResolveError {
    /// The name as given.
    pub host: String,
    /// The error of the resolver; `InvalidInput` if the name is malformed.
    pub error: io::Error,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resolve the server `{}`: {}", self.host.escape_debug(), self.error)
    }
}

impl std::error::Error for ResolveError {}

/// Resolves `HOST[:PORT]`, a name or an address, to addresses in the order in which they should be tried.
///
/// An IPv6 address with a port stands in brackets: `[::1]:6969`.
///
/// # Errors
///
/// Returns [`ResolveError`] if the text is malformed or the name is unknown.
pub async fn resolve(server: &str, default_port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let resolve_error = |error| ResolveError { host: server.to_owned(), error };
    let (host, port) = split(server, default_port).ok_or_else(|| {
        let expected = "expected HOST or HOST:PORT, an IPv6 address with a port as [ADDRESS]:PORT";
        resolve_error(io::Error::new(io::ErrorKind::InvalidInput, expected))
    })?;
    let mut addresses = smol::net::resolve((host, port)).await.map_err(resolve_error)?;
    // The resolver returns an address once for each socket type.
    addresses.dedup();
    if addresses.is_empty() {
        return Err(resolve_error(io::Error::new(io::ErrorKind::NotFound, "no address")));
    }
    Ok(addresses)
}

/// Splits a text into host and port; returns `None` if it is malformed.
pub(super) fn split(server: &str, default_port: u16) -> Option<(&str, u16)> {
    if let Some(bracketed) = server.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return Some((host, if rest.is_empty() { default_port } else { port(rest.strip_prefix(':')?)? }));
    }
    let (host, port) = match server.split_once(':') {
        // Several colons without brackets: an IPv6 address without a port.
        Some((_, rest)) if rest.contains(':') => (server, default_port),
        Some((host, rest)) => (host, port(rest)?),
        None => (server, default_port),
    };
    if host.is_empty() { None } else { Some((host, port)) }
}

/// Parses a port. Port 0 is not an address.
fn port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|&port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_host_and_port() {
        for (server, expected) in [
            ("boot", Some(("boot", 69))),
            ("boot:6969", Some(("boot", 6969))),
            ("10.0.0.1:6969", Some(("10.0.0.1", 6969))),
            ("::1", Some(("::1", 69))),
            ("fe80::1%eth0", Some(("fe80::1%eth0", 69))),
            ("[::1]", Some(("::1", 69))),
            ("[::1]:6969", Some(("::1", 6969))),
            ("", None),
            (":69", None),
            ("boot:", None),
            ("boot:0", None),
            ("boot:65536", None),
            ("boot:tftp", None),
            ("[::1", None),
            ("[::1]6969", None),
        ] {
            assert_eq!(split(server, TFTP_PORT), expected, "{server}");
        }
    }

    #[test]
    fn resolves_addresses_and_reports_malformed_ones() {
        let addresses = smol::block_on(resolve("[::1]:6969", 80)).expect("an address");
        assert_eq!(addresses, ["[::1]:6969".parse().expect("an address")]);
        let error = smol::block_on(resolve("[::1", 80)).expect_err("an error").to_string();
        assert!(error.contains("`[::1`") && error.contains("HOST:PORT"), "{error}");
    }
}
