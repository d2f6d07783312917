//! Problems of a description and their positions.

#[cfg(test)]
mod tests;

use core::fmt;

use heapless::String;

use super::{
    model::{MAX_CONFIG, MAX_MOUNTS, MAX_PARTITION, MAX_REMOVED, MAX_TIMEOUT},
    placeholder::Placeholder,
};
use crate::config::uri::InvalidUri;

/// The first problem in a description. Its `Display` is one line:
///
/// ```text
/// line 3, column 19: mounts[1].partition: expected a partition number from 0 to 255, found 256
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ConfigError {
    /// The line of the problem, from 1 on. `\n` ends a line.
    pub line: u32,
    /// The column of the problem in characters, from 1 on: the start of the value or key, or the unexpected character.
    pub column: u32,
    /// The field with the problem.
    pub field: FieldPath,
    /// The problem.
    pub problem: Problem,
    /// The text at that position.
    pub found: Excerpt,
}

/// An excerpt of a description, with everything but printable ASCII escaped, so that it cannot forge a log line.
pub type Excerpt = String<48>;

/// A field of a description, such as `url`, `tls.ca` or `mounts[1].partition`. Without both parts it is the description itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FieldPath {
    /// The index of the mount with the field; `None` for the fields of the disk.
    pub mount: Option<usize>,
    /// The name of the field, such as `boot.append`; `None` for the mount, or the disk, as a whole.
    pub name: Option<&'static str>,
}

/// A problem of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Problem {
    /// The file is larger than [`MAX_CONFIG`].
    TooLarge,
    /// The file is empty.
    Empty,
    /// The file begins with a byte order mark, which JSON forbids (RFC 8259 section 8.1).
    ByteOrderMark,
    /// There is a comment, which JSON does not have.
    Comment,
    /// Something else was expected.
    Expected(&'static str),
    /// A string is longer than this number of bytes.
    TooLong(usize),
    /// The field is none of these.
    UnknownField(&'static str),
    /// This field is missing.
    MissingField(&'static str),
    /// The field is there twice.
    DuplicateField,
    /// A mount has both a partition and a device.
    PartitionAndDevice,
    /// A mount has both a subvolume and a device that is one.
    SubvolumeTwice,
    /// A partition is not a number from 0 to [`MAX_PARTITION`].
    Partition,
    /// A timeout is not a number of seconds from 0 to [`MAX_TIMEOUT`].
    Timeout,
    /// There are more than [`MAX_REMOVED`] words.
    TooManyWords,
    /// There are more than [`MAX_MOUNTS`] mounts.
    TooManyMounts,
    /// The first mountpoint is not `/`, so its parent directory is not mounted.
    ParentNotMounted,
    /// The mount with this index has the same mountpoint.
    MountedTwice(usize),
    /// The URL is not the address of an NBD export.
    Url(InvalidUri),
    /// The text has a placeholder in the file of a single board.
    PlaceholderForOne,
    /// The text has a brace that begins no placeholder.
    UnknownPlaceholder,
    /// The URL has a placeholder before its path.
    PlaceholderInHost,
    /// The text has `{serial}`, without `"trust_serial": true`.
    UntrustedSerial,
    /// The board has no value for a placeholder.
    NoValue(Placeholder),
    /// There is `tls`, but the URL is one without TLS.
    TlsForPlainUrl,
    /// `tls` has both `ca` and `fingerprint`.
    CaAndFingerprint,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, field, problem, found } = self;
        write!(f, "line {line}, column {column}: ")?;
        if *field != FieldPath::default() {
            write!(f, "{field}: ")?;
        }
        match problem {
            Problem::TooLarge => write!(f, "expected at most {MAX_CONFIG} bytes, found a larger file"),
            Problem::Empty => {
                f.write_str("expected a description such as {\"url\": ..., \"mounts\": [...]}, found an empty file")
            }
            Problem::ByteOrderMark => {
                f.write_str("expected `{`, found a byte order mark (save the file as UTF-8 without one)")
            }
            Problem::Comment => f.write_str("expected JSON, which has no comments, found a comment"),
            Problem::Expected(what) => write!(f, "expected {what}, found {found}"),
            Problem::TooLong(limit) => write!(f, "expected at most {limit} bytes, found {found}"),
            Problem::UnknownField(known) => write!(f, "expected one of the fields {known}, found {found}"),
            Problem::MissingField(name) => write!(f, "expected the field {name}, found none"),
            Problem::DuplicateField => f.write_str("expected the field once, found it a second time"),
            Problem::PartitionAndDevice => f.write_str("expected either partition or device, found both"),
            Problem::SubvolumeTwice => f.write_str("expected either subvol or a device btrfsvol:..., found both"),
            Problem::Partition => {
                write!(f, "expected a partition number from 0 to {MAX_PARTITION}, found {found}")
            }
            Problem::Timeout => write!(f, "expected a number of seconds from 0 to {MAX_TIMEOUT}, found {found}"),
            Problem::TooManyWords => write!(f, "expected at most {MAX_REMOVED} words, found more"),
            Problem::TooManyMounts => write!(f, "expected at most {MAX_MOUNTS} mounts, found more"),
            Problem::ParentNotMounted => {
                write!(f, "expected \"/\" as the first mountpoint, found {found}, whose parent is not mounted")
            }
            Problem::MountedTwice(index) => {
                write!(f, "expected a mountpoint of its own, found {found}, which mounts[{index}] has")
            }
            Problem::PlaceholderForOne => {
                write!(f, "expected no placeholder in the file of a single board, found {found}")
            }
            Problem::UnknownPlaceholder => {
                write!(f, "expected only the placeholders {{ip}}, {{mac}}, {{hostname}} and {{serial}}, found {found}")
            }
            Problem::PlaceholderInHost => {
                write!(f, "expected placeholders only in the name of the export or the path of the socket, found {found}")
            }
            Problem::UntrustedSerial => f.write_str(
                "expected \"trust_serial\": true in a description with {serial}, since any board can send any serial number",
            ),
            Problem::NoValue(placeholder) => write!(f, "expected a value for {placeholder}, found none"),
            Problem::TlsForPlainUrl => f.write_str("expected nbds:// or nbds+unix:// in a description with tls"),
            Problem::CaAndFingerprint => f.write_str("expected either ca or fingerprint, found both"),
            Problem::Url(error) => write!(f, "{error}, found {found}"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mount, self.name) {
            (Some(index), Some(name)) => write!(f, "mounts[{index}].{name}"),
            (Some(index), None) => write!(f, "mounts[{index}]"),
            (None, name) => f.write_str(name.unwrap_or_default()),
        }
    }
}
