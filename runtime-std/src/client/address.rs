//! Resolves the name of a server.

use std::{io, net::SocketAddr};

use super::FetchError;

/// The port for requests (RFC 1350 section 4).
const TFTP_PORT: u16 = 69;

/// Resolves `HOST[:PORT]`, a name or an address, to addresses in the order in which they should be tried.
///
/// An IPv6 address with a port stands in brackets: `[::1]:6969`. The default port is 69.
///
/// # Errors
///
/// Returns [`FetchError::Resolve`] if the text is malformed or the name is unknown.
pub async fn resolve(server: &str) -> Result<Vec<SocketAddr>, FetchError> {
    let resolve_error = |error| FetchError::Resolve { host: server.to_owned(), error };
    let (host, port) = split(server).ok_or_else(|| {
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
fn split(server: &str) -> Option<(&str, u16)> {
    if let Some(bracketed) = server.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return Some((host, if rest.is_empty() { TFTP_PORT } else { port(rest.strip_prefix(':')?)? }));
    }
    let (host, port) = match server.split_once(':') {
        // Several colons without brackets: an IPv6 address without a port.
        Some((_, rest)) if rest.contains(':') => (server, TFTP_PORT),
        Some((host, rest)) => (host, port(rest)?),
        None => (server, TFTP_PORT),
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
            assert_eq!(split(server), expected, "{server}");
        }
    }

    #[test]
    fn resolves_addresses_and_reports_malformed_ones() {
        let addresses = smol::block_on(resolve("[::1]:6969")).expect("an address");
        assert_eq!(addresses, ["[::1]:6969".parse().expect("an address")]);
        let error = smol::block_on(resolve("[::1")).expect_err("an error").to_string();
        assert!(error.contains("`[::1`") && error.contains("HOST:PORT"), "{error}");
    }
}
