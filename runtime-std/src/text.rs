//! Text from the network, made safe to show.

use std::fmt;

/// A requested file name for display: bytes other than printable ASCII are escaped, so that a name cannot forge a log line, and
/// names longer than 128 bytes are truncated.
pub(crate) struct EscapedName<'a>(pub(crate) &'a [u8]);

impl EscapedName<'_> {
    /// The number of bytes that are shown.
    const SHOWN: usize = 128;

    /// Returns the part of a name that must be stored to display it.
    pub(crate) fn kept(name: &[u8]) -> &[u8] {
        name.get(..=Self::SHOWN).unwrap_or(name)
    }
}

impl fmt::Display for EscapedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(Self::SHOWN) {
            Some((shown, [_, ..])) => write!(f, "{}...", shown.escape_ascii()),
            _ => self.0.escape_ascii().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_truncates_names() {
        assert_eq!(EscapedName(b"boot/a\n\xff").to_string(), r"boot/a\n\xff");
        assert_eq!(EscapedName(&[b'a'; 128]).to_string(), "a".repeat(128));
        assert_eq!(EscapedName(&[b'a'; 2000]).to_string(), "a".repeat(128) + "...");
    }
}
