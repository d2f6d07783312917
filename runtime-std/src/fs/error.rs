//! The errors of reading a disk.

use std::{borrow::Cow, fmt};

use crate::memory::OutOfMemory;

/// The reason why something could not be read from a disk. Displays as text for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Reading failed: the server, the network or the medium.
    Io(String),
    /// The contents of the disk are inconsistent: the disk is damaged, or is being written.
    Corrupt(Problem),
    /// The disk uses a format or feature that is not supported natively.
    Unsupported(Problem),
    /// Reading takes more work than any usual disk needs, such as a directory of many megabytes that a path names again and again.
    TooMuchWork,
    /// The disk may not use more memory now. A later attempt may succeed.
    OutOfMemory(OutOfMemory),
}

/// A problem of an object on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The partition or device, if known.
    pub volume: Option<String>,
    /// The structure; `None` for the volume itself.
    pub object: Option<Object>,
    /// The problem.
    pub what: Cow<'static, str>,
}

/// A structure on a disk, such as `superblock` or `inode 12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The name of the structure.
    pub name: Cow<'static, str>,
    /// The number that distinguishes it from others with the same name.
    pub number: Option<u64>,
}

impl Error {
    /// Creates an [`Error::Corrupt`].
    pub fn corrupt(object: impl Into<Object>, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt(Problem { object: Some(object.into()), ..Problem::new(what) })
    }

    /// Creates an [`Error::Unsupported`].
    pub fn unsupported(object: impl Into<Object>, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(Problem { object: Some(object.into()), ..Problem::new(what) })
    }

    /// Adds the name of the partition or device.
    pub(super) fn in_volume(self, name: impl fmt::Display) -> Self {
        let add = |problem| Problem { volume: Some(name.to_string()), ..problem };
        match self {
            Self::Io(reason) => Self::Io(format!("{name}: {reason}")),
            Self::Corrupt(problem) => Self::Corrupt(add(problem)),
            Self::Unsupported(problem) => Self::Unsupported(add(problem)),
            Self::TooMuchWork => Self::TooMuchWork,
            Self::OutOfMemory(error) => Self::OutOfMemory(error),
        }
    }
}

impl Problem {
    /// Creates a problem of a volume as a whole.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { volume: None, object: None, what: what.into() }
    }
}

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory(error)
    }
}

impl From<&'static str> for Object {
    fn from(name: &'static str) -> Self {
        Self { name: name.into(), number: None }
    }
}

impl From<String> for Object {
    fn from(name: String) -> Self {
        Self { name: name.into(), number: None }
    }
}

impl<N: Into<u64>> From<(&'static str, N)> for Object {
    fn from((name, number): (&'static str, N)) -> Self {
        Self { name: name.into(), number: Some(number.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(reason) => f.write_str(reason),
            Self::Corrupt(problem) | Self::Unsupported(problem) => problem.fmt(f),
            Self::TooMuchWork => f.write_str(
                "this path takes too much work: its directories or links are too large, or refer to themselves",
            ),
            Self::OutOfMemory(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(volume) = &self.volume {
            write!(f, "{volume}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.what)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.number.map_or(Ok(()), |number| write!(f, " {number}"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_volume_object_and_problem() {
        let error = Error::corrupt(("inode", 12u32), "invalid size").in_volume("partition 2");
        assert_eq!(error.to_string(), "partition 2: inode 12: invalid size");
        assert_eq!(Error::unsupported("journal", "external").to_string(), "journal: external");
        assert_eq!(Error::Unsupported(Problem::new("XFS")).in_volume("/dev/sda").to_string(), "/dev/sda: XFS");
        assert_eq!(Error::Io("timeout".into()).in_volume("partition 1").to_string(), "partition 1: timeout");
    }
}
