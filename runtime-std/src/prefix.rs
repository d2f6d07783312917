//! Prefixes of IP addresses, which name groups of boards: `10.0.0.0_24`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A prefix of IP addresses. Each has only one spelling: `_` instead of `/`, and no bits after the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The number of bits.
    len: u8,
    /// The first address.
    first: IpAddr,
}

impl Prefix {
    /// Parses a prefix.
    ///
    /// # Errors
    ///
    /// Returns `Some` with the intended prefix if it is spelled differently, or `None` if the text is not a prefix.
    pub fn parse(text: &str) -> Result<Self, Option<Self>> {
        let prefix = Self::parse_any(text).ok_or(None)?;
        if prefix.to_string() == text { Ok(prefix) } else { Err(Some(prefix)) }
    }

    /// Parses a prefix in any spelling.
    fn parse_any(text: &str) -> Option<Self> {
        let (address, len) = text.split_once('_')?;
        let (address, len): (IpAddr, u8) = (address.parse().ok()?, len.parse().ok()?);
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(inner)) if len >= 96 => Self::new(IpAddr::V4(inner), len - 96),
            _ => Self::new(address, len),
        }
    }

    /// Returns the prefix of an address with this number of bits.
    fn new(address: IpAddr, len: u8) -> Option<Self> {
        let first = match address {
            IpAddr::V4(ip) => {
                let unused = 32_u32.checked_sub(len.into())?;
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(unused).unwrap_or(0)))
            }
            IpAddr::V6(ip) => {
                let unused = 128_u32.checked_sub(len.into())?;
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(unused).unwrap_or(0)))
            }
        };
        Some(Self { len, first })
    }

    /// Returns the number of bits.
    pub(crate) fn len(self) -> u8 {
        self.len
    }

    /// Returns whether an address has the prefix.
    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        Self::new(ip.to_canonical(), self.len).is_some_and(|prefix| prefix.first == self.first)
    }

    /// Returns an address with the prefix, the first one after that of the network.
    pub(crate) fn sample(self) -> IpAddr {
        let next = match self.first {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | 1)),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | 1)),
        };
        if self.contains(next) { next } else { self.first }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.first, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn parses_prefixes_in_their_only_spelling() {
        for (text, inside, outside, sample) in [
            ("10.0.0.0_24", "10.0.0.255", "10.0.1.0", "10.0.0.1"),
            ("10.0.0.0_8", "10.255.0.1", "11.0.0.0", "10.0.0.1"),
            ("10.0.0.128_25", "10.0.0.129", "10.0.0.127", "10.0.0.129"),
            ("10.0.0.6_32", "10.0.0.6", "10.0.0.7", "10.0.0.6"),
            ("0.0.0.0_0", "255.255.255.255", "::1", "0.0.0.1"),
            ("fd00::_64", "fd00::ffff:0:0:1", "fd00:0:0:1::1", "fd00::1"),
            ("::_0", "fe80::1", "10.0.0.1", "::1"),
            ("fe80::5_128", "fe80::5", "fe80::6", "fe80::5"),
        ] {
            let prefix = Prefix::parse(text).expect(text);
            assert_eq!(prefix.to_string(), text);
            assert!(prefix.contains(ip(inside)) && !prefix.contains(ip(outside)), "{text}");
            assert_eq!(prefix.sample(), ip(sample), "{text}");
        }
        assert!(Prefix::parse("10.0.0.0_24").expect("a prefix").contains(ip("::ffff:10.0.0.5")));
    }

    #[test]
    fn returns_intended_prefix_for_other_spellings() {
        for (text, intended) in [
            ("10.0.0.5_24", "10.0.0.0_24"),
            ("10.0.0.0_024", "10.0.0.0_24"),
            ("10.0.0.0_+24", "10.0.0.0_24"),
            ("FD00::_64", "fd00::_64"),
            ("fd00::1_64", "fd00::_64"),
            ("::ffff:10.0.0.0_120", "10.0.0.0_24"),
        ] {
            assert_eq!(Prefix::parse(text).expect_err(text).expect(text).to_string(), intended);
        }
        for text in
            ["", "default", "10.0.0.0", "10.0.0.0/24", "10.0.0.0_33", "fd00::_129", "10.0.0_24", "_24", "10.0.0.0_"]
        {
            assert_eq!(Prefix::parse(text), Err(None), "{text}");
        }
    }
}
