//! Untrusted names and texts, made safe to print.
//!
//! File names come from TFTP clients, error texts from TFTP and NBD servers. Neither may forge a line of the log or send control
//! sequences to a terminal.

use std::fmt;

/// Displays a requested file name: escapes everything but printable ASCII, and cuts off names of more than 128 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EscapedName<'a>(pub(crate) &'a [u8]);

impl EscapedName<'_> {
    const MAX_DISPLAYED_BYTES: usize = 128;

    /// Returns the part of a name that its display depends on.
    pub(crate) fn displayed_part(name: &[u8]) -> &[u8] {
        // One byte more than is displayed shows that the name goes on.
        name.get(..=Self::MAX_DISPLAYED_BYTES).unwrap_or(name)
    }
}

impl fmt::Display for EscapedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(Self::MAX_DISPLAYED_BYTES) {
            Some((displayed, [_, ..])) => write!(f, "{}...", displayed.escape_ascii()),
            _ => self.0.escape_ascii().fmt(f),
        }
    }
}

/// Decodes UTF-8 text and escapes control characters and other unprintable ones, such as changes of the writing direction.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\'' | '"' => text.push(character),
            other => text.extend(other.escape_debug()),
        }
    }
    text
}

/// Returns the first `max_chars` characters of a text, with a space for each control character.
pub(crate) fn single_line(text: &str, max_chars: usize) -> Box<str> {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max_chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_escaped_and_cut_off() {
        assert_eq!(EscapedName(b"boot/a\n\xff").to_string(), r"boot/a\n\xff");
        assert_eq!(EscapedName(&[b'a'; 128]).to_string(), "a".repeat(128));
        assert_eq!(EscapedName(&[b'a'; 2000]).to_string(), "a".repeat(128) + "...");
        let part = EscapedName::displayed_part(&[b'a'; 2000]);
        assert_eq!((part.len(), EscapedName(part).to_string()), (129, "a".repeat(128) + "..."));
    }

    #[test]
    fn control_sequences_are_escaped() {
        assert_eq!(printable(b"can't open \"x\""), "can't open \"x\"");
        assert_eq!(printable(b"\x1b[2J\r\n\x07"), r"\u{1b}[2J\r\n\u{7}");
        assert_eq!(printable("caf\u{e9} \u{202e}".as_bytes()), "caf\u{e9} \\u{202e}");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn long_texts_become_one_short_line() {
        assert_eq!(&*single_line("a\r\nb\u{1b}[2J", 6), "a  b [");
    }
}
