//! Untrusted names and texts, made safe to print.
//!
//! File names come from TFTP clients, error texts from TFTP and NBD servers. Neither may forge a line of the log or send control
//! sequences to a terminal.

use std::fmt::{self, Write as _};

/// Displays a requested file name: escapes everything but printable ASCII, quotes names with blanks or escaped bytes, which would
/// otherwise be overlooked at the end of a name, and cuts off names of more than 128 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EscapedName<'a>(pub(crate) &'a [u8]);

impl EscapedName<'_> {
    const MAX_DISPLAYED_BYTES: usize = 128;
}

impl fmt::Display for EscapedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (displayed, dots) = match self.0.split_at_checked(Self::MAX_DISPLAYED_BYTES) {
            Some((displayed, [_, ..])) => (displayed, "..."),
            _ => (self.0, ""),
        };
        let quote = if displayed.iter().all(u8::is_ascii_graphic) { "" } else { "\"" };
        write!(f, "{quote}{}{quote}{dots}", displayed.escape_ascii())
    }
}

/// The length of a text from outside, in characters.
const MAX_TEXT: usize = 512;

/// Decodes UTF-8 text, escapes control characters and other unprintable ones, such as changes of the writing direction, and cuts it
/// off after 512 characters. Applying it again changes nothing.
pub fn printable(bytes: &[u8]) -> String {
    printable_within(&String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_TEXT + 4)]), MAX_TEXT)
}

/// Escapes a text as [`printable`] does, and cuts it off after `max_chars`, the dots included.
pub fn printable_within(text: &str, max_chars: usize) -> String {
    const DOTS: &str = "...";
    let mut printable = String::with_capacity(text.len().min(max_chars));
    let (mut chars, mut cut_at) = (0, 0);
    for character in text.chars() {
        let start = printable.len();
        match character {
            ' '..='~' => printable.push(character),
            other => printable.extend(other.escape_debug()),
        }
        chars += printable[start..].chars().count();
        if chars + DOTS.len() <= max_chars {
            cut_at = printable.len();
        }
        if chars > max_chars {
            printable.truncate(cut_at);
            printable.push_str(DOTS);
            break;
        }
    }
    printable
}

/// Encodes all bytes as `%41` and the like, except those that are plain.
pub(crate) fn percent_encoded(text: &[u8], is_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Decodes `%41` and the like in a URL. A `%` without two hexadecimal digits is itself: GRUB encodes nothing.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_escaped_and_cut_off() {
        assert_eq!(EscapedName(br"boot\a-1").to_string(), r"boot\\a-1");
        assert_eq!(EscapedName(b"boot/a\n\xff").to_string(), r#""boot/a\n\xff""#);
        for (name, quoted) in [(&b"a b"[..], r#""a b""#), (b"f ", r#""f ""#), (b"a \"b\"", r#""a \"b\"""#)] {
            assert_eq!(EscapedName(name).to_string(), quoted);
        }
        assert_eq!(EscapedName(&[b' '; 129]).to_string(), format!("\"{}\"...", " ".repeat(128)));
        assert_eq!(EscapedName(&[b'a'; 128]).to_string(), "a".repeat(128));
        assert_eq!(EscapedName(&[b'a'; 2000]).to_string(), "a".repeat(128) + "...");
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
        assert_eq!(printable_within("12345678", 8), "12345678");
        assert_eq!(printable_within("123456789", 8), "12345...");
        assert_eq!(printable_within("12\n\u{1b}6789", 8), r"12\n...");
        let text = printable(&b"\x1b[31m\n".repeat(100_000));
        assert_eq!((text.len(), text.lines().count()), (507, 1), "{text}");
        assert!(text.starts_with(r"\u{1b}[31m\n\u{1b}") && text.ends_with("..."), "{text}");
        assert_eq!(printable(text.as_bytes()), text, "a second time");
        assert_eq!(printable(br"\Boot\BCD"), r"\Boot\BCD");
    }
}
