//! NBD URIs.

use heapless::String;

/// The address of an NBD export, after the [NBD URI specification].
///
/// [NBD URI specification]: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NbdUri {
    /// Where the server listens.
    pub server: NbdServer,
    /// The name of the export, percent-decoded; empty for the server's default export.
    pub export: String<MAX_EXPORT>,
}

/// The longest export name, in bytes.
pub const MAX_EXPORT: usize = 255;

/// Where an NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NbdServer {
    /// A host name, an IPv4 address or an IPv6 address (without brackets), and a TCP port.
    Tcp {
        /// The host.
        host: String<255>,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket; 107 bytes is the longest that Linux takes.
    Unix(String<107>),
}
