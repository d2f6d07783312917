//! The names of a client: its directory and the description of its disk are named after them.

use std::{fmt, net::IpAddr};

use rtftp_core::RequestPath;

/// A name of a client. Each name has only one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientName {
    /// The source address of its requests, in the usual notation: `10.0.0.5`, `fe80::1`. A link-local address has the same name on
    /// every interface.
    Ip(IpAddr),
    /// The MAC address of its network interface, from the kernel's neighbour table: `dc-a6-32-01-36-c2`.
    Mac([u8; 6]),
    /// The last eight digits of a Raspberry Pi's serial number, which its boot loader prefixes to requested paths: `9ffefdef`. Any
    /// client can send any serial number.
    Serial(u32),
}

impl ClientName {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// Returns `Some` with the intended name if it is spelled differently, or `None` if the text is not a client name.
    pub fn parse(text: &str) -> Result<Self, Option<Self>> {
        let name = parse_ip(text).or_else(|| parse_mac(text)).or_else(|| parse_serial(text)).ok_or(None)?;
        if name.to_string() == text { Ok(name) } else { Err(Some(name)) }
    }

    /// Splits a requested path that starts with a serial number or a MAC address into that name and the rest of the path. A
    /// Raspberry Pi prefixes one of the two (`TFTP_PREFIX` in its EEPROM).
    pub(crate) fn split_prefix(path: &RequestPath) -> Option<(Self, RequestPath)> {
        let first = path.names().next()?;
        let rest = path.as_bytes().get(first.len() + 1..)?;
        match Self::parse(str::from_utf8(first).ok()?) {
            Ok(name @ (Self::Serial(_) | Self::Mac(_))) => Some((name, RequestPath::parse(rest).ok()?)),
            _ => None,
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Mac([a, b, c, d, e, g]) => write!(f, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{g:02x}"),
            Self::Serial(serial) => write!(f, "{serial:08x}"),
        }
    }
}

/// Parses an IP address. The interface of a link-local one is no part of the name.
fn parse_ip(text: &str) -> Option<ClientName> {
    let (ip, _interface) = text.split_once('%').filter(|(ip, _)| ip.contains(':')).unwrap_or((text, ""));
    ip.parse().ok().map(|ip: IpAddr| ClientName::Ip(ip.to_canonical()))
}

/// Parses six pairs of hexadecimal digits, separated by hyphens or by the more common colons.
fn parse_mac(text: &str) -> Option<ClientName> {
    let mut mac = [0; 6];
    let mut pairs = text.split(['-', ':']);
    for byte in &mut mac {
        *byte = pairs.next().filter(|pair| is_hex(pair, 2)).and_then(|pair| u8::from_str_radix(pair, 16).ok())?;
    }
    pairs.next().is_none().then_some(ClientName::Mac(mac))
}

/// Parses the eight digits that a Raspberry Pi sends, or the sixteen in its `/proc/cpuinfo`.
fn parse_serial(text: &str) -> Option<ClientName> {
    if !is_hex(text, 8) && !is_hex(text, 16) {
        return None;
    }
    u32::from_str_radix(text.get(text.len() - 8..)?, 16).ok().map(ClientName::Serial)
}

fn is_hex(digits: &str, count: usize) -> bool {
    digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: ClientName = ClientName::Mac([0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2]);

    fn ip(ip: &str) -> ClientName {
        ClientName::Ip(ip.parse().expect("address"))
    }

    #[test]
    fn parses_names_in_their_only_spelling() {
        for (name, expected) in [
            ("10.0.0.5", ip("10.0.0.5")),
            ("fe80::1", ip("fe80::1")),
            ("::1", ip("::1")),
            ("dc-a6-32-01-36-c2", MAC),
            ("9ffefdef", ClientName::Serial(0x9ffe_fdef)),
            ("00000010", ClientName::Serial(0x10)),
            ("12345678", ClientName::Serial(0x1234_5678)),
        ] {
            assert_eq!(ClientName::parse(name), Ok(expected));
            assert_eq!(expected.to_string(), name);
        }
    }

    #[test]
    fn returns_intended_name_for_other_spellings() {
        for (name, intended) in [
            ("FE80::1", "fe80::1"),
            ("fe80:0:0:0:0:0:0:1", "fe80::1"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("fe80::1%eth0", "fe80::1"),
            ("FE80::1%2", "fe80::1"),
            ("DC-A6-32-01-36-C2", "dc-a6-32-01-36-c2"),
            ("dc:a6:32:01:36:c2", "dc-a6-32-01-36-c2"),
            ("9FFEFDEF", "9ffefdef"),
            ("100000009ffefdef", "9ffefdef"),
            ("0c8f7e5cbd989ae1", "bd989ae1"),
        ] {
            let found = ClientName::parse(name).expect_err(name).expect(name);
            assert_eq!(found.to_string(), intended);
        }
    }

    #[test]
    fn rejects_other_texts() {
        for name in [
            "",
            "default",
            "board",
            "10.0.0",
            "10.0.0.05",
            "10.0.0.256",
            "10.0.0.5%eth0",
            "%eth0",
            "dc-a6-32-01-36",
            "dc-a6-32-01-36-c2-00",
            "dc-a6-32-01-36-+2",
            "dc-a6-32-01-36-c",
            "dca6320136c2",
            "9ffefde",
            "9ffefdef0",
            "+ffefdef",
            "9ffefdeg",
            "0x9ffefdef",
            "9ffefdé",
        ] {
            assert_eq!(ClientName::parse(name), Err(None), "{name}");
        }
    }

    #[test]
    fn splits_serial_number_and_mac_from_path() {
        let split = |path: &str| ClientName::split_prefix(&RequestPath::parse(path.as_bytes()).expect("a path"));
        let rest = |path: &str| RequestPath::parse(path.as_bytes()).expect("a path");
        assert_eq!(split("9ffefdef/start4.elf"), Some((ClientName::Serial(0x9ffe_fdef), rest("start4.elf"))));
        assert_eq!(split("/9ffefdef//a/b"), Some((ClientName::Serial(0x9ffe_fdef), rest("a/b"))));
        assert_eq!(split("dc-a6-32-01-36-c2/start4.elf"), Some((MAC, rest("start4.elf"))));
        for path in
            ["9ffefdef", "9ffefdef/", "9FFEFDEF/a", "a/9ffefdef/b", "dc:a6:32:01:36:c2/a", "10.0.0.5/a", "\u{e9}/a"]
        {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
