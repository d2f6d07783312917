//! Text from the network, and ages.

use rtftp_runtime::history::format_duration;

/// Escapes all characters that are not printable ASCII: names come from the network.
pub(super) fn escape(text: &str) -> String {
    let is_printable = |c: char| matches!(c, ' '..='~');
    text.chars().map(|c| if is_printable(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// Formats an age in seconds. A negative age, possible after the clock was set, is 0.
pub(super) fn age(seconds: f64) -> String {
    format_duration(seconds.max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_control_sequences() {
        assert_eq!(escape("boot/a b~"), "boot/a b~");
        assert_eq!(escape("\u{1b}[2J\n\u{9b}2J\u{202e}é"), r"\u{1b}[2J\n\u{9b}2J\u{202e}\u{e9}");
    }

    #[test]
    fn formats_ages_in_the_largest_unit() {
        for (seconds, expected) in
            [(-1.0, "0 s"), (119.9, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (1e9, "11574 days")]
        {
            assert_eq!(age(seconds), expected);
        }
    }
}
