//! Compares the files that repeat the options with the tables: README.md, the shell completions and the manual pages.

use std::{env, fs, path::PathBuf};

use super::{CHECK, Command, GET, Opt, RTFTP, STATUS, Value};

/// The header of the option tables in README.md, which has one for the daemon and one for `rtftp-get`.
const README_HEADER: &str = "| option | meaning | default |\n|---|---|---|\n";

impl Opt {
    /// Returns the row of the option in README.md.
    fn readme_row(&self) -> String {
        let short = self.short.map_or(String::new(), |short| format!("`{short}`, "));
        format!("| {short}`{}` | {} | {} |\n", self.invocation(), self.help, self.default)
    }

    /// Returns the first lines of the option in a manual page.
    fn manual_entry(&self) -> String {
        let short = self.short.map_or(String::new(), |short| format!("{} , ", short.trim_start_matches('-')));
        let long = self.long.trim_start_matches('-');
        let value = match self.value {
            Value::OptionalBool(name) => format!(" Ns Op = Ns Ar {name}"),
            value => value.name().map_or(String::new(), |name| format!(" Ar {name}")),
        };
        let mut help = self.help.chars();
        let help: String = help.next().into_iter().flat_map(char::to_uppercase).chain(help).collect();
        let default = if self.default.is_empty() { String::new() } else { format!("Default: {}.\n", self.default) };
        format!(".It Fl {short}-{long}{value}\n{help}.\n{default}")
    }

    /// Returns the description in a shell completion: the first clause of the help, and a numeric default.
    fn completion_help(&self) -> String {
        let clause = self.help.split([':', ';']).next().unwrap_or_default();
        let is_number = self.default.parse::<u64>().is_ok();
        if is_number { format!("{clause} ({})", self.default) } else { clause.to_owned() }
    }

    /// Returns the option as an argument of zsh's `_arguments`.
    fn zsh(&self) -> String {
        let Self { short, long, .. } = self;
        let equals = if self.value.name().is_some() { "=" } else { "" };
        let exclusive = if ["--help", "--version"].contains(long) { "(- *)" } else { "" };
        let names = match short {
            Some(short) if exclusive.is_empty() => format!("'({short} {long})'{{{short},{long}{equals}}}'"),
            Some(short) => format!("'{exclusive}'{{{short},{long}}}'"),
            None => format!("'{long}{equals}"),
        };
        let value = match self.value {
            Value::None => String::new(),
            Value::Text(name) => format!(":{}", name.to_lowercase().replace(':', " ")),
            Value::File(name) => format!(":{}:_files", name.to_lowercase()),
            Value::Directory(name) => format!(":{}:_directories", name.to_lowercase()),
            Value::OneOf(name, words) => format!(":{}:({})", name.to_lowercase(), words.join(" ")),
            Value::OptionalBool(name) => format!("::{}:(true false)", name.to_lowercase()),
        };
        format!("{names}[{}]{value}'", self.completion_help())
    }

    /// Returns the option as a line of a fish completion with these conditions.
    fn fish(&self, program: &str, condition: &str) -> String {
        let short = self.short.map_or(String::new(), |short| format!(" -s {}", short.trim_start_matches('-')));
        let value = match self.value {
            Value::None => String::new(),
            Value::Text(_) => " -x".into(),
            Value::File(_) => " -r -F".into(),
            Value::Directory(_) => " -x -a '(__fish_complete_directories)'".into(),
            Value::OneOf(_, words) => format!(" -x -a '{}'", words.join(" ")),
            Value::OptionalBool(_) => " -x -a 'true false'".into(),
        };
        let long = self.long.trim_start_matches('-');
        format!("complete -c {program}{condition}{short} -l {long}{value} -d '{}'\n", self.completion_help())
    }
}

impl Command {
    fn long_options(&self) -> String {
        self.options.iter().map(|option| option.long).collect::<Vec<_>>().join(" ")
    }

    fn zsh(&self) -> String {
        self.options.iter().map(Opt::zsh).collect::<Vec<_>>().join(" \\\n        ")
    }
}

/// Returns the pattern of a bash `case` for the options whose value satisfies a condition.
fn bash_pattern(commands: &[&Command], condition: impl Fn(Value) -> bool) -> String {
    let mut names: Vec<&str> = vec![];
    for option in commands.iter().flat_map(|command| command.options).filter(|option| condition(option.value)) {
        names.extend(
            option.short.into_iter().chain([option.long]).filter(|name| !names.contains(name)).collect::<Vec<_>>(),
        );
    }
    names.join(" | ")
}

/// Returns the branches of a bash `case` that complete the values of options.
fn bash_values(commands: &[&Command]) -> String {
    let mut branches = String::new();
    let mut branch = |pattern: String, action: &str| {
        if !pattern.is_empty() {
            branches += &format!("    {pattern})\n{action}        return\n        ;;\n");
        }
    };
    let complete = |flag: &str| {
        format!("        compopt -o filenames\n        mapfile -t COMPREPLY < <(compgen {flag} -- \"$word\")\n")
    };
    let words = |words: &str| format!("        mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$word\")\n");
    branch(bash_pattern(commands, |value| matches!(value, Value::Directory(_))), &complete("-d"));
    branch(bash_pattern(commands, |value| matches!(value, Value::File(_))), &complete("-f"));
    branch(bash_pattern(commands, |value| matches!(value, Value::OptionalBool(_))), &words("true false"));
    for option in commands.iter().flat_map(|command| command.options) {
        if let Value::OneOf(_, choices) = option.value {
            branch(option.long.into(), &words(&choices.join(" ")));
        }
    }
    branch(bash_pattern(commands, |value| matches!(value, Value::Text(_))), "");
    branches
}

const GENERATED: &str = "Generated from bins/src/options.rs.";

const BASH_WORDS: &str = r#"    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # `--option=value` arrives as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
"#;

fn rtftp_bash() -> String {
    let values = bash_values(&[&RTFTP, &CHECK, &STATUS]);
    let [serve, check, status] = [&RTFTP, &CHECK, &STATUS].map(Command::long_options);
    format!(
        r#"# bash completion for rtftp(8). {GENERATED}

_rtftp() {{
{BASH_WORDS}
    case $option in
{values}    esac

    local words
    case $COMP_CWORD,${{COMP_WORDS[1]}} in
    1,[!-]* | 1,) words='check status' ;;
    *,check)
        if [[ $word != -* ]]; then
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
        fi
        words='{check}'
        ;;
    *,status) words='{status}' ;;
    *) words='{serve}' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}

complete -F _rtftp rtftp
"#
    )
}

fn get_bash() -> String {
    let (values, words) = (bash_values(&[&GET]), GET.long_options());
    format!(
        r#"# bash completion for rtftp-get(1). {GENERATED}

_rtftp_get() {{
{BASH_WORDS}
    case $option in
{values}    esac

    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '{words}' -- "$word")
    elif [[ $COMP_CWORD == 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -A hostname -- "$word")
    fi
}}

complete -F _rtftp_get rtftp-get
"#
    )
}

fn rtftp_zsh() -> String {
    let [serve, check, status] = [&RTFTP, &CHECK, &STATUS].map(Command::zsh);
    format!(
        r#"#compdef rtftp
# {GENERATED}

case $words[2] in
check)
    _arguments '1:command' '2:directory:_directories' \
        {check}
    ;;
status)
    _arguments '1:command' '2:client' \
        {status}
    ;;
*)
    _arguments '1:command:((check\:"check a root directory" status\:"show the boots of a running daemon"))' \
        {serve}
    ;;
esac
"#
    )
}

fn get_zsh() -> String {
    format!("#compdef rtftp-get\n# {GENERATED}\n\n_arguments '1:host:_hosts' '2:file' \\\n        {}\n", GET.zsh())
}

fn rtftp_fish() -> String {
    let mut text = format!(
        "# {GENERATED}\n\
         complete -c rtftp -f\n\
         complete -c rtftp -n __fish_use_subcommand -a check -d 'check a root directory'\n\
         complete -c rtftp -n __fish_use_subcommand -a status -d 'show the boots of a running daemon'\n\
         complete -c rtftp -n '__fish_seen_subcommand_from check' -x -a '(__fish_complete_directories)'\n"
    );
    for (command, condition) in [
        (RTFTP, "not __fish_seen_subcommand_from check status"),
        (CHECK, "__fish_seen_subcommand_from check"),
        (STATUS, "__fish_seen_subcommand_from status"),
    ] {
        let condition = format!(" -n '{condition}'");
        command.options.iter().for_each(|option| text += &option.fish("rtftp", &condition));
    }
    text
}

fn get_fish() -> String {
    let mut text = format!(
        "# {GENERATED}\n\
         complete -c rtftp-get -f -n 'test (count (commandline -opc)) -eq 1' -a '(__fish_print_hostnames)'\n\
         complete -c rtftp-get -f\n"
    );
    GET.options.iter().for_each(|option| text += &option.fish("rtftp-get", ""));
    text
}

/// Returns README.md with the rows of the tables.
fn readme(current: &str) -> String {
    let mut parts = current.split(README_HEADER);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (command, rest) in [RTFTP, GET].iter().zip(parts) {
        let rows: String = command.options.iter().map(Opt::readme_row).collect();
        let after = rest.find("\n\n").map_or("\n", |end| &rest[end + 1..]);
        text = text + README_HEADER + &rows + after;
    }
    text
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Asserts that a file has the expected contents, or writes them if `UPDATE_OPTIONS` is set.
#[track_caller]
fn assert_file(name: &str, expected: &str) {
    if env::var_os("UPDATE_OPTIONS").is_some() {
        fs::write(path(name), expected).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let current = read(name);
    let differs = current.lines().zip(expected.lines()).find(|(current, expected)| current != expected);
    assert!(
        current == expected,
        "{name} differs from options.rs, first line found and expected: {differs:#?}\n\
         UPDATE_OPTIONS=1 cargo test -p rtftp --lib options rewrites it"
    );
}

#[test]
fn completions_match_the_tables() {
    assert_file("completions/rtftp.bash", &rtftp_bash());
    assert_file("completions/_rtftp", &rtftp_zsh());
    assert_file("completions/rtftp.fish", &rtftp_fish());
    assert_file("completions/rtftp-get.bash", &get_bash());
    assert_file("completions/_rtftp-get", &get_zsh());
    assert_file("completions/rtftp-get.fish", &get_fish());
}

#[test]
fn readme_matches_the_tables() {
    let current = read("../README.md");
    assert_eq!(current.matches(README_HEADER).count(), 2, "README.md has a table for rtftp and one for rtftp-get");
    assert_file("../README.md", &readme(&current));
}

#[test]
fn manual_pages_match_the_tables() {
    for (command, name) in
        [(RTFTP, "rtftp.8"), (CHECK, "rtftp-check.1"), (STATUS, "rtftp-status.1"), (GET, "rtftp-get.1")]
    {
        let page = read(&format!("man/{name}"));
        let missing: Vec<_> =
            command.options.iter().map(Opt::manual_entry).filter(|entry| !page.contains(entry)).collect();
        assert!(missing.is_empty(), "man/{name} lacks these lines:\n{}", missing.concat());
        assert_eq!(page.matches("\n.It Fl ").count(), command.options.len(), "man/{name} describes other options");
    }
}
