//! The placeholders in a description for many boards.

use core::{fmt, net::IpAddr};

use heapless::Vec;

/// A part of `url` or `append` that each board replaces by a value of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Placeholder {
    /// `{ip}`: the address of the board, as in `10.0.0.5` or `fe80::1`.
    Ip,
    /// `{mac}`: its MAC address, as in `dc-a6-32-01-36-c2`.
    Mac,
    /// `{hostname}`: its host name.
    Hostname,
    /// `{serial}`: the serial number in the requested path, as in `9ffefdef`. Any board can send any number.
    Serial,
}

/// The placeholders of a text, each once.
pub type Placeholders = Vec<Placeholder, 4>;

/// The values of a board for the placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board<'b> {
    /// The value of `{ip}`.
    pub ip: IpAddr,
    /// The value of `{mac}`, if it is known.
    pub mac: Option<[u8; 6]>,
    /// The value of `{hostname}`, if it is known.
    pub hostname: Option<&'b str>,
    /// The value of `{serial}`, if it is known.
    pub serial: Option<u32>,
}

impl Placeholder {
    /// All placeholders.
    pub(super) const ALL: [Self; 4] = [Self::Ip, Self::Mac, Self::Hostname, Self::Serial];

    /// Returns the name between the braces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Mac => "mac",
            Self::Hostname => "hostname",
            Self::Serial => "serial",
        }
    }
}

/// Writes the placeholder with its braces.
impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.name())
    }
}

impl Board<'_> {
    /// Returns the value for a placeholder, if it is known.
    #[must_use]
    pub fn value(&self, placeholder: Placeholder) -> Option<impl fmt::Display> {
        let is_known = match placeholder {
            Placeholder::Ip => true,
            Placeholder::Mac => self.mac.is_some(),
            Placeholder::Hostname => self.hostname.is_some(),
            Placeholder::Serial => self.serial.is_some(),
        };
        is_known.then_some(Value { board: *self, placeholder })
    }
}

/// The known value of a board for a placeholder.
struct Value<'b> {
    board: Board<'b>,
    placeholder: Placeholder,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Board { ip, mac, hostname, serial } = self.board;
        match self.placeholder {
            Placeholder::Ip => ip.fmt(f),
            Placeholder::Mac => {
                let [a, b, c, d, e, g] = mac.unwrap_or_default();
                write!(f, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{g:02x}")
            }
            Placeholder::Hostname => f.write_str(hostname.unwrap_or_default()),
            Placeholder::Serial => write!(f, "{:08x}", serial.unwrap_or_default()),
        }
    }
}
