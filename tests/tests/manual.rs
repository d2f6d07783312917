//! The manual pages, the shell completions and README know the options that the programs have, and no others.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use rtftp_tests::{binary, run};

/// The programs, with the sections of their manual pages.
const PROGRAMS: [(&str, u8); 2] = [("rtftp", 8), ("rtftp-get", 1)];

/// The long options in a text.
fn long_options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

/// The long options that a program tells of itself.
fn options_of(program: &str) -> BTreeSet<String> {
    let help = run(&binary(program).display().to_string(), ["--help"]);
    let options = long_options(&String::from_utf8_lossy(&help.stdout));
    assert!(options.contains("--help"), "{program} --help tells of {options:?}");
    options
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bins").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a bash offers for the last of these words.
fn offered_by_bash(words: &[&str]) -> Vec<String> {
    let script = format!("{}/../bins/completions/{}.bash", env!("CARGO_MANIFEST_DIR"), words[0]);
    let complete = r#"
        . "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        compopt() { :; } # It is for completions that a key has asked for.
        call=$(complete -p "$1" | grep --only-matching --perl-regexp -- '-F \K\S+')
        $call
        printf '%s\n' "${COMPREPLY[@]}""#;
    let bash = Command::new("bash").args(["--norc", "-c", complete, &script]).args(words).output().expect("bash");
    assert!(bash.status.success() && bash.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&bash.stderr));
    let offered = String::from_utf8(bash.stdout).expect("text");
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn manual_pages_describe_every_option() {
    for (program, section) in PROGRAMS {
        let page = file(&format!("man/{program}.{section}"));
        // `.Fl` puts one hyphen before each of its words.
        let entries = page.lines().filter_map(|line| line.strip_prefix(".It Fl "));
        let words = entries.flat_map(str::split_whitespace).filter(|word| word.starts_with('-'));
        let described: BTreeSet<_> = words.map(|word| format!("-{word}")).collect();
        assert_eq!(described, options_of(program), "{program}({section}) on the left");
    }
}

#[test]
fn readme_names_every_option() {
    let named = long_options(include_str!("../../README.md"));
    for (program, _) in PROGRAMS {
        let missing: Vec<_> = options_of(program).into_iter().filter(|option| !named.contains(option)).collect();
        assert!(missing.is_empty(), "of {program}: {missing:?}");
    }
}

#[test]
fn completions_offer_every_option() {
    for (program, _) in PROGRAMS {
        let options = options_of(program);
        assert_eq!(offered_by_bash(&[program, "--"]).into_iter().collect::<BTreeSet<_>>(), options, "bash on the left");
        assert_eq!(long_options(&file(&format!("completions/_{program}"))), options, "zsh on the left");
        let fish = file(&format!("completions/{program}.fish"));
        let words: Vec<_> = fish.split_whitespace().collect();
        let offered = words.windows(2).filter(|pair| pair[0] == "-l").map(|pair| format!("--{}", pair[1]));
        assert_eq!(offered.collect::<BTreeSet<_>>(), options, "fish on the left");
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
        (&["rtftp-get", "10.0.0.1", "f", "--ver"], &["--verify", "--version"]),
        (&["rtftp-get", "10.0.0.1", "f", "--verify", "/etc/passw"], &["/etc/passwd"]),
        (&["rtftp-get", "10.0.0.1", "f", "--blksize", ""], &[]),
        (&["rtftp-get", "10.0.0.1", ""], &[]),
    ] {
        let mut found = offered_by_bash(words);
        found.retain(|word| word != "/etc/passwd-");
        assert_eq!(found, offered, "{words:?}");
    }
}
