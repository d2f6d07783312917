//! The problems that a check can find.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::text::printable_within;

/// The number of characters of a problem's line.
const MAX_LINE: usize = 1024;

/// A problem with a name in the root directory. `Display` writes one line without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The name in the root directory; it ends with `/` for a directory.
    pub name: String,
    /// The problem.
    #[serde(rename = "mistake", serialize_with = "as_text")]
    pub kind: ProblemKind,
}

/// The kind of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The name is spelled differently from the client's name, so the server never looks for it.
    Misspelled {
        /// The name that the server looks for.
        expected: String,
    },
    /// The name of an `.nbd` file is not the name of a client.
    UnknownClientFile,
    /// The name of a directory is neither the name of a client nor `default`.
    UnknownDirectory,
    /// A directory has the name of an `.nbd` file.
    DirectoryForDescription,
    /// A file has the name of a directory.
    FileForDirectory,
    /// There is no directory `default`.
    NoDefault,
    /// The type of a name cannot be determined, with the reason.
    Unreadable(String),
    /// The description of a disk cannot be read or is not valid, with the reason.
    InvalidDescription(String),
    /// The NBD server cannot be reached.
    Unreachable {
        /// The NBD URI.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The NBD server accepts one connection only.
    SingleConnection {
        /// The NBD URI.
        url: String,
    },
    /// The certificate of the NBD server is not checked.
    AnyServer {
        /// The NBD URI.
        url: String,
    },
    /// The partition table cannot be read, with the reason.
    UnreadablePartitions(String),
    /// The file systems cannot be opened, with the reason.
    UnreadableDisk(String),
    /// A file or directory cannot be read by clients.
    UnreadableFile {
        /// The path below the served directory; empty for that directory itself.
        path: String,
        /// The reason.
        reason: String,
    },
    /// The default that the description names is not among the boot entries.
    MissingBootEntry(String),
    /// The number of further files that cannot be read.
    MoreUnreadableFiles(u64),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable_within(&format!("{}: {}", self.name, self.kind), MAX_LINE))
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misspelled { expected } => write!(f, "ignored: rename to {expected}"),
            Self::UnknownClientFile => f.write_str("ignored: expected a client name before .nbd, as in 10.0.0.5.nbd"),
            Self::UnknownDirectory => f.write_str("ignored: expected a client name, such as 10.0.0.5, or default"),
            Self::DirectoryForDescription => f.write_str("is a directory: expected a file that describes a disk"),
            Self::FileForDirectory => f.write_str("is a file: expected a directory"),
            Self::NoDefault => f.write_str("not found: create it for the files of all clients"),
            Self::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Self::InvalidDescription(reason) | Self::UnreadableDisk(reason) => f.write_str(reason),
            Self::Unreachable { url, reason } => write!(f, "{url}: {reason}"),
            Self::SingleConnection { url } => write!(
                f,
                "{url}: serves one connection at a time, so that rtftp and the board exclude each other: allow several \
                 (qemu-nbd: --shared=0)"
            ),
            Self::AnyServer { url } => write!(
                f,
                "{url}: the server's certificate is not checked (tls-verify-peer is false), so anyone on the way can replace the \
                 disk: write \"ca\" or \"fingerprint\" in \"tls\""
            ),
            Self::UnreadablePartitions(reason) => write!(f, "cannot read the partition table: {reason}"),
            Self::UnreadableFile { path, reason } if path.is_empty() => f.write_str(reason),
            Self::UnreadableFile { path, reason } => write!(f, "{path}: {reason}"),
            Self::MissingBootEntry(id) => {
                write!(f, "boot.default: no boot entry {id}; the first entry is the default instead")
            }
            Self::MoreUnreadableFiles(count) => write!(f, "{count} more files cannot be read"),
        }
    }
}

/// Serialises a value as the text of its `Display`.
fn as_text<S: Serializer>(value: &ProblemKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
