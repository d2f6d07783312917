//! Errors of the helper program and of the files it reads.

use std::{error, fmt, io, path::PathBuf, sync::Arc, time::Duration};

use super::wire::{Step, VERSION};

/// The reason why a disk or a file cannot be read through libguestfs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HelperError {
    /// The file does not exist.
    NotFound,
    /// The path exists, but is not a regular file.
    Forbidden(String),
    /// This request failed; others may succeed.
    Failed(String),
    /// The helper program is not installed.
    NotInstalled,
    /// The helper program cannot be run.
    Spawn {
        /// The path of the program.
        path: PathBuf,
        /// The error of the operating system.
        error: Arc<io::Error>,
    },
    /// The helper did not reply in time.
    Timeout,
    /// The appliance wrote nothing to its console under KVM for this long.
    Silent(Duration),
    /// The helper reported that the disk cannot be read any more.
    Lost(String),
    /// The helper uses another version of the protocol.
    Version(u32),
    /// The helper sent an invalid message, or one that is invalid at this point.
    Protocol,
    /// The helper exited, or closed its pipes.
    Exited,
    /// The helper was ended because an earlier request was cancelled.
    Cancelled,
    /// The start of the helper failed after this step, or before the first one.
    Start {
        /// The last step that succeeded.
        reached: Option<Step>,
        /// The cause.
        error: Box<Self>,
    },
    /// An error with the line of the helper's stderr that explains it.
    Explained {
        /// The error.
        error: Box<Self>,
        /// The line.
        line: String,
    },
}

impl HelperError {
    /// Returns whether the helper has ended.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::NotFound | Self::Forbidden(_) | Self::Failed(_))
    }

    /// Adds a line of the helper's stderr that explains the error.
    pub(super) fn explained(self, line: Option<String>) -> Self {
        match line {
            Some(line) => Self::Explained { error: self.into(), line },
            None => self,
        }
    }
}

impl From<io::Error> for HelperError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { Self::Protocol } else { Self::Exited }
    }
}

impl error::Error for HelperError {}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Forbidden(reason) | Self::Failed(reason) | Self::Lost(reason) => f.write_str(reason),
            Self::NotInstalled => f.write_str(
                "this disk requires libguestfs, and the helper program rtftp-guestfs is neither beside rtftp nor in PATH: \
                 install the package rtftp-guestfs, or install libguestfs-dev and run \
                 `cargo build --release -p rtftp-guestfs`",
            ),
            Self::Spawn { path, error } => write!(f, "cannot run {}: {error}", path.display()),
            Self::Timeout => f.write_str("no reply in time"),
            Self::Silent(limit) => write!(f, "no console output for {} s", limit.as_secs_f32()),
            Self::Version(version) => write!(
                f,
                "rtftp-guestfs has protocol version {version}, rtftp has {VERSION}: install the same release of both"
            ),
            Self::Protocol => f.write_str("rtftp-guestfs sent an invalid message"),
            Self::Exited => f.write_str("rtftp-guestfs exited unexpectedly"),
            Self::Cancelled => f.write_str("the appliance was stopped because an earlier request was cancelled"),
            // The reason names the operation.
            Self::Start { error, .. } if matches!(**error, Self::Lost(_)) => error.fmt(f),
            Self::Start { reached, error } => {
                let operation = match reached {
                    None => "connecting to the NBD server",
                    Some(Step::Connected) => "starting the appliance",
                    Some(Step::Launched) => "mounting",
                };
                write!(f, "{operation}: {error}")
            }
            Self::Explained { error, line } => {
                let text = error.to_string();
                f.write_str(&text)?;
                if text.contains(line) { Ok(()) } else { write!(f, " ({line})") }
            }
        }
    }
}
