//! What a client is called: its directory and the file of its disk are named so.

use std::{fmt, net::IpAddr};

use rtftp_core::RequestPath;

/// One of the names of a client, written in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ClientName {
    /// The address it asks from, as addresses are usually written: `10.0.0.5`, `fe80::1`.
    Ip(IpAddr),
    /// The address of its network card, as the kernel of this machine knows it: `dc-a6-32-01-36-c2`.
    Mac([u8; 6]),
    /// The end of a Raspberry Pi's serial number, which its boot loader puts in front of the files it asks for: `9ffefdef`.
    /// Anybody can ask for such a name.
    Serial(u32),
}

impl ClientName {
    /// Reads a name.
    ///
    /// # Errors
    ///
    /// The name that was meant, for one that is spelled in another way and would never be looked for; `None` for what is no
    /// client's name.
    pub(crate) fn parse(name: &str) -> Result<Self, Option<Self>> {
        let meant = ip(name).or_else(|| mac(name)).or_else(|| serial(name)).ok_or(None)?;
        if meant.to_string() == name { Ok(meant) } else { Err(Some(meant)) }
    }

    /// The serial number that a requested path begins with, and the rest of the path.
    pub(crate) fn serial_before(path: &RequestPath) -> Option<(Self, RequestPath)> {
        let first = path.names().next()?;
        let rest = path.as_bytes().get(first.len() + 1..)?;
        match Self::parse(str::from_utf8(first).ok()?) {
            Ok(serial @ Self::Serial(_)) => Some((serial, RequestPath::parse(rest).ok()?)),
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

fn ip(name: &str) -> Option<ClientName> {
    name.parse().ok().map(|ip: IpAddr| ClientName::Ip(ip.to_canonical()))
}

/// Reads six pairs of digits, also with the colons that everybody else writes between them.
fn mac(name: &str) -> Option<ClientName> {
    let mut mac = [0; 6];
    let mut pairs = name.split(['-', ':']);
    for byte in &mut mac {
        *byte = pairs.next().filter(|pair| is_hex(pair, 2)).and_then(|pair| u8::from_str_radix(pair, 16).ok())?;
    }
    pairs.next().is_none().then_some(ClientName::Mac(mac))
}

/// Reads the eight digits that a Pi sends, or all sixteen, as `/proc/cpuinfo` has them.
fn serial(name: &str) -> Option<ClientName> {
    if !is_hex(name, 8) && !is_hex(name, 16) {
        return None;
    }
    u32::from_str_radix(name.get(name.len() - 8..)?, 16).ok().map(ClientName::Serial)
}

fn is_hex(digits: &str, count: usize) -> bool {
    digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: ClientName = ClientName::Mac([0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2]);

    fn ip(ip: &str) -> ClientName {
        ClientName::Ip(ip.parse().expect("an address"))
    }

    #[test]
    fn every_name_is_read_as_it_is_written() {
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
    fn of_a_name_in_another_spelling_the_right_one_is_known() {
        for (name, right) in [
            ("FE80::1", "fe80::1"),
            ("fe80:0:0:0:0:0:0:1", "fe80::1"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("DC-A6-32-01-36-C2", "dc-a6-32-01-36-c2"),
            ("dc:a6:32:01:36:c2", "dc-a6-32-01-36-c2"),
            ("9FFEFDEF", "9ffefdef"),
            ("100000009ffefdef", "9ffefdef"),
            ("0c8f7e5cbd989ae1", "bd989ae1"),
        ] {
            let meant = ClientName::parse(name).expect_err(name).expect(name);
            assert_eq!(meant.to_string(), right);
        }
    }

    #[test]
    fn what_is_no_clients_name_is_none() {
        for name in [
            "",
            "default",
            "board",
            "10.0.0",
            "10.0.0.05",
            "10.0.0.256",
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
    fn a_serial_number_is_the_first_name_of_a_path() {
        let split = |path: &str| ClientName::serial_before(&RequestPath::parse(path.as_bytes()).expect("a path"));
        let rest = |path: &str| RequestPath::parse(path.as_bytes()).expect("a path");
        assert_eq!(split("9ffefdef/start4.elf"), Some((ClientName::Serial(0x9ffe_fdef), rest("start4.elf"))));
        assert_eq!(split("/9ffefdef//a/b"), Some((ClientName::Serial(0x9ffe_fdef), rest("a/b"))));
        for path in
            ["9ffefdef", "9ffefdef/", "9FFEFDEF/a", "a/9ffefdef/b", "dc-a6-32-01-36-c2/a", "10.0.0.5/a", "\u{e9}/a"]
        {
            assert_eq!(split(path), None, "{path}");
        }
    }
}
