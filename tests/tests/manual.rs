//! Manual pages, shell completions and README list exactly the options of the programs.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use rtftp_tests::{binary, run};

/// The commands and their manual pages, grouped by program.
const COMMANDS: [(&[&str], &str); 5] = [
    (&["rtftp"], "rtftp.8"),
    (&["rtftp", "check"], "rtftp-check.1"),
    (&["rtftp", "status"], "rtftp-status.1"),
    (&["rtftp-get"], "rtftp-get.1"),
    (&["rtftp-etcd"], "rtftp-etcd.8"),
];

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

/// Reads a file below `bins/`.
fn read_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bins").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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
fn manual_pages_describe_all_options() {
    for (command, name) in COMMANDS {
        let page = read_file(&format!("man/{name}"));
        // `.Fl` puts one hyphen before each of its words.
        let entries = page.lines().filter_map(|line| line.strip_prefix(".It Fl "));
        let words = entries.flat_map(str::split_whitespace).filter(|word| word.starts_with('-'));
        let described: BTreeSet<_> = words.map(|word| format!("-{word}")).collect();
        assert_eq!(described, options_of(command), "{name} (left) and --help");
    }
}

#[test]
fn readme_lists_all_options() {
    let named = long_options(include_str!("../../README.md"));
    // Those of rtftp-etcd are in its manual page.
    for (command, _) in COMMANDS.into_iter().filter(|(command, _)| command[0] != "rtftp-etcd") {
        let missing: Vec<_> = options_of(command).into_iter().filter(|option| !named.contains(option)).collect();
        assert!(missing.is_empty(), "{command:?}: {missing:?} missing in README");
    }
}

#[test]
fn completions_offer_all_options() {
    for (command, _) in COMMANDS {
        let offered: BTreeSet<_> = bash_completions(&[command, &["--"]].concat()).into_iter().collect();
        assert_eq!(offered, options_of(command), "bash (left) and {command:?} --help");
    }
    for commands in COMMANDS.chunk_by(|(one, _), (next, _)| one[0] == next[0]) {
        let program = commands[0].0[0];
        let options: BTreeSet<_> = commands.iter().flat_map(|(command, _)| options_of(command)).collect();
        assert_eq!(long_options(&read_file(&format!("completions/_{program}"))), options, "zsh (left) and --help");
        let fish = read_file(&format!("completions/{program}.fish"));
        let words: Vec<_> = fish.split_whitespace().collect();
        let offered = words.windows(2).filter(|pair| pair[0] == "-l").map(|pair| format!("--{}", pair[1]));
        assert_eq!(offered.collect::<BTreeSet<_>>(), options, "fish (left) and --help");
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
        (&["rtftp-etcd", "--root-dir", "/us"], &["/usr"]),
        (&["rtftp-etcd", "--on"], &["--once"]),
    ] {
        let mut found = bash_completions(words);
        found.retain(|word| word != "/etc/passwd-");
        assert_eq!(found, offered, "{words:?}");
    }
}
