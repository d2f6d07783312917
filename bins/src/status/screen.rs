//! Lines of text on a terminal: wrapped, coloured, and as many as fit.

use std::{
    env,
    io::{IsTerminal, stdout},
};

use rustix::termios::tcgetwinsize;

/// The width that a continued line has at least.
const MIN_WIDTH: usize = 20;
/// The indentation of continued lines on a narrow terminal.
const SMALL_INDENT: usize = 4;

/// A line of printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) colour: Colour,
    /// The indentation of the lines that continue it. Without one, it is cut at the width of the terminal.
    indent: Option<usize>,
}

/// The colour of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// That of the terminal.
    Default,
    Red,
    Yellow,
}

impl Line {
    /// Creates a line that is cut at the width of the terminal.
    pub(super) fn cut(text: String) -> Self {
        Self { text, colour: Colour::Default, indent: None }
    }

    /// Creates a line that is continued on further lines with this indentation.
    pub(super) fn wrapped(text: String, indent: usize, colour: Colour) -> Self {
        Self { text, colour, indent: Some(indent) }
    }
}

/// The terminal that standard output is, or a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    columns: usize,
    rows: usize,
    has_colours: bool,
}

impl Screen {
    /// Returns the present size of the terminal without its last column, 79 by 24 by default.
    pub(super) fn current() -> Self {
        let (columns, rows) = match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        };
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        // After text in the last column, some terminals take the cursor to be in it: `\x1b[K` would erase its character.
        let columns = columns - 1;
        Self { columns, rows, has_colours: stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    #[cfg(test)]
    pub(super) fn of_size(columns: usize, rows: usize) -> Self {
        Self { columns, rows, has_colours: false }
    }

    /// Returns the number of rows for text; the last row is for the cursor.
    pub(super) fn available(&self) -> usize {
        self.rows.saturating_sub(1).max(1)
    }

    /// Returns the number of rows that lines need.
    pub(super) fn height(&self, lines: &[Line]) -> usize {
        lines.iter().map(|line| self.rows_of(line).len()).sum()
    }

    /// Returns the text of lines that the terminal wraps itself, or that are written to a file.
    pub(super) fn text(&self, lines: &[Line]) -> String {
        lines.iter().map(|line| self.coloured(&line.text, line.colour) + "\n").collect()
    }

    /// Returns the rows of lines at the top of the screen, and the number of rows between them and the last one. At least one is left if
    /// possible.
    pub(super) fn split(&self, lines: &[Line]) -> (Vec<String>, usize) {
        let body_end = self.rows.saturating_sub(1);
        let mut rows: Vec<_> = lines.iter().flat_map(|line| self.rows(line)).collect();
        rows.truncate(body_end.saturating_sub(1));
        let space = body_end - rows.len();
        (rows, space)
    }

    /// Makes the rows a whole screen, with `footer` in the last one.
    pub(super) fn fill(&self, rows: &mut Vec<String>, footer: &str) {
        rows.resize(self.rows.saturating_sub(1), String::new());
        rows.push(footer.get(..self.columns).unwrap_or(footer).to_owned());
    }

    /// Returns the escape sequences and the text that replace the screen by these rows.
    pub(super) fn frame(rows: &[String]) -> String {
        // `\x1b[K` erases the rest of a longer row.
        format!("\x1b[H{}\x1b[K\x1b[J", rows.join("\x1b[K\r\n"))
    }

    /// Returns a row of a selected line.
    pub(super) fn reversed(row: &str) -> String {
        format!("\x1b[7m{row}\x1b[0m")
    }

    /// Returns the coloured rows of a line.
    pub(super) fn rows(&self, line: &Line) -> Vec<String> {
        self.rows_of(line).iter().map(|row| self.coloured(row, line.colour)).collect()
    }

    fn coloured(&self, text: &str, colour: Colour) -> String {
        match colour {
            Colour::Red if self.has_colours => format!("\x1b[31m{text}\x1b[0m"),
            Colour::Yellow if self.has_colours => format!("\x1b[33m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// Breaks a line into rows of the terminal.
    fn rows_of(&self, line: &Line) -> Vec<String> {
        let Some(indent) = line.indent else {
            return vec![line.text.get(..self.columns).unwrap_or(&line.text).to_owned()];
        };
        let indent = if self.columns >= indent + MIN_WIDTH { indent } else { SMALL_INDENT };
        let columns = self.columns.max(SMALL_INDENT + 1);
        let (mut rows, mut rest, mut start) = (vec![], line.text.as_str(), String::new());
        loop {
            let width = columns - start.len();
            if rest.len() <= width {
                rows.push(start + rest);
                return rows;
            }
            // At the last space, and not in the indentation of the text; a word that is longer than the row is broken.
            let first_word = rest.len() - rest.trim_start().len();
            let at = rest[..=width].rfind(' ').filter(|at| *at > first_word).unwrap_or(width);
            rows.push(start + rest[..at].trim_end());
            rest = rest[at..].trim_start();
            start = " ".repeat(indent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Line {
        Line::cut(text.into())
    }

    #[test]
    fn fills_the_terminal_and_no_more() {
        let lines = ["12345678", "123", "1"].map(cut);
        for (columns, rows, frame) in [
            (5, 6, "\x1b[H12345\x1b[K\r\n123\x1b[K\r\n1\x1b[K\r\n\x1b[K\r\n\x1b[K\r\nfoote\x1b[K\x1b[J"),
            (80, 3, "\x1b[H12345678\x1b[K\r\n\x1b[K\r\nfooter\x1b[K\x1b[J"),
            (80, 1, "\x1b[Hfooter\x1b[K\x1b[J"),
            (0, 0, "\x1b[H\x1b[K\x1b[J"),
        ] {
            let screen = Screen::of_size(columns, rows);
            let (mut top, space) = screen.split(&lines);
            assert_eq!(top.len() + space, rows.saturating_sub(1));
            screen.fill(&mut top, "footer");
            assert_eq!(Screen::frame(&top), frame, "{columns} x {rows}");
        }
    }

    #[test]
    fn wraps_long_lines_without_losing_text() {
        let wrapped = |text: &str, columns, indent| {
            Screen::of_size(columns, 99).rows_of(&Line::wrapped(text.into(), indent, Colour::Default))
        };
        assert_eq!(
            wrapped("10.0.0.5  kernel failed: no route", 30, 10),
            ["10.0.0.5  kernel failed: no", "          route"]
        );
        assert_eq!(wrapped("10.0.0.5  kernel failed: no route", 20, 10), ["10.0.0.5  kernel", "    failed: no route"]);
        assert_eq!(wrapped("  aaaaaaaaaaaaaaaa", 10, 1), ["  aaaaaaaa", "    aaaaaa", "    aa"]);
        for columns in 0..50 {
            let text = "10.0.0.5  kernel8.img failed (requested 12 s ago): nbd://nas/board5: Connection refused (os error 111)";
            let rows = wrapped(text, columns, 10);
            let without_blanks = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(without_blanks(&rows.concat()), without_blanks(text), "{columns}");
            assert!(rows.iter().all(|row| row.len() <= columns.max(SMALL_INDENT + 1)), "{columns}: {rows:?}");
        }
    }

    #[test]
    fn colours_lines_only_on_a_terminal_with_colours() {
        let lines =
            [Line::wrapped("failed".into(), 0, Colour::Red), Line::wrapped("stalled".into(), 0, Colour::Yellow)];
        assert_eq!(Screen::of_size(80, 24).text(&lines), "failed\nstalled\n");
        let coloured = Screen { has_colours: true, ..Screen::of_size(80, 24) };
        assert_eq!(coloured.text(&lines), "\x1b[31mfailed\x1b[0m\n\x1b[33mstalled\x1b[0m\n");
        assert_eq!(coloured.rows(&lines[0]), ["\x1b[31mfailed\x1b[0m"]);
    }
}
