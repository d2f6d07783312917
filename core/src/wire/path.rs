//! The file name of a request: bytes from a stranger, turned once into a path that cannot leave its root.

use core::fmt;

use heapless::Vec;

/// The longest path, in bytes. A request has at most 512 octets (RFC 2347), its opcode and mode among them.
pub const MAX_PATH: usize = 504;

/// A path below some root, made of plain names: no `.`, no `..`, no empty name, no NUL, not absolute.
///
/// It is bytes, not UTF-8: file names on a disk are, and so are those that firmware sends.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestPath {
    /// The names, joined by `/`.
    bytes: Vec<u8, MAX_PATH>,
}

impl RequestPath {
    /// Reads a requested file name as a boot client means it.
    ///
    /// `\` counts as `/` (Windows boot manager), a leading `/` (GRUB) and empty names mean nothing, and `..` goes back one
    /// name, as in U-Boot's `extlinux/../vmlinuz`.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] says why the name is none of ours to open.
    pub fn parse(name: &[u8]) -> Result<Self, InvalidPath> {
        let mut bytes = Vec::new();
        for part in name.split(|byte| matches!(byte, b'/' | b'\\')) {
            match part {
                b"" | b"." => {}
                b".." => go_back(&mut bytes)?,
                part if part.contains(&0) => return Err(InvalidPath::Nul),
                part => push(&mut bytes, part)?,
            }
        }
        if bytes.is_empty() { Err(InvalidPath::Empty) } else { Ok(Self { bytes }) }
    }

    /// The path as bytes: its names joined by `/`, none in front.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The names from the top down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.bytes.split(|&byte| byte == b'/')
    }
}

/// Takes the last name off.
fn go_back(bytes: &mut Vec<u8, MAX_PATH>) -> Result<(), InvalidPath> {
    if bytes.is_empty() {
        return Err(InvalidPath::LeavesRoot);
    }
    bytes.truncate(bytes.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
    Ok(())
}

/// Puts one name at the end.
fn push(bytes: &mut Vec<u8, MAX_PATH>, name: &[u8]) -> Result<(), InvalidPath> {
    if !bytes.is_empty() {
        bytes.push(b'/').map_err(|_| InvalidPath::TooLong)?;
    }
    bytes.extend_from_slice(name).map_err(|_| InvalidPath::TooLong)
}

impl fmt::Display for RequestPath {
    /// Shows the path to a person: what is not printable ASCII is escaped, so that no log line can be forged.
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

/// Why a requested name is not a path below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum InvalidPath {
    /// It names nothing: `""`, `"/"`, `"a/.."`.
    Empty,
    /// Its `..` climb above the root.
    LeavesRoot,
    /// A name holds a NUL byte.
    Nul,
    /// It has more than [`MAX_PATH`] bytes, or more than a request has room for.
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
    fn reads(name: &[u8], expected: &[u8]) {
        assert_eq!(RequestPath::parse(name).expect("a valid path").as_bytes(), expected);
    }

    #[test]
    fn names_are_read_as_boot_clients_mean_them() {
        reads(b"kernel8.img", b"kernel8.img");
        reads(b"/grub/x86_64-efi/normal.mod", b"grub/x86_64-efi/normal.mod");
        reads(b"\\boot\\x64\\wdsnbp.com", b"boot/x64/wdsnbp.com");
        reads(b"//pxelinux.cfg///default", b"pxelinux.cfg/default");
        reads(b"extlinux/../vmlinuz", b"vmlinuz");
        reads(b"a/b/../../c", b"c");
        reads(b"./a/./b/.", b"a/b");
        reads(b"loader/\xffUSB", b"loader/\xffUSB");
        reads(b"...", b"...");
    }

    #[test]
    fn a_path_cannot_leave_its_root() {
        for name in [&b".."[..], b"../x", b"/../x", b"a/../../x", b"..\\x", b"a\\..\\..\\x", b"/.."] {
            assert_eq!(RequestPath::parse(name), Err(InvalidPath::LeavesRoot), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_path_names_a_file() {
        for name in [&b""[..], b"/", b".", b"a/..", b"\\"] {
            assert_eq!(RequestPath::parse(name), Err(InvalidPath::Empty), "{}", name.escape_ascii());
        }
        assert_eq!(RequestPath::parse(b"a\0b"), Err(InvalidPath::Nul));
    }

    #[test]
    fn a_path_has_a_greatest_length() {
        reads(&[b'a'; MAX_PATH], &[b'a'; MAX_PATH]);
        assert_eq!(RequestPath::parse(&[b'a'; MAX_PATH + 1]), Err(InvalidPath::TooLong));
        let mut with_separator = vec![b'a'; MAX_PATH - 1];
        with_separator.extend_from_slice(b"/b");
        assert_eq!(RequestPath::parse(&with_separator), Err(InvalidPath::TooLong));
    }

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        let path = RequestPath::parse(b"a\nINFO \x1b[31mb").expect("a valid path");
        assert_eq!(path.to_string(), "a\\nINFO \\x1b[31mb");
    }
}
