//! Parses a command line by the table of its options, for both programs.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use pico_args::{Arguments, Keys};

use crate::{command::Command, options::COMMANDS};

/// An integer.
pub(crate) trait Number: Copy + Display + FromStr + PartialOrd {}

impl<T: Copy + Display + FromStr + PartialOrd> Number for T {}

/// The request of a command line.
#[derive(Debug)]
pub(crate) enum Parsed<T> {
    /// Prints a text and exits.
    Print(String),
    /// Runs the command with these arguments.
    Run(T),
}

/// The arguments of a command.
#[derive(Debug)]
pub(crate) struct Parser {
    command: &'static Command,
    args: Arguments,
}

impl Parser {
    /// Creates a parser of a command in the table.
    pub(crate) fn new(name: &str, args: Vec<OsString>) -> Self {
        let command = COMMANDS.iter().find(|command| command.name == name).unwrap_or(&COMMANDS[0]);
        Self { command, args: Arguments::from_vec(args) }
    }

    /// Returns the text to print if the arguments contain `--help` or `--version`.
    pub(crate) fn help_or_version(&mut self) -> Option<String> {
        if self.flag("--help") {
            return Some(self.command.help());
        }
        let has_version = self.command.option("--version").is_some();
        let is_asked = has_version && self.flag("--version");
        is_asked.then(|| format!("{} {}\n", self.command.name, env!("CARGO_PKG_VERSION")))
    }

    /// Returns the names of an option as pico-args takes them.
    fn keys(&self, long: &'static str) -> Keys {
        let option = self.command.option(long);
        debug_assert!(option.is_some(), "{long} is missing in the table of {}", self.command.name);
        match option.and_then(|option| option.short) {
            Some(short) => [short, long].into(),
            None => long.into(),
        }
    }

    /// Returns whether an option without a value is given.
    pub(crate) fn flag(&mut self, long: &'static str) -> bool {
        let keys = self.keys(long);
        self.args.contains(keys)
    }

    /// Returns the value of an option.
    ///
    /// # Errors
    ///
    /// Fails if the value is missing or not `expected`.
    pub(crate) fn value<T: FromStr>(&mut self, long: &'static str, expected: &str) -> Result<Option<T>, String> {
        let keys = self.keys(long);
        let value: Option<String> = self.args.opt_value_from_str(keys).map_err(|error| error.to_string())?;
        value.map(|value| parse(long, &value, expected)).transpose()
    }

    /// Returns the value of an option, or its default in the table.
    ///
    /// # Errors
    ///
    /// As [`value`](Self::value).
    pub(crate) fn value_or_default<T: FromStr>(&mut self, long: &'static str, expected: &str) -> Result<T, String> {
        match self.value(long, expected)? {
            Some(value) => Ok(value),
            None => parse(long, self.default(long), expected),
        }
    }

    /// Returns the number that is the value of an option, or its default in the table.
    ///
    /// # Errors
    ///
    /// Fails if the value is missing, not a number, or out of range.
    pub(crate) fn number<T: Number>(&mut self, long: &'static str, range: RangeInclusive<T>) -> Result<T, String> {
        in_range(long, self.value_or_default(long, &whole_number(&range))?, &range)
    }

    /// Returns the time that is the value of an option in seconds, or its default in the table.
    ///
    /// # Errors
    ///
    /// Fails if the value is missing, not a number, or out of range.
    pub(crate) fn seconds(&mut self, long: &'static str, range: RangeInclusive<u64>) -> Result<Duration, String> {
        self.number(long, range).map(Duration::from_secs)
    }

    /// Returns the path that is the value of an option. It need not be UTF-8 unless it follows a `=`.
    ///
    /// # Errors
    ///
    /// Fails if the value is missing.
    pub(crate) fn path(&mut self, long: &'static str) -> Result<Option<PathBuf>, String> {
        let keys = self.keys(long);
        let path = |value: &OsStr| Ok::<_, String>(PathBuf::from(value));
        match self.args.opt_value_from_os_str(keys, path).map_err(|error| error.to_string())? {
            // pico-args splits at a `=` only when it parses strings.
            None => self.value(long, "a path"),
            given => Ok(given),
        }
    }

    /// Returns the remaining arguments.
    ///
    /// # Errors
    ///
    /// Fails if there is an unknown option.
    pub(crate) fn operands(self) -> Result<Vec<OsString>, String> {
        let rest = self.args.finish();
        match rest.iter().find(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
            Some(unknown) => Err(unknown_argument(unknown)),
            None => Ok(rest),
        }
    }

    fn default(&self, long: &str) -> &'static str {
        self.command.option(long).and_then(|option| option.default).unwrap_or_default()
    }
}

fn parse<T: FromStr>(long: &str, value: &str, expected: &str) -> Result<T, String> {
    value.parse().map_err(|_| wrong_value(long, value, expected))
}

fn whole_number<T: Number>(range: &RangeInclusive<T>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

fn in_range<T: Number>(long: &str, number: T, range: &RangeInclusive<T>) -> Result<T, String> {
    if range.contains(&number) { Ok(number) } else { Err(wrong_value(long, &number.to_string(), &whole_number(range))) }
}

fn wrong_value(long: &str, value: &str, expected: &str) -> String {
    format!("{long}: expected {expected}, found `{value}`")
}

/// Returns the message for an argument that no option takes.
pub(crate) fn unknown_argument(argument: &OsStr) -> String {
    format!("unknown argument `{}`", argument.to_string_lossy())
}
