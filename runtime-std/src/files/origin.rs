//! The root that a file comes from.

use std::fmt;

use crate::{client_name::ClientName, disk};

/// The root that a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The directory of a client, `<root>/<client>/`.
    Client(ClientName),
    /// The disk described by `<root>/<client>.nbd`.
    Disk(ClientName),
    /// The common directory, `<root>/default/`.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "{client}/"),
            Self::Disk(client) => f.write_str(&disk::file_name(*client)),
            Self::Default => f.write_str("default/"),
        }
    }
}
