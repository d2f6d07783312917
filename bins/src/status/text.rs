//! Text for a terminal.

use std::io::stdout;

use rtftp_runtime::history::format_duration;
use rustix::termios::tcgetwinsize;

/// Escapes all characters that are not printable ASCII: names come from the network.
pub(super) fn escape(text: &str) -> String {
    let is_printable = |c: char| matches!(c, ' '..='~');
    text.chars().map(|c| if is_printable(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// Formats an age in seconds. A negative age, possible after the clock was set, is 0.
pub(super) fn age(seconds: f64) -> String {
    format_duration(seconds.max(0.0) as u64)
}

/// Returns the columns and rows of the terminal, 80 by 24 by default.
pub(super) fn terminal_size() -> (usize, usize) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Returns the escape sequences and the text that replace the screen by these lines of ASCII, cut to the terminal's size.
pub(super) fn frame(lines: &[String], (columns, rows): (usize, usize), is_first: bool) -> String {
    // The last row is for the cursor.
    let available = rows.saturating_sub(1).max(1);
    let shown = if lines.len() > available { available - 1 } else { lines.len() };
    let mut frame = String::from(if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    let mut draw = |line: &str| {
        // `\x1b[K` erases the rest of a longer line.
        frame.extend([line.get(..columns).unwrap_or(line), "\x1b[K\r\n"]);
    };
    lines.iter().take(shown).for_each(|line| draw(line));
    if shown < lines.len() {
        draw(&format!("... and {} more lines", lines.len() - shown));
    }
    frame + "\x1b[J"
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
    fn cuts_a_frame_to_the_terminal_size() {
        let lines: Vec<String> = ["12345678", "123", "1"].map(str::to_owned).into();
        assert_eq!(frame(&lines, (5, 9), false), "\x1b[H12345\x1b[K\r\n123\x1b[K\r\n1\x1b[K\r\n\x1b[J");
        assert_eq!(frame(&lines, (80, 3), true), "\x1b[2J\x1b[H12345678\x1b[K\r\n... and 2 more lines\x1b[K\r\n\x1b[J");
        assert_eq!(frame(&lines, (80, 4), false).matches("\r\n").count(), 3);
        assert_eq!(frame(&lines, (0, 0), false), "\x1b[H\x1b[K\r\n\x1b[J");
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
