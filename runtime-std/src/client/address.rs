//! Servers as people name them.

use std::{io, net::SocketAddr};

use super::FetchError;

/// The port for requests (RFC 1350 section 4).
const TFTP_PORT: u16 = 69;

/// Finds the addresses of `HOST[:PORT]`, a name or an address, in the order in which they should be tried.
///
/// An IPv6 address with a port stands in brackets: `[::1]:6969`. The port is 69 unless given.
///
/// # Errors
///
/// [`FetchError::Host`] when that is no host, or nobody knows it.
pub async fn resolve(server: &str) -> Result<Vec<SocketAddr>, FetchError> {
    let unknown = |error| FetchError::Host { host: server.to_owned(), error };
    let (host, port) = split(server).ok_or_else(|| {
        let expected = "expected HOST or HOST:PORT, an IPv6 address with a port as [ADDRESS]:PORT";
        unknown(io::Error::new(io::ErrorKind::InvalidInput, expected))
    })?;
    let mut addresses = smol::net::resolve((host, port)).await.map_err(unknown)?;
    // A resolver names an address once for every way to use it.
    addresses.dedup();
    if addresses.is_empty() {
        return Err(unknown(io::Error::new(io::ErrorKind::NotFound, "no address")));
    }
    Ok(addresses)
}

/// Splits the port off, if there is one.
fn split(server: &str) -> Option<(&str, u16)> {
    if let Some(bracketed) = server.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return Some((host, if rest.is_empty() { TFTP_PORT } else { port(rest.strip_prefix(':')?)? }));
    }
    let (host, port) = match server.split_once(':') {
        // More than one colon without brackets: an IPv6 address alone.
        Some((_, rest)) if rest.contains(':') => (server, TFTP_PORT),
        Some((host, rest)) => (host, port(rest)?),
        None => (server, TFTP_PORT),
    };
    if host.is_empty() { None } else { Some((host, port)) }
}

/// Reads a port, which nobody can send to when it is 0.
fn port(digits: &str) -> Option<u16> {
    digits.parse().ok().filter(|&port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_in_many_ways() {
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
    fn addresses_need_no_resolver() {
        let addresses = smol::block_on(resolve("[::1]:6969")).expect("an address");
        assert_eq!(addresses, ["[::1]:6969".parse().expect("an address")]);
        let error = smol::block_on(resolve("[::1")).expect_err("no host").to_string();
        assert!(error.contains("`[::1`") && error.contains("HOST:PORT"), "{error}");
    }
}
