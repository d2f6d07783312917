//! The reasons why a file cannot be opened.

use std::{error, fmt, io, path::PathBuf};

use super::{local::LocalError, origin::Origin};
use crate::{disk::DiskError, net::is_exhausted};

/// The reason why a file cannot be opened for a client.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// None of the client's roots contains the file.
    NotFound {
        /// The existing roots, in the order in which they were searched.
        searched: Vec<Origin>,
    },
    /// A root contains the path, but the file may not be served: a missing permission, a symbolic link that leads out of the root, or
    /// not a regular file.
    Forbidden {
        /// The root.
        origin: Origin,
        /// The reason.
        reason: String,
    },
    /// The directory that contains the roots cannot be read.
    RootDirectory {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The kernel does not report the client's MAC address, after which a root may be named.
    LinkAddress(io::Error),
    /// A local file cannot be opened.
    Local {
        /// The root.
        origin: Origin,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A disk cannot be read. The disk has already logged the error.
    Disk {
        /// The disk.
        origin: Origin,
        /// The error of the disk.
        error: DiskError,
    },
}

impl OpenError {
    pub(super) fn local(origin: Origin, error: LocalError) -> Self {
        match error {
            LocalError::NotFound => Self::NotFound { searched: vec![origin] },
            LocalError::Forbidden(reason) => Self::Forbidden { origin, reason: reason.into_owned() },
            LocalError::Io(error) => Self::Local { origin, error },
        }
    }

    pub(super) fn disk(origin: Origin, error: DiskError) -> Self {
        match error {
            DiskError::NotFound => Self::NotFound { searched: vec![origin] },
            DiskError::Forbidden(reason) => Self::Forbidden { origin, reason },
            error => Self::Disk { origin, error },
        }
    }

    /// Returns the error if it means that the process or the system has no descriptor left.
    pub(crate) fn exhaustion(&self) -> Option<&io::Error> {
        match self {
            Self::RootDirectory { error, .. } | Self::LinkAddress(error) | Self::Local { error, .. } => {
                Some(error).filter(|error| is_exhausted(error))
            }
            Self::Disk { error, .. } => error.exhaustion(),
            _ => None,
        }
    }

    /// Returns the root that was searched when the error occurred.
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Self::Forbidden { origin, .. } | Self::Local { origin, .. } | Self::Disk { origin, .. } => Some(*origin),
            _ => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { searched } if searched.is_empty() => {
                f.write_str("not found: this client has no root, and there is no directory default")
            }
            Self::NotFound { searched } => {
                let roots: Vec<String> = searched.iter().map(Origin::to_string).collect();
                write!(f, "not found in {}", roots.join(", "))
            }
            Self::Forbidden { reason, .. } => write!(f, "forbidden: {reason}"),
            Self::RootDirectory { path, error } => write!(f, "{}: {error}", path.display()),
            Self::LinkAddress(error) => write!(f, "cannot read the client's MAC address from the kernel: {error}"),
            Self::Local { error, .. } => error.fmt(f),
            Self::Disk { error, .. } => error.fmt(f),
        }
    }
}

impl error::Error for OpenError {}
