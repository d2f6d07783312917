//! Parses the values of options.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use pico_args::Arguments;

use crate::options::Opt;

/// Returns whether an option without value is given.
pub fn flag(args: &mut Arguments, option: &Opt) -> bool {
    match option.short {
        Some(short) => args.contains([short, option.long]),
        None => args.contains(option.long),
    }
}

/// Parses the value of an option, if it is given.
///
/// # Errors
///
/// Returns a line that names the option and what it expects.
pub fn value<T: FromStr>(args: &mut Arguments, option: &Opt, expected: &str) -> Result<Option<T>, String> {
    let text: Option<String> = match option.short {
        Some(short) => args.opt_value_from_str([short, option.long]),
        None => args.opt_value_from_str(option.long),
    }
    .map_err(|error| error.to_string())?;
    text.map(|text| parse(option, &text, expected)).transpose()
}

/// Parses the value of an option that is a whole number in a range. Its default is the one of the table.
///
/// # Errors
///
/// Returns a line that names the option and the range.
pub fn number<T>(args: &mut Arguments, option: &Opt, range: RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + Display + FromStr + PartialOrd,
{
    match number_if_given(args, option, range.clone())? {
        Some(number) => Ok(number),
        None => parse(option, option.default, "a default that is a number"),
    }
}

/// Parses the value of an option that is a whole number in a range, if it is given.
///
/// # Errors
///
/// Returns a line that names the option and the range.
pub fn number_if_given<T>(args: &mut Arguments, option: &Opt, range: RangeInclusive<T>) -> Result<Option<T>, String>
where
    T: Copy + Display + FromStr + PartialOrd,
{
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    match value(args, option, &expected)? {
        Some(number) if !range.contains(&number) => {
            Err(format!("{}: expected {expected}, found `{number}`", option.long))
        }
        number => Ok(number),
    }
}

/// Parses the value of an option that is a time of 1 second or more.
///
/// # Errors
///
/// Returns a line that names the option and the range.
pub fn seconds(args: &mut Arguments, option: &Opt) -> Result<Duration, String> {
    Ok(Duration::from_secs(number(args, option, 1..=1_000_000)?))
}

/// Parses the value of an option that is a path, if it is given. It may be other than UTF-8 unless it is joined to the option by
/// `=`.
///
/// # Errors
///
/// Returns a line that names the option and what it expects.
pub fn path(args: &mut Arguments, option: &Opt, expected: &str) -> Result<Option<PathBuf>, String> {
    let convert = |path: &OsStr| Ok::<_, String>(PathBuf::from(path));
    let given = match option.short {
        Some(short) => args.opt_value_from_os_str([short, option.long], convert),
        None => args.opt_value_from_os_str(option.long, convert),
    };
    match given.map_err(|error| error.to_string())? {
        None => value(args, option, expected),
        given => Ok(given),
    }
}

/// Returns the operands after all options have been parsed.
///
/// # Errors
///
/// Returns a line that names an unknown option.
pub fn operands(args: Arguments) -> Result<Vec<OsString>, String> {
    let rest = args.finish();
    match rest.iter().find(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
        Some(unknown) => Err(format!("unknown argument `{}`", unknown.to_string_lossy())),
        None => Ok(rest),
    }
}

fn parse<T: FromStr>(option: &Opt, text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{}: expected {expected}, found `{text}`", option.long))
}
