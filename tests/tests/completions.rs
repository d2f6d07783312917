//! The completions of bash, as bash runs them. The unit tests of `bins/src/options` compare all completions, manual pages and README
//! with the options.

use std::{collections::BTreeSet, process::Command};

use rtftp_tests::{binary, run};

/// Returns the long options in a text.
fn long_options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

/// Returns the long options in the help text of a command.
fn options_of(command: &[&str]) -> BTreeSet<String> {
    let program = binary(command[0]).display().to_string();
    let help = run(&program, [&command[1..], &["--help"]].concat());
    let options = long_options(&String::from_utf8_lossy(&help.stdout));
    assert!(options.contains("--help"), "{command:?} --help lists {options:?}");
    options
}

/// Returns the completions of bash for the last of these words.
fn bash_completions(words: &[&str]) -> Vec<String> {
    let script = format!("{}/../bins/completions/{}.bash", env!("CARGO_MANIFEST_DIR"), words[0]);
    let complete = r#"
        . "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        compopt() { :; } # Fails outside of interactive completion.
        call=$(complete -p "$1" | grep --only-matching --perl-regexp -- '-F \K\S+')
        $call
        printf '%s\n' "${COMPREPLY[@]}""#;
    let bash = Command::new("bash").args(["--norc", "-c", complete, &script]).args(words).output().expect("bash");
    assert!(bash.status.success() && bash.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&bash.stderr));
    let offered = String::from_utf8(bash.stdout).expect("text");
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_offers_every_option() {
    for command in [&["rtftp"][..], &["rtftp", "check"], &["rtftp", "status"], &["rtftp-get"]] {
        let offered: BTreeSet<_> = bash_completions(&[command, &["--"]].concat()).into_iter().collect();
        assert_eq!(offered, options_of(command), "{command:?}: bash (left) and --help");
    }
}

#[test]
fn bash_completes_values() {
    for (words, offered) in [
        (&["rtftp", "--log-level", ""][..], &["error", "warn", "info", "debug", "trace"][..]),
        (&["rtftp", "--log-level", "=", "d"], &["debug"]),
        (&["rtftp", "--monitor-configs", "="], &["true", "false"]),
        (&["rtftp", "-m", "t"], &["true"]),
        (&["rtftp", "--listen-port", ""], &[]),
        (&["rtftp", "--root-dir", "/us"], &["/usr"]),
        (&["rtftp", "--root-dir", "/etc/passw"], &[]),
        (&["rtftp", "--root-dir", "/srv", "--view"], &["--view-gap"]),
        (&["rtftp", ""], &["check", "status"]),
        (&["rtftp", "check", "/us"], &["/usr"]),
        (&["rtftp", "check", "--json", "/etc/passw"], &[]),
        (&["rtftp", "check", "/srv", "--open-limit", ""], &[]),
        (&["rtftp", "status", "10.0.0.5", "--on"], &["--once"]),
        (&["rtftp", "status", "--socket", "/etc/passw"], &["/etc/passwd"]),
        (&["rtftp-get", "10.0.0.1", "f", "--ver"], &["--verify", "--version"]),
        (&["rtftp-get", "10.0.0.1", "f", "--verify", "/etc/passw"], &["/etc/passwd"]),
        (&["rtftp-get", "10.0.0.1", "f", "--blksize", ""], &[]),
        (&["rtftp-get", "10.0.0.1", ""], &[]),
    ] {
        let mut found = bash_completions(words);
        found.retain(|word| word != "/etc/passwd-");
        assert_eq!(found, offered, "{words:?}");
    }
}
