//! The names of files from keys. Everyone who may write to the prefix chooses keys.

use std::fmt;

/// The maximum length of a path below the root, and of each of its parts, in bytes.
const MAX_PATH: usize = 1024;
const MAX_PART: usize = 255;

/// The reason why a key does not become a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The name is not UTF-8, or contains control characters.
    NotText,
    /// The key ends with `/`, or contains `//`.
    EmptyPart,
    /// Relative paths, and the names that this program uses itself.
    Dot,
    /// The name, or a part of it, is too long.
    TooLong,
    /// One key is the directory of another one.
    Conflict,
    /// The path exists, and is not from etcd.
    Exists,
    /// There are too many files, or they are too large.
    Limit,
}

impl Refusal {
    /// Returns whether the same key may become a file later.
    pub(crate) fn may_end(self) -> bool {
        matches!(self, Self::Conflict | Self::Exists | Self::Limit)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "its name is not UTF-8, or contains control characters: rename it",
            Self::EmptyPart => "a part of its name is empty: remove the key, or the second `/`",
            Self::Dot => "a part of its name begins with a dot: rename it",
            Self::TooLong => "its name is longer than 1024 bytes, or a part of it than 255: shorten it",
            Self::Conflict => "one key cannot be the directory of another one: remove one of them",
            Self::Exists => "a file or link of this name is not from etcd: move it away, or remove the key",
            Self::Limit => "there would be more than 200,000 files, or more than 1 GiB: remove others",
        })
    }
}

/// Returns the path below the root of the part of a key after the prefix.
pub(crate) fn path_of(name: &[u8]) -> Result<&str, Refusal> {
    let name = str::from_utf8(name).map_err(|_| Refusal::NotText)?;
    if name.chars().any(char::is_control) {
        return Err(Refusal::NotText);
    }
    if name.len() > MAX_PATH || name.split('/').any(|part| part.len() > MAX_PART) {
        return Err(Refusal::TooLong);
    }
    if name.split('/').any(str::is_empty) {
        return Err(Refusal::EmptyPart);
    }
    if name.split('/').any(|part| part.starts_with('.')) {
        return Err(Refusal::Dot);
    }
    Ok(name)
}

/// Returns the directories above a path, from the root on.
pub(crate) fn parents(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_of_files() {
        for name in ["10.0.0.5.nbd", "default/config.txt", "10.0.0.5/a/b c", "f\u{e9}", "a..b", &"x".repeat(255)] {
            assert_eq!(path_of(name.as_bytes()), Ok(name));
        }
        assert_eq!(parents("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
    }

    #[test]
    fn refuses_names_that_leave_the_root_or_are_no_files() {
        for (name, refusal) in [
            (&b""[..], Refusal::EmptyPart),
            (b"/etc/passwd", Refusal::EmptyPart),
            (b"default/", Refusal::EmptyPart),
            (b"a//b", Refusal::EmptyPart),
            (b"..", Refusal::Dot),
            (b"../x", Refusal::Dot),
            (b"a/../../x", Refusal::Dot),
            (b"a/./b", Refusal::Dot),
            (b".rtftp-etcd/files", Refusal::Dot),
            (b"a\0b", Refusal::NotText),
            (b"a\nb", Refusal::NotText),
            (b"a\x1b[31m", Refusal::NotText),
            (b"\xff", Refusal::NotText),
            (&[b'x'; 256], Refusal::TooLong),
            ("x/".repeat(513).as_bytes(), Refusal::TooLong),
        ] {
            assert_eq!(path_of(name), Err(refusal), "{}", String::from_utf8_lossy(name));
        }
    }
}
