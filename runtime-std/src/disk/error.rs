//! The errors of disks and their files.

use std::{error, fmt, io, time::Duration};

use rtftp_core::{ReadFailed, config::disk::Placeholder};

use crate::{fs, guestfs::HelperError, memory::OutOfMemory, nbd::NbdError, net::is_exhausted};

/// The time for which a disk is retried after a transient error before it counts as damaged.
pub(crate) const RETRY_LIMIT: Duration = Duration::from_secs(3);
/// The delay before a retry.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The reason why a disk or a file on it cannot be read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DiskError {
    /// The file does not exist.
    NotFound,
    /// The path exists, but is not a regular file.
    Forbidden(String),
    /// The description of the disk is invalid.
    InvalidDescription(String),
    /// The file system that contains the description does not answer.
    UnreadableDescription(String),
    /// The board has no value for a placeholder in the description of its group.
    NoValue(Placeholder),
    /// The connection to the NBD server failed.
    Connect {
        /// The URI of the export.
        url: String,
        /// The error of the client.
        error: NbdError,
    },
    /// The disk must be read through libguestfs, for this reason, which does not support this kind of connection.
    NotInHelper(String, &'static str),
    /// The disk cannot be read natively.
    FileSystem(fs::Error),
    /// The libguestfs appliance did not start.
    Start(HelperError),
    /// The libguestfs appliance failed.
    Appliance(HelperError),
    /// The disk was not read in time.
    Timeout(Duration),
    /// The disk was not connected, mounted and searched for the file in time.
    OpenTimeout(Duration),
    /// The file was changed or removed during a transfer.
    Changed,
    /// The disk was disconnected, because its description changed or the server is shutting down.
    Disconnected,
}

impl DiskError {
    /// Returns whether another attempt a moment later may succeed: the disk was being written, or the connection was lost.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::FileSystem(error) => !matches!(error, fs::Error::Unsupported(_) | fs::Error::TooMuchWork),
            Self::Appliance(error) => error.is_fatal(),
            _ => false,
        }
    }

    /// Returns the error if it means that the process or the system has no descriptor left, which is no fault of the disk.
    pub(crate) fn exhaustion(&self) -> Option<&io::Error> {
        match self {
            Self::Connect { error: NbdError::Io(error), .. } => Some(&**error).filter(|error| is_exhausted(error)),
            _ => None,
        }
    }

    /// Returns whether reading took more work than a disk may cost, as it will again.
    pub(super) fn is_too_much_work(&self) -> bool {
        matches!(self, Self::FileSystem(fs::Error::TooMuchWork))
    }

    /// Returns whether the disk may not use more memory at the moment.
    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::FileSystem(fs::Error::OutOfMemory(_)))
    }

    /// Returns a short text without paths and addresses, which TFTP clients receive in an ERROR packet.
    pub fn to_client(&self) -> &'static str {
        match self {
            Self::NotFound => "File not found",
            Self::Forbidden(_) => "not a regular file",
            Self::InvalidDescription(_) => "the description of this client's disk is not valid",
            Self::UnreadableDescription(_) => "the server's file system does not answer",
            Self::NoValue(Placeholder::Hostname) => "the host name of this client is not known",
            Self::NoValue(Placeholder::Serial) => "the path of this client has no serial number",
            Self::NoValue(_) => "the MAC address of this client is not known",
            Self::Connect { .. } => "the disk of this client cannot be reached",
            Self::FileSystem(fs::Error::TooMuchWork) => "this path takes too much work",
            Self::FileSystem(fs::Error::OutOfMemory(_)) => "the server is short of memory, try again",
            Self::FileSystem(_) => "the disk of this client cannot be read",
            Self::Start(_) | Self::Appliance(_) | Self::NotInHelper(..) => "disk not available",
            Self::Timeout(_) | Self::OpenTimeout(_) => "the disk of this client is too slow",
            Self::Changed => ReadFailed::CHANGED.0,
            Self::Disconnected => "the disk was disconnected",
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Forbidden(reason) | Self::InvalidDescription(reason) | Self::UnreadableDescription(reason) => {
                f.write_str(reason)
            }
            Self::NoValue(Placeholder::Hostname) => f.write_str(
                "the url has {hostname}, but no file of --leases or --ethers has a host name for this board",
            ),
            Self::NoValue(Placeholder::Serial) => {
                f.write_str("the url has {serial}, but the requested path does not start with a serial number")
            }
            Self::NoValue(placeholder) => {
                write!(
                    f,
                    "the url has {placeholder}, but the board is not in a network of this server, so its MAC address is not known"
                )
            }
            Self::Connect { url, error } => write!(f, "{url}: {error}"),
            Self::NotInHelper(reason, connection) => write!(
                f,
                "{reason}; libguestfs cannot connect {connection}: forward the disk to a Unix socket with nbdkit, and use \
                 nbd+unix://"
            ),
            Self::FileSystem(error) => error.fmt(f),
            Self::Start(error) | Self::Appliance(error) => error.fmt(f),
            Self::Timeout(limit) => write!(f, "no reply within {} s", limit.as_secs_f64()),
            Self::OpenTimeout(limit) => write!(f, "not opened within {} s", limit.as_secs_f64()),
            Self::Changed => {
                write!(f, "{}, which was ended to avoid mixed contents", ReadFailed::CHANGED)
            }
            Self::Disconnected => f.write_str("the disk was disconnected"),
        }
    }
}

impl error::Error for DiskError {}

impl From<fs::Error> for DiskError {
    fn from(error: fs::Error) -> Self {
        Self::FileSystem(error)
    }
}

impl From<OutOfMemory> for DiskError {
    fn from(error: OutOfMemory) -> Self {
        Self::FileSystem(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_descriptors_is_no_error_of_the_disk() {
        let connect = |code: i32| DiskError::Connect {
            url: "nbd://10.0.0.1/disk".into(),
            error: NbdError::Io(std::sync::Arc::new(io::Error::from_raw_os_error(code))),
        };
        // EMFILE, ENFILE, ECONNREFUSED.
        assert_eq!([24, 23, 111].map(|code| connect(code).exhaustion().is_some()), [true, true, false]);
    }
}
