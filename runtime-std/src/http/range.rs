//! Byte ranges (RFC 9110 section 14).

use std::ops::Range;

/// The part of a file that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes; not empty.
    Bytes(Range<u64>),
    /// Bytes beyond its end.
    Unsatisfiable,
}

/// Parses the value of a `Range` header for a file of `size` bytes.
///
/// A server may ignore the header (section 14.2). Several ranges, other units and invalid values are ignored: no boot client sends
/// them.
#[must_use]
pub fn parse(value: &[u8], size: u64) -> Part {
    let Some((unit, range)) = split_once(value, b'=') else { return Part::Whole };
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return Part::Whole;
    }
    let Some((first, last)) = split_once(range.trim_ascii(), b'-') else { return Part::Whole };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Part::Whole,
        (Some(first), _) if first >= size => match number(last) {
            None if !last.is_empty() => Part::Whole,
            _ => Part::Unsatisfiable,
        },
        (Some(first), Some(last)) => Part::Bytes(first..last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => Part::Bytes(first..size),
        (None, Some(0)) if first.is_empty() => Part::Unsatisfiable,
        (None, Some(suffix)) if first.is_empty() && size > 0 => Part::Bytes(size.saturating_sub(suffix)..size),
        _ => Part::Whole,
    }
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Parses decimal digits. A number that is too large is the largest one: no file is that long.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |number, digit| number.saturating_mul(10).saturating_add((digit - b'0').into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_single_ranges() {
        for (value, size, expected) in [
            ("bytes=0-0", 10, Part::Bytes(0..1)),
            ("bytes=2-5", 10, Part::Bytes(2..6)),
            ("bytes=2-", 10, Part::Bytes(2..10)),
            ("bytes=9-99", 10, Part::Bytes(9..10)),
            ("Bytes = 2-5", 10, Part::Bytes(2..6)),
            ("bytes=-3", 10, Part::Bytes(7..10)),
            ("bytes=-30", 10, Part::Bytes(0..10)),
            ("bytes=0-18446744073709551615", 10, Part::Bytes(0..10)),
            ("bytes=1-99999999999999999999999", 10, Part::Bytes(1..10)),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Part::Unsatisfiable),
            ("bytes=10-20", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=-5", 0, Part::Whole),
        ] {
            assert_eq!(parse(value.as_bytes(), size), expected, "{value} of {size}");
        }
    }

    #[test]
    fn ignores_what_it_need_not_understand() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-",
            "bytes=1-a",
            "bytes=a-1",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=+1-2",
            "bytes=20-a",
            "bytes=1--2",
        ] {
            assert_eq!(parse(value.as_bytes(), 10), Part::Whole, "{value}");
        }
    }
}
