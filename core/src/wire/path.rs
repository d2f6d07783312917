//! The file name of a request as a path that cannot leave its root.

use core::fmt;

use heapless::Vec;

/// The longest path, in bytes. A request has at most 512 octets (RFC 2347), including its opcode and mode.
pub const MAX_PATH: usize = 504;

/// A relative path of plain names: no `.`, no `..`, no empty name, no NUL.
///
/// It is bytes, not UTF-8, like file names on a disk and the names that firmware sends.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestPath {
    /// The names, separated by `/`.
    bytes: Vec<u8, MAX_PATH>,
}

impl RequestPath {
    /// Parses a requested file name as boot clients mean it.
    ///
    /// `\` counts as `/` (Windows boot manager), a leading `/` (GRUB) and empty names are ignored, and `..` removes the last
    /// name, as in U-Boot's `extlinux/../vmlinuz`.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] if no path below a root is left.
    pub fn parse(name: &[u8]) -> Result<Self, InvalidPath> {
        let mut bytes = Vec::new();
        for part in name.split(|byte| matches!(byte, b'/' | b'\\')) {
            match part {
                b"" | b"." => {}
                b".." => pop(&mut bytes)?,
                part if part.contains(&0) => return Err(InvalidPath::Nul),
                part => push(&mut bytes, part)?,
            }
        }
        if bytes.is_empty() { Err(InvalidPath::Empty) } else { Ok(Self { bytes }) }
    }

    /// Returns the names separated by `/`, without a leading one.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the names from the root on.
    #[must_use]
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.bytes.split(|&byte| byte == b'/')
    }
}

/// Removes the last name.
fn pop(bytes: &mut Vec<u8, MAX_PATH>) -> Result<(), InvalidPath> {
    if bytes.is_empty() {
        return Err(InvalidPath::LeavesRoot);
    }
    bytes.truncate(bytes.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
    Ok(())
}

/// Appends a name.
fn push(bytes: &mut Vec<u8, MAX_PATH>, name: &[u8]) -> Result<(), InvalidPath> {
    if !bytes.is_empty() {
        bytes.push(b'/').map_err(|_| InvalidPath::TooLong)?;
    }
    bytes.extend_from_slice(name).map_err(|_| InvalidPath::TooLong)
}

impl fmt::Display for RequestPath {
    /// Writes the path with everything but printable ASCII escaped, so that it cannot forge a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.bytes.escape_ascii(), f)
    }
}

impl fmt::Debug for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestPath({self})")
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for RequestPath {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "RequestPath({=[u8]:a})", self.as_bytes());
    }
}

/// The reason why a requested name is not a path below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum InvalidPath {
    /// No name is left: `""`, `"/"`, `"a/.."`.
    Empty,
    /// A `..` leads above the root.
    LeavesRoot,
    /// A name contains a NUL byte.
    Nul,
    /// The path is longer than [`MAX_PATH`] bytes, or too long for a request.
    TooLong,
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the path names no file",
            Self::LeavesRoot => "the path leaves its root",
            Self::Nul => "the path holds a NUL byte",
            Self::TooLong => "the path is too long",
        })
    }
}

impl core::error::Error for InvalidPath {}

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec};

    use super::*;

    #[track_caller]
    fn parses(name: &[u8], expected: &[u8]) {
        assert_eq!(RequestPath::parse(name).expect("a valid path").as_bytes(), expected);
    }

    #[test]
    fn normalises_the_names_of_boot_clients() {
        parses(b"kernel8.img", b"kernel8.img");
        parses(b"/grub/x86_64-efi/normal.mod", b"grub/x86_64-efi/normal.mod");
        parses(b"\\boot\\x64\\wdsnbp.com", b"boot/x64/wdsnbp.com");
        parses(b"//pxelinux.cfg///default", b"pxelinux.cfg/default");
        parses(b"extlinux/../vmlinuz", b"vmlinuz");
        parses(b"a/b/../../c", b"c");
        parses(b"./a/./b/.", b"a/b");
        parses(b"loader/\xffUSB", b"loader/\xffUSB");
        parses(b"...", b"...");
    }

    #[test]
    fn rejects_paths_that_leave_the_root() {
        for name in [&b".."[..], b"../x", b"/../x", b"a/../../x", b"..\\x", b"a\\..\\..\\x", b"/.."] {
            assert_eq!(RequestPath::parse(name), Err(InvalidPath::LeavesRoot), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn rejects_paths_without_a_name() {
        for name in [&b""[..], b"/", b".", b"a/..", b"\\"] {
            assert_eq!(RequestPath::parse(name), Err(InvalidPath::Empty), "{}", name.escape_ascii());
        }
        assert_eq!(RequestPath::parse(b"a\0b"), Err(InvalidPath::Nul));
    }

    #[test]
    fn rejects_paths_over_the_maximum_length() {
        parses(&[b'a'; MAX_PATH], &[b'a'; MAX_PATH]);
        assert_eq!(RequestPath::parse(&[b'a'; MAX_PATH + 1]), Err(InvalidPath::TooLong));
        let mut with_separator = vec![b'a'; MAX_PATH - 1];
        with_separator.extend_from_slice(b"/b");
        assert_eq!(RequestPath::parse(&with_separator), Err(InvalidPath::TooLong));
    }

    #[test]
    fn display_escapes_control_characters() {
        let path = RequestPath::parse(b"a\nINFO \x1b[31mb").expect("a valid path");
        assert_eq!(path.to_string(), "a\\nINFO \\x1b[31mb");
    }
}
