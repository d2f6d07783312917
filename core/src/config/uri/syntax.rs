//! Hosts and percent-encoding.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use heapless::{String, Vec};

use super::{error::InvalidUri, limits::MAX_HOST};

/// Returns whether a host is an IPv4 address or a valid name for DNS and hosts files.
pub(super) fn is_host(host: &str) -> bool {
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

/// Parses the name or the IP address in the certificate of a server.
pub(crate) fn parse_hostname(host: &str) -> Option<String<MAX_HOST>> {
    (is_host(host) || host.parse::<Ipv6Addr>().is_ok()).then(|| host.try_into().ok()).flatten()
}

/// Decodes percent-encoding into UTF-8 without NUL.
pub(super) fn percent_decode<const N: usize>(text: &str, too_long: InvalidUri) -> Result<String<N>, InvalidUri> {
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
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:@!$'()*,=".contains(&byte)
}

/// Percent-encodes all bytes of a text but the plain ones.
pub(crate) fn percent_encode(f: &mut impl fmt::Write, text: &str, is_plain: fn(u8) -> bool) -> fmt::Result {
    text.bytes().try_for_each(
        |byte| {
            if is_plain(byte) { f.write_char(char::from(byte)) } else { write!(f, "%{byte:02X}") }
        },
    )
}
