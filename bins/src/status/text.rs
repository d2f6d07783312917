//! Text on a terminal: nothing that others have named may control it.

use std::io::stdout;

use rtftp_runtime::history::format_duration;
use rustix::termios::tcgetwinsize;

/// Text with everything escaped that is not printable ASCII.
pub(super) fn harmless(text: &str) -> String {
    let is_plain = |c: char| matches!(c, ' '..='~');
    text.chars().map(|c| if is_plain(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// How long ago; what is still to come, by a clock that was set, is now.
pub(super) fn ago(seconds: f64) -> String {
    format_duration(seconds.max(0.0) as u64)
}

/// The columns and rows of the terminal, or of an old one where there is none.
pub(super) fn screen() -> (usize, usize) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// What draws the lines over those before: as many as there is room for, each cut to the width. Lines are ASCII.
pub(super) fn frame(lines: &[String], (columns, rows): (usize, usize), is_first: bool) -> String {
    // The last row stays free for the cursor.
    let room = rows.saturating_sub(1).max(1);
    let shown = if lines.len() > room { room - 1 } else { lines.len() };
    let mut frame = String::from(if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    let mut draw = |line: &str| {
        // The rest of a longer line that was there is erased.
        frame.extend([line.get(..columns).unwrap_or(line), "\x1b[K\r\n"]);
    };
    lines.iter().take(shown).for_each(|line| draw(line));
    if shown < lines.len() {
        draw(&format!("... and {} lines more", lines.len() - shown));
    }
    frame + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_controls_the_terminal() {
        assert_eq!(harmless("boot/a b~"), "boot/a b~");
        assert_eq!(harmless("\u{1b}[2J\n\u{9b}2J\u{202e}é"), r"\u{1b}[2J\n\u{9b}2J\u{202e}\u{e9}");
    }

    #[test]
    fn a_frame_fits_its_screen() {
        let lines: Vec<String> = ["12345678", "123", "1"].map(str::to_owned).into();
        assert_eq!(frame(&lines, (5, 9), false), "\x1b[H12345\x1b[K\r\n123\x1b[K\r\n1\x1b[K\r\n\x1b[J");
        assert_eq!(frame(&lines, (80, 3), true), "\x1b[2J\x1b[H12345678\x1b[K\r\n... and 2 lines more\x1b[K\r\n\x1b[J");
        assert_eq!(frame(&lines, (80, 4), false).matches("\r\n").count(), 3, "all of them");
        assert_eq!(frame(&lines, (0, 0), false), "\x1b[H\x1b[K\r\n\x1b[J");
    }

    #[test]
    fn times_are_in_units_that_tell_something() {
        for (seconds, expected) in
            [(-1.0, "0 s"), (119.9, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (1e9, "11574 days")]
        {
            assert_eq!(ago(seconds), expected);
        }
    }
}
