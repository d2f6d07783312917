//! Why a file cannot be served, told apart as a client and an administrator need it.

use std::fmt;

/// Why a file could not be opened for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// It is not in this root. The only case that goes on to the next root.
    NotFound,
    /// It is there, but not for clients: no permission, a link that leads out of the root, not a regular file.
    Forbidden(String),
    /// Whether it is there cannot be told: the disk is down, its description is wrong, its file system is damaged.
    Unavailable(Unavailable),
}

/// A disk, or a directory, that cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// What the client is told in its ERROR packet: short, and no word of the server's own paths and addresses.
    pub to_client: &'static str,
    /// What the administrator is told in the log: what was tried, what came back, what to do.
    pub reason: String,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Forbidden(reason) => write!(f, "forbidden: {reason}"),
            Self::Unavailable(unavailable) => unavailable.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unavailable {}

impl From<Unavailable> for OpenError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}
