//! Where in a file a mistake is.
//!
//! The JSON deserializer keeps its position to itself, but it reads from left to right and never looks back: the shortest part
//! of the file that leads to the same point ends where the deserializer looked last. Bisecting finds it in a few readings, and
//! only files with a mistake pay for it.

use core::fmt::{self, Write};

use serde_json_core::de;

use super::{
    ConfigError, FieldPath, Found, MAX_CONFIG, MAX_DISK_PATH, MAX_URL, Problem,
    json::{Trace, read},
};

/// How much of a wrong value is shown, in bytes: with a last escape (`\xff`) and the dots it fits [`Found`].
const MAX_SHOWN: usize = 40;

/// Finds the mistakes of a file as a whole, before it is read as JSON.
pub(super) fn check_file(json: &[u8]) -> Result<(), ConfigError> {
    let mistake = |at, mistake| Err(error(json, at, FieldPath::default(), mistake));
    if json.len() > MAX_CONFIG {
        return mistake(MAX_CONFIG, Problem::TooLarge);
    }
    if json.trim_ascii().is_empty() {
        return mistake(json.len(), Problem::Empty);
    }
    // UTF-8 and both orders of UTF-16, as Windows editors save it.
    if json.starts_with(b"\xef\xbb\xbf") || json.starts_with(b"\xff\xfe") || json.starts_with(b"\xfe\xff") {
        return mistake(0, Problem::ByteOrderMark);
    }
    Ok(())
}

/// Makes a message of the error that reading the file ended with.
pub(super) fn explain(json: &[u8], json_error: de::Error, trace: &Trace) -> ConfigError {
    let mut field = trace.field.get();
    let last_looked_at =
        || shortest(json, |part| outcome(part) == (Some(json_error), trace.tokens.get())).saturating_sub(1);
    let token = || last_token(json, trace.tokens.get());
    let (at, mistake) = match json_error {
        de::Error::CustomError => (token(), trace.mistake.get().unwrap_or(Problem::Expected("JSON"))),
        de::Error::InvalidType => (last_looked_at(), expected_in(field)),
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
        de::Error::KeyMustBeAString => (last_looked_at(), Problem::Expected("a field name in double quotes")),
        de::Error::ExpectedColon => (last_looked_at(), Problem::Expected("`:`")),
        de::Error::ExpectedListCommaOrEnd => (last_looked_at(), Problem::Expected("`,` or `]`")),
        de::Error::ExpectedObjectCommaOrEnd => {
            let at = last_looked_at();
            if splits_number(json, at) {
                // A partition is the only number there is, and its visitor took its first part for all of it.
                field.name = Some("partition");
                (token(), Problem::Partition)
            } else {
                (at, Problem::Expected("`,` or `}`"))
            }
        }
        de::Error::TrailingComma => (last_looked_at(), Problem::Expected("another entry after the `,`")),
        de::Error::TrailingCharacters => (last_looked_at(), Problem::Expected("nothing after the closing `}`")),
        _ => (last_looked_at(), Problem::Expected("JSON")),
    };
    let rest = rest(json, at);
    let is_comment = rest.starts_with(b"//") || rest.starts_with(b"/*") || rest.starts_with(b"#");
    error(json, at, field, if is_comment { Problem::Comment } else { mistake })
}

/// Where the token with this number begins.
fn last_token(json: &[u8], tokens: usize) -> usize {
    let seen = shortest(json, |part| outcome(part).1 >= tokens);
    // A visitor learns of a key or an element once its first character was looked at, of a value just after its `:`.
    let start = seen.saturating_sub(1);
    let before_colon = rest(json, start).trim_ascii_start();
    let token = before_colon.strip_prefix(b":").unwrap_or(before_colon).trim_ascii_start();
    json.len().saturating_sub(token.len())
}

/// How reading a part of the file ends, and how many tokens it comes to.
fn outcome(part: &[u8]) -> (Option<de::Error>, usize) {
    let trace = Trace::default();
    (read(part, &trace).err(), trace.tokens.get())
}

/// The length of the shortest beginning of the file that `holds` is true for; for all longer ones it is true as well.
fn shortest(json: &[u8], holds: impl Fn(&[u8]) -> bool) -> usize {
    let (mut low, mut high) = (0, json.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(json.get(..middle).unwrap_or_default()) { high = middle } else { low = middle.saturating_add(1) }
    }
    low
}

/// Whether the file goes on at `at` with the same number: 1.5, 1e3, 01.
fn splits_number(json: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| json.get(before));
    before.is_some_and(u8::is_ascii_digit) && rest(json, at).first().is_some_and(|byte| b".eE0123456789".contains(byte))
}

/// What a field should have held when it held a value of the wrong type.
fn expected_in(field: FieldPath) -> Problem {
    match field {
        FieldPath { name: Some("partition"), .. } => Problem::Partition,
        FieldPath { name: Some("mounts"), .. } => Problem::Expected("a list of mounts"),
        FieldPath { name: Some(_), .. } => Problem::Expected("a string"),
        FieldPath { mount: Some(_), name: None } => {
            Problem::Expected("a mount such as {\"partition\": 1, \"mountpoint\": \"/\"}")
        }
        FieldPath { mount: None, name: None } => {
            Problem::Expected("a description such as {\"url\": ..., \"mounts\": [...]}")
        }
    }
}

/// The longest string that a field holds, in bytes; for keys, what is unescaped at most.
fn longest_in(field: FieldPath) -> usize {
    match field.name {
        Some("url") | None => MAX_URL,
        Some(_) => MAX_DISK_PATH,
    }
}

/// Makes the error for a mistake at a byte of the file.
fn error(json: &[u8], at: usize, field: FieldPath, mistake: Problem) -> ConfigError {
    let mut lines = json.get(..at).unwrap_or(json).rsplit(|&byte| byte == b'\n');
    // Every byte of a character but its first one is 10xxxxxx in UTF-8.
    let column = lines.next().map_or(0, |line| line.iter().filter(|&&byte| byte & 0xc0 != 0x80).count());
    let from_one = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    ConfigError {
        line: from_one(lines.count()),
        column: from_one(column),
        field,
        mistake,
        found: found(rest(json, at)),
    }
}

fn rest(json: &[u8], at: usize) -> &[u8] {
    json.get(at..).unwrap_or_default()
}

/// Shows what a part of the file begins with.
fn found(rest: &[u8]) -> Found {
    let mut found = Found::new();
    let shown = match rest.first() {
        None => found.write_str("the end of the file"),
        Some(b'{') => found.write_str("an object"),
        Some(b'[') if rest.get(1..).unwrap_or_default().trim_ascii_start().starts_with(b"]") => {
            found.write_str("an empty list")
        }
        Some(b'[') => found.write_str("a list"),
        Some(b'"') => show(&mut found, string(rest)),
        Some(&byte) if is_delimiter(byte) => write!(found, "`{}`", byte.escape_ascii()),
        Some(_) => show(&mut found, rest.split(|&byte| is_delimiter(byte)).next().unwrap_or_default()),
    };
    debug_assert!(shown.is_ok(), "an excerpt fits");
    found
}

/// Whether a byte ends a number or a word.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"{}[],:\"".contains(&byte)
}

/// The string that `rest` begins with, as it is written, quotes and all.
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

/// Writes the beginning of an excerpt.
fn show(found: &mut Found, text: &[u8]) -> fmt::Result {
    for &byte in text {
        if found.len() > MAX_SHOWN {
            return found.write_str("...");
        }
        if byte == b' ' || byte.is_ascii_graphic() {
            found.write_char(char::from(byte))?;
        } else {
            write!(found, "{}", byte.escape_ascii())?;
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
    fn a_place_is_given_in_lines_and_characters() {
        let json = "{\r\n\t\"tftp_root\": \"/gr\u{fc}n\", \"url\": 1}";
        let error = DiskConfig::parse(json.as_bytes()).expect_err("a number for a URL");
        assert_eq!((error.line, error.column), (2, 31));
        assert_eq!(error.field, FieldPath { mount: None, name: Some("url") });
    }

    #[test]
    fn every_beginning_of_a_file_is_refused() {
        for end in 0..GOOD.len() {
            assert!(DiskConfig::parse(&GOOD.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn no_byte_makes_it_panic() {
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
