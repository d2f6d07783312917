//! Checks that shell completions, manual pages and README.md match the table of options.
//!
//! `UPDATE_REFERENCE=1 cargo test -p rtftp-server --bin rtftp reference` rewrites the completions, the list of options in each manual page
//! and the tables of options in README.md.

mod completions;
mod tables;

use std::{env, fs, path::Path};

use crate::{command::Command, options::COMMANDS};

/// Returns the commands of a program.
fn commands(program: &str) -> Vec<&'static Command> {
    COMMANDS.iter().filter(|command| command.name.split(' ').next() == Some(program)).collect()
}

/// Returns the command of this name.
#[track_caller]
fn command(name: &str) -> &'static Command {
    COMMANDS.iter().find(|command| command.name == name).expect("a command in the table")
}

/// Asserts that a file equals what `generate` makes of it, or rewrites the file if `UPDATE_REFERENCE` is set.
#[track_caller]
fn assert_generated(path: &str, generate: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let found = fs::read_to_string(&path).unwrap_or_default();
    let expected = generate(&found);
    if env::var_os("UPDATE_REFERENCE").is_some() {
        return fs::write(&path, expected).expect("a writable file");
    }
    for (number, (found, expected)) in (1..).zip(found.lines().zip(expected.lines())) {
        assert_eq!(
            found,
            expected,
            "{}:{number} (left) differs from bins/src/options.rs (right): change the table and run UPDATE_REFERENCE=1 \
             cargo test -p rtftp-server --bin rtftp reference",
            path.display()
        );
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{}: number of lines", path.display());
}

#[test]
fn completions_match_the_table() {
    for program in ["rtftp", "rtftp-get", "rtftp-etcd"] {
        assert_generated(&format!("completions/{program}.bash"), |_| completions::bash(program, &commands(program)));
        assert_generated(&format!("completions/_{program}"), |_| completions::zsh(program, &commands(program)));
        assert_generated(&format!("completions/{program}.fish"), |_| completions::fish(program, &commands(program)));
    }
}

#[test]
fn manual_pages_match_the_table() {
    let pages = [
        ("rtftp", "rtftp.8"),
        ("rtftp check", "rtftp-check.1"),
        ("rtftp status", "rtftp-status.1"),
        ("rtftp-get", "rtftp-get.1"),
        ("rtftp-etcd", "rtftp-etcd.8"),
    ];
    for (name, page) in pages {
        assert_generated(&format!("man/{page}"), |text| tables::replace_manual(text, command(name)));
    }
}

#[test]
fn readme_matches_the_table() {
    assert_generated("../README.md", |text| {
        ["rtftp", "rtftp-get"].iter().fold(text.to_owned(), |text, name| tables::replace_readme(&text, command(name)))
    });
}

#[test]
fn the_parser_knows_all_options() {
    for command in &COMMANDS[..3] {
        let subcommand = command.name.split(' ').nth(1);
        for option in command.options {
            for name in [option.short, Some(option.long)].into_iter().flatten() {
                // The value is wrong for all options but those that take a path.
                let args = subcommand.into_iter().chain([name, "-"]).map(Into::into).collect();
                if let Err(error) = crate::cli::parse(args) {
                    assert!(!error.to_string().contains(&format!("`{name}`")), "{} {name}: {error}", command.name);
                }
            }
        }
    }
}

#[test]
fn help_fits_into_100_columns() {
    for command in &COMMANDS {
        let help = command.help();
        assert!(help.lines().all(|line| line.len() <= 100 && line.trim_end() == line), "{help}");
    }
}
