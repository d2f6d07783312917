//! Options with a value on a command line, for both programs.

use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Display},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use pico_args::Arguments;

/// How an option is spelled: short and long, or long only.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Names {
    Both(&'static str, &'static str),
    Long(&'static str),
}

impl Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Both(_, long) | Self::Long(long)) = self;
        f.write_str(long)
    }
}

/// The value of an option, if it is given.
pub(crate) fn option<T: FromStr>(args: &mut Arguments, names: Names, expected: &str) -> Result<Option<T>, String> {
    let value: Option<String> = match names {
        Names::Both(short, long) => args.opt_value_from_str([short, long]),
        Names::Long(long) => args.opt_value_from_str(long),
    }
    .map_err(|error| error.to_string())?;
    value.map(|value| value.parse().map_err(|_| format!("{names}: expected {expected}, found `{value}`"))).transpose()
}

/// The value of an option that is a whole number with bounds.
pub(crate) fn within<T>(args: &mut Arguments, names: Names, range: RangeInclusive<T>) -> Result<Option<T>, String>
where
    T: Copy + Display + FromStr + PartialOrd,
{
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    match option(args, names, &expected)? {
        Some(value) if !range.contains(&value) => Err(format!("{names}: expected {expected}, found `{value}`")),
        value => Ok(value),
    }
}

/// The value of an option that is a path, which need not be UTF-8 unless it is joined to its option by `=`.
pub(crate) fn path(args: &mut Arguments, names: Names, expected: &str) -> Result<Option<PathBuf>, String> {
    let as_it_is = |path: &OsStr| Ok::<_, String>(PathBuf::from(path));
    let given = match names {
        Names::Both(short, long) => args.opt_value_from_os_str([short, long], as_it_is),
        Names::Long(long) => args.opt_value_from_os_str(long, as_it_is),
    };
    match given.map_err(|error| error.to_string())? {
        None => option(args, names, expected),
        given => Ok(given),
    }
}

/// What is left when all options have been taken, in which another one is unknown.
pub(crate) fn operands(args: Arguments) -> Result<Vec<OsString>, String> {
    let rest = args.finish();
    match rest.iter().find(|arg| arg.as_encoded_bytes().starts_with(b"-")) {
        Some(unknown) => Err(format!("unknown argument `{}`", unknown.to_string_lossy())),
        None => Ok(rest),
    }
}
