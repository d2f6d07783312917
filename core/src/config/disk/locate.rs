//! Finds the position of a problem in a file.
//!
//! The JSON deserializer does not publish its position, but it reads from left to right and never looks back. So the shortest
//! prefix of the file with the same result ends at the last byte that was read. A bisection finds it with a few parser runs, and
//! only for files with a problem.

use core::fmt::{self, Write};

use serde_json_core::de;

use super::{
    error::{ConfigError, Excerpt, FieldPath, Problem},
    json::{Progress, parse},
    model::{MAX_APPEND, MAX_CONFIG, MAX_DISK_PATH, MAX_URL, MAX_WORD},
    placeholder::Board,
};

/// The longest part of an invalid value in a message, in bytes: it fits [`Excerpt`] with a last escape (`\xff`) and dots.
const MAX_EXCERPT: usize = 40;

/// Checks the file as a whole, before it is parsed as JSON.
pub(super) fn check_file(json: &[u8]) -> Result<(), ConfigError> {
    let reject = |at, problem| Err(error(json, at, FieldPath::default(), problem));
    if json.len() > MAX_CONFIG {
        return reject(MAX_CONFIG, Problem::TooLarge);
    }
    if json.trim_ascii().is_empty() {
        return reject(json.len(), Problem::Empty);
    }
    // UTF-8 and both byte orders of UTF-16, as Windows editors save files.
    if json.starts_with(b"\xef\xbb\xbf") || json.starts_with(b"\xff\xfe") || json.starts_with(b"\xfe\xff") {
        return reject(0, Problem::ByteOrderMark);
    }
    Ok(())
}

/// Returns the problem for an error of the JSON deserializer.
pub(super) fn explain(
    json: &[u8],
    board: Option<&Board<'_>>,
    json_error: de::Error,
    progress: &Progress,
) -> ConfigError {
    let mut field = progress.field.get();
    let tokens = progress.tokens.get();
    let last_byte =
        || shortest_prefix(json, |prefix| outcome(prefix, board) == (Some(json_error), tokens)).saturating_sub(1);
    let token = || last_token(json, board, tokens);
    let (at, problem) = match json_error {
        de::Error::CustomError => (token(), progress.problem.get().unwrap_or(Problem::Expected("JSON"))),
        de::Error::InvalidType => (last_byte(), expected_in(field)),
        de::Error::InvalidNumber => (token(), expected_in(field)),
        de::Error::InvalidUnicodeCodePoint => (token(), Problem::Expected("a string in UTF-8")),
        de::Error::InvalidEscapeSequence => {
            (token(), Problem::Expected("a string with valid escapes (surrogates such as \\ud83d are not supported)"))
        }
        de::Error::EscapedStringIsTooLong => (token(), Problem::TooLong(longest_in(field))),
        de::Error::EofWhileParsingString => (token(), Problem::Expected("a `\"` at the end of the string")),
        de::Error::EofWhileParsingList
        | de::Error::EofWhileParsingObject
        | de::Error::EofWhileParsingNumber
        | de::Error::EofWhileParsingValue => (json.len(), Problem::Expected("the closing `}`")),
        de::Error::KeyMustBeAString => (last_byte(), Problem::Expected("a field name in double quotes")),
        de::Error::ExpectedColon => (last_byte(), Problem::Expected("`:`")),
        de::Error::ExpectedListCommaOrEnd => (last_byte(), Problem::Expected("`,` or `]`")),
        de::Error::ExpectedObjectCommaOrEnd => {
            let at = last_byte();
            if splits_number(json, at) {
                // The visitor of a number, of which there is one in a mount and one in `boot`, got only the first part of it.
                field.name = Some(if field.name == Some("boot") { "boot.timeout" } else { "partition" });
                (token(), expected_in(field))
            } else {
                (at, Problem::Expected("`,` or `}`"))
            }
        }
        de::Error::TrailingComma => (last_byte(), Problem::Expected("another entry after the `,`")),
        de::Error::TrailingCharacters => (last_byte(), Problem::Expected("nothing after the closing `}`")),
        _ => (last_byte(), Problem::Expected("JSON")),
    };
    let rest = rest(json, at);
    let is_comment = rest.starts_with(b"//") || rest.starts_with(b"/*") || rest.starts_with(b"#");
    error(json, at, field, if is_comment { Problem::Comment } else { problem })
}

/// Returns the offset of the token with this number.
fn last_token(json: &[u8], board: Option<&Board<'_>>, tokens: usize) -> usize {
    let read = shortest_prefix(json, |prefix| outcome(prefix, board).1 >= tokens);
    // A visitor is called for a key or an element after its first character, for a value after the `:`.
    let start = read.saturating_sub(1);
    let before_colon = rest(json, start).trim_ascii_start();
    let token = before_colon.strip_prefix(b":").unwrap_or(before_colon).trim_ascii_start();
    json.len().saturating_sub(token.len())
}

/// Parses a prefix of the file. Returns the error and the number of tokens that were reached.
fn outcome(prefix: &[u8], board: Option<&Board<'_>>) -> (Option<de::Error>, usize) {
    let progress = Progress::default();
    (parse(prefix, board, &progress).err(), progress.tokens.get())
}

/// Returns the length of the shortest prefix for which `holds` is true; it is true for all longer ones too.
fn shortest_prefix(json: &[u8], holds: impl Fn(&[u8]) -> bool) -> usize {
    let (mut low, mut high) = (0, json.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(json.get(..middle).unwrap_or_default()) { high = middle } else { low = middle.saturating_add(1) }
    }
    low
}

/// Returns whether the position is inside a number: 1.5, 1e3, 01.
fn splits_number(json: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| json.get(before));
    before.is_some_and(u8::is_ascii_digit) && rest(json, at).first().is_some_and(|byte| b".eE0123456789".contains(byte))
}

/// Returns the problem of a field with a value of the wrong type.
fn expected_in(field: FieldPath) -> Problem {
    match field {
        FieldPath { name: Some("partition"), .. } => Problem::Partition,
        FieldPath { name: Some("trust_serial"), .. } => Problem::Expected("true or false"),
        FieldPath { name: Some("boot.timeout"), .. } => Problem::Timeout,
        FieldPath { name: Some("boot.remove"), .. } => Problem::Expected("a list of words"),
        FieldPath { name: Some("boot"), .. } => Problem::Expected("an object with append, remove, default or timeout"),
        FieldPath { name: Some("mounts"), .. } => Problem::Expected("a list of mounts"),
        FieldPath { name: Some("tls"), .. } => Problem::Expected("an object such as {\"ca\": \"ca.pem\"}"),
        FieldPath { name: Some(_), .. } => Problem::Expected("a string"),
        FieldPath { mount: Some(_), name: None } => {
            Problem::Expected("a mount such as {\"partition\": 1, \"mountpoint\": \"/\"}")
        }
        FieldPath { mount: None, name: None } => {
            Problem::Expected("a description such as {\"url\": ..., \"mounts\": [...]}")
        }
    }
}

/// Returns the longest string of a field, in bytes; for keys, the room to unescape them.
fn longest_in(field: FieldPath) -> usize {
    match field.name {
        Some("url" | "boot") | None => MAX_URL,
        Some("boot.append") => MAX_APPEND,
        Some("boot.remove" | "boot.default") => MAX_WORD,
        Some(_) => MAX_DISK_PATH,
    }
}

/// Returns the error for a problem at an offset of the file.
fn error(json: &[u8], at: usize, field: FieldPath, problem: Problem) -> ConfigError {
    let mut lines = json.get(..at).unwrap_or(json).rsplit(|&byte| byte == b'\n');
    // In UTF-8, every byte of a character except the first is 10xxxxxx.
    let column = lines.next().map_or(0, |line| line.iter().filter(|&&byte| byte & 0xc0 != 0x80).count());
    let from_one = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    ConfigError {
        line: from_one(lines.count()),
        column: from_one(column),
        field,
        problem,
        found: excerpt(rest(json, at)),
    }
}

fn rest(json: &[u8], at: usize) -> &[u8] {
    json.get(at..).unwrap_or_default()
}

/// Returns a description of the value or character at the start of `rest`.
fn excerpt(rest: &[u8]) -> Excerpt {
    let mut excerpt = Excerpt::new();
    let written = match rest.first() {
        None => excerpt.write_str("the end of the file"),
        Some(b'{') => excerpt.write_str("an object"),
        Some(b'[') if rest.get(1..).unwrap_or_default().trim_ascii_start().starts_with(b"]") => {
            excerpt.write_str("an empty list")
        }
        Some(b'[') => excerpt.write_str("a list"),
        Some(b'"') => write_escaped(&mut excerpt, string(rest)),
        Some(&byte) if is_delimiter(byte) => write!(excerpt, "`{}`", byte.escape_ascii()),
        Some(_) => write_escaped(&mut excerpt, rest.split(|&byte| is_delimiter(byte)).next().unwrap_or_default()),
    };
    debug_assert!(written.is_ok(), "an excerpt fits");
    excerpt
}

/// Returns whether a byte ends a number or a word.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"{}[],:\"".contains(&byte)
}

/// Returns the string at the start of `rest`, with its quotes and escapes.
fn string(rest: &[u8]) -> &[u8] {
    let mut is_escaped = false;
    let is_end = |&byte: &u8| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    };
    let end = rest.iter().skip(1).position(is_end);
    end.and_then(|end| rest.get(..end.saturating_add(2))).unwrap_or(rest)
}

/// Writes at most [`MAX_EXCERPT`] bytes of a text, escaped.
fn write_escaped(excerpt: &mut Excerpt, text: &[u8]) -> fmt::Result {
    for &byte in text {
        if excerpt.len() > MAX_EXCERPT {
            return excerpt.write_str("...");
        }
        if byte == b' ' || byte.is_ascii_graphic() {
            excerpt.write_char(char::from(byte))?;
        } else {
            write!(excerpt, "{}", byte.escape_ascii())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec::Vec};

    use super::{super::DiskConfig, *};

    const GOOD: &str = r#"{"url": "nbd://h/disk", "mounts": [{"partition": 2, "mountpoint": "/"},
{"device": "/dev/sdb", "mountpoint": "/boot"}], "tftp_root": "/boot"}"#;

    #[test]
    fn position_is_in_lines_and_characters() {
        let json = "{\r\n\t\"tftp_root\": \"/gr\u{fc}n\", \"url\": 1}";
        let error = DiskConfig::parse(json.as_bytes()).expect_err("a number for a URL");
        assert_eq!((error.line, error.column), (2, 31));
        assert_eq!(error.field, FieldPath { mount: None, name: Some("url") });
    }

    #[test]
    fn rejects_every_prefix_of_a_file() {
        for end in 0..GOOD.len() {
            assert!(DiskConfig::parse(&GOOD.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn no_byte_causes_a_panic() {
        let mut json = Vec::from(GOOD);
        for index in 0..json.len() {
            let byte = json[index];
            for other in 0..=u8::MAX {
                json[index] = other;
                if let Err(error) = DiskConfig::parse(&json) {
                    let message = error.to_string();
                    assert!(message.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{message}");
                }
            }
            json[index] = byte;
        }
    }
}
