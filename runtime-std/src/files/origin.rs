//! The root that a file comes from.

use std::fmt;

use crate::{client_name::ClientName, disk::NbdFile};

/// The root that a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The directory of a client, `<root>/<client>/`.
    Client(ClientName),
    /// The disk that an `.nbd` file describes.
    Disk(NbdFile),
    /// The common directory, `<root>/default/`.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "{client}/"),
            Self::Disk(file) => file.fmt(f),
            Self::Default => f.write_str("default/"),
        }
    }
}
