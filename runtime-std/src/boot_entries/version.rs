//! Compares versions by the Version Format Specification of the UAPI group.

use std::cmp::Ordering;

/// Compares two versions: `6.1.10~rc1` < `6.1.9` is false, `6.1.9` < `6.1.10` is true.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        (one, other) = (skip_ignored(one), skip_ignored(other));
        if let Some(order) = compare_separator(b'~', &mut one, &mut other) {
            return order;
        }
        if one.is_empty() || other.is_empty() {
            return one.len().cmp(&other.len());
        }
        for separator in *b"-^." {
            if let Some(order) = compare_separator(separator, &mut one, &mut other) {
                return order;
            }
        }
        let starts_with_digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
        let order = if starts_with_digit(one) || starts_with_digit(other) {
            let (one, other) = (take(&mut one, u8::is_ascii_digit), take(&mut other, u8::is_ascii_digit));
            let (one, other) = (without_zeros(one), without_zeros(other));
            one.len().cmp(&other.len()).then(one.cmp(other))
        } else {
            take(&mut one, u8::is_ascii_alphabetic).cmp(take(&mut other, u8::is_ascii_alphabetic))
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Compares two texts with versions so that the highest version is first; texts of the same version in reverse order.
pub(super) fn newest_first(one: &str, other: &str) -> Ordering {
    compare(other, one).then_with(|| other.cmp(one))
}

/// Removes the bytes that have no meaning from the start.
fn skip_ignored(text: &[u8]) -> &[u8] {
    let is_ignored = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"-.~^".contains(byte);
    let start = text.iter().position(|byte| !is_ignored(byte)).unwrap_or(text.len());
    &text[start..]
}

/// Removes a separator from both texts. Returns the order if only one of them starts with it: that one is lower.
fn compare_separator(separator: u8, one: &mut &[u8], other: &mut &[u8]) -> Option<Ordering> {
    match (one.strip_prefix(&[separator]), other.strip_prefix(&[separator])) {
        (Some(rest), Some(other_rest)) => (*one, *other) = (rest, other_rest),
        (Some(_), None) => return Some(Ordering::Less),
        (None, Some(_)) => return Some(Ordering::Greater),
        (None, None) => {}
    }
    None
}

/// Splits off the bytes of a class from the start.
fn take<'t>(text: &mut &'t [u8], is_in_class: fn(&u8) -> bool) -> &'t [u8] {
    let (taken, rest) = text.split_at(text.iter().position(|byte| !is_in_class(byte)).unwrap_or(text.len()));
    *text = rest;
    taken
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|digit| **digit == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_the_examples_of_the_specification() {
        use Ordering::{Equal, Greater, Less};
        for (one, expected, other) in [
            ("11", Equal, "11"),
            ("systemd-123", Equal, "systemd-123"),
            ("bar-123", Less, "foo-123"),
            ("123a", Greater, "123"),
            ("123.a", Greater, "123"),
            ("123.a", Less, "123.b"),
            ("123a", Greater, "123.a"),
            ("11α", Equal, "11β"),
            ("B", Less, "a"),
            ("", Less, "0"),
            ("0.", Greater, "0"),
            ("0.0", Greater, "0"),
            ("0", Greater, "~"),
            ("", Greater, "~"),
            ("1_", Equal, "1"),
            ("_1", Equal, "1"),
            ("1_", Less, "1.2"),
            ("1_2_3", Greater, "1.3.3"),
            ("1+", Equal, "1"),
            ("+1", Equal, "1"),
            ("1+", Less, "1.2"),
            ("1+2+3", Greater, "1.3.3"),
        ] {
            assert_eq!(compare(one, other), expected, "{one} {other}");
            assert_eq!(compare(other, one), expected.reverse(), "{other} {one}");
        }
    }

    #[test]
    fn orders_versions_of_kernels() {
        for versions in [
            &["6.1.10~rc1", "6.1.10", "6.1.10-rc2"][..],
            &["6.1.9", "6.1.10"],
            &["6.1.0-2.fc", "6.1.0-13.fc"],
            &["5.14.0-70.el9", "5.14.0-70.13.1.el9"],
            &["6.10.11-amd64", "6.10.11+deb13-amd64"],
            &["6.007", "6.8"],
        ] {
            for pair in versions.windows(2) {
                assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            }
        }
    }
}
