//! Commands with their options, and the text of `--help`.

use std::fmt::Write as _;

/// The width of a line of `--help`.
const WIDTH: usize = 100;

/// A command: a program, or a subcommand of one.
#[derive(Debug)]
pub(crate) struct Command {
    /// The program and its subcommand, such as `rtftp check`.
    pub(crate) name: &'static str,
    /// The text of `--help` before the options.
    pub(crate) before: &'static str,
    pub(crate) options: &'static [Flag],
    /// The text of `--help` after the options.
    pub(crate) after: &'static str,
}

/// An option. Words between backquotes are literal in all texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// The short name, such as `-r`.
    pub(crate) short: Option<&'static str>,
    /// The long name, such as `--root-dir`.
    pub(crate) long: &'static str,
    /// The name of the value; `[=BOOL]` if it may be left out.
    pub(crate) value: Option<&'static str>,
    /// The description: a phrase that begins in lower case and ends without a full stop.
    pub(crate) help: &'static str,
    pub(crate) default: Option<&'static str>,
    /// Further sentences for the manual page.
    #[allow(dead_code, reason = "read by the tests in reference.rs")]
    pub(crate) details: &'static str,
    /// The completions of the value.
    #[allow(dead_code, reason = "read by the tests in reference.rs")]
    pub(crate) completion: Completion,
}

/// The completions of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    Nothing,
    File,
    Directory,
    OneOf(&'static str),
}

/// Creates an option without a value.
pub(crate) const fn flag(long: &'static str, help: &'static str) -> Flag {
    Flag { short: None, long, value: None, help, default: None, details: "", completion: Completion::Nothing }
}

/// Creates an option with a value.
pub(crate) const fn option(long: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { value: Some(value), ..flag(long, help) }
}

impl Flag {
    /// Sets the short name.
    pub(crate) const fn short(self, short: &'static str) -> Self {
        Self { short: Some(short), ..self }
    }

    /// Sets the default, as it is described.
    pub(crate) const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Sets the further sentences for the manual page.
    pub(crate) const fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    /// Sets the completions of the value.
    pub(crate) const fn completes(self, completion: Completion) -> Self {
        Self { completion, ..self }
    }

    /// Returns the names and the value, such as `-r, --root-dir DIR`.
    fn usage(&self) -> String {
        let short = self.short.map_or("    ".to_owned(), |short| format!("{short}, "));
        format!("{short}{}{}", self.long, self.value_suffix())
    }

    /// Returns the value as it follows the long name: ` DIR`, `[=BOOL]` or nothing.
    pub(crate) fn value_suffix(&self) -> String {
        match self.value {
            Some(value) if value.starts_with('[') => value.to_owned(),
            Some(value) => format!(" {value}"),
            None => String::new(),
        }
    }
}

impl Command {
    /// Returns the option of this long name.
    pub(crate) fn option(&self, long: &str) -> Option<&Flag> {
        self.options.iter().find(|option| option.long == long)
    }

    /// Returns the text of `--help`.
    pub(crate) fn help(&self) -> String {
        let column = self.options.iter().map(|option| option.usage().len()).max().unwrap_or(0) + 4;
        let mut text = format!("{}\nOptions:\n", self.before);
        for option in self.options {
            let default = option.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
            let description = format!("{}{default}", option.help).replace('`', "");
            let mut lines = wrap(&description, WIDTH - column).into_iter();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:<1$}{2}", option.usage(), column - 2, lines.next().unwrap_or_default());
            for line in lines {
                let _ = writeln!(text, "{:column$}{line}", "");
            }
        }
        text + self.after
    }
}

/// Breaks a text into lines of at most `width` bytes.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
