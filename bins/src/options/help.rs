//! The text of `--help`.

use std::fmt::Write as _;

use super::{Command, Opt, Value};

/// The width of a line in characters.
const WIDTH: usize = 100;
/// The column of the descriptions.
const INDENT: usize = 28;

impl Command {
    /// Returns the text that `--help` prints.
    pub fn help(&self) -> String {
        let Self { name, summary, usage, description, options, notes } = self;
        let mut text = format!("{name} - {summary}\n\n");
        for (index, form) in usage.iter().enumerate() {
            let label = if index == 0 { "Usage:" } else { "      " };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label} {name} {form}");
        }
        let _ = writeln!(text, "\n{description}\nOptions:");
        options.iter().for_each(|option| text.push_str(&option.help_entry()));
        if !notes.is_empty() {
            let _ = write!(text, "\n{notes}");
        }
        text
    }
}

impl Opt {
    /// Returns the option with the name of its value, such as `--listen-ip IP`.
    pub(super) fn invocation(&self) -> String {
        match self.value {
            Value::OptionalBool(name) => format!("{}[={name}]", self.long),
            value => [self.long].into_iter().chain(value.name()).collect::<Vec<_>>().join(" "),
        }
    }

    /// Returns the lines of the option in `--help`.
    fn help_entry(&self) -> String {
        let short = self.short.map_or("    ".into(), |short| format!("{short}, "));
        let names = format!("  {short}{}", self.invocation());
        let default = if self.default.is_empty() { String::new() } else { format!(" [default: {}]", self.default) };
        let mut lines = vec![format!("{names:INDENT$}")];
        if names.len() >= INDENT {
            lines = vec![names, " ".repeat(INDENT)];
        }
        for word in format!("{}{default}", self.help).split(' ') {
            let last = lines.len() - 1;
            let is_first = lines[last].len() <= INDENT;
            if !is_first && lines[last].len() + 1 + word.len() > WIDTH {
                lines.push(" ".repeat(INDENT) + word);
            } else {
                lines[last].push_str(if is_first { "" } else { " " });
                lines[last].push_str(word);
            }
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CHECK, GET, LOG_LEVEL, MAX_WINDOW_BYTES, RTFTP, STATUS};

    #[test]
    fn aligns_and_wraps_the_descriptions() {
        assert_eq!(
            LOG_LEVEL.help_entry(),
            "      --log-level LEVEL     log messages of this level and above: error, warn, info, debug or trace\n\
             \x20                           [default: info]\n"
        );
        assert_eq!(
            MAX_WINDOW_BYTES.help_entry(),
            "      --max-window-bytes BYTES\n\
             \x20                           largest window to grant, in bytes [default: 4194304]\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_limit() {
        for command in [RTFTP, CHECK, STATUS, GET] {
            for line in command.help().lines() {
                assert!(line.len() <= super::WIDTH && line.trim_end() == line, "{line}");
            }
        }
    }
}
