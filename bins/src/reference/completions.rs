//! Generates the completions of a program for bash, zsh and fish.

use std::fmt::Write as _;

use crate::command::{Command, Completion, Flag};

const NOTICE: &str = "# Generated from bins/src/options.rs: see bins/src/reference.rs.";

/// Returns the name of a subcommand, or `None` for the program itself.
fn subcommand(command: &Command) -> Option<&'static str> {
    command.name.split(' ').nth(1)
}

/// Returns the one-line description of a subcommand.
fn summary(name: &str) -> &'static str {
    if name == "check" { "check a root directory and its disks" } else { "show the boots of a running server" }
}

/// Returns the description of an option with its default, without markup.
fn description(option: &Flag) -> String {
    let default = option.default.map(|default| format!(" ({default})")).unwrap_or_default();
    format!("{}{default}", option.help).replace('`', "")
}

fn long_names(command: &Command) -> String {
    command.options.iter().map(|option| option.long).collect::<Vec<_>>().join(" ")
}

/// Returns the names of the options with a value of this completion, as a pattern of bash.
fn bash_pattern(commands: &[&Command], completion: Completion) -> String {
    let options = commands.iter().flat_map(|command| command.options);
    let options = options.filter(|option| option.value.is_some() && option.completion == completion);
    let mut names: Vec<&str> = options.flat_map(|option| option.short.into_iter().chain([option.long])).collect();
    // Several commands may have the same option.
    names.sort_unstable_by_key(|name| name.trim_start_matches('-'));
    names.dedup();
    names.join(" | ")
}

/// Returns the completions for bash.
pub(super) fn bash(program: &str, commands: &[&Command]) -> String {
    let function = format!("_{}", program.replace('-', "_"));
    let mut cases = String::new();
    let mut lists: Vec<Completion> = Vec::new();
    for option in commands.iter().flat_map(|command| command.options) {
        if option.value.is_some() && !lists.contains(&option.completion) {
            lists.push(option.completion);
        }
    }
    for completion in lists {
        let action = match completion {
            Completion::Nothing => "return".to_owned(),
            Completion::File => {
                "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return".into()
            }
            Completion::Directory => {
                "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$word\"); return".into()
            }
            Completion::OneOf(values) => format!("words='{values}'"),
        };
        let _ = writeln!(cases, "    {}) {action} ;;", bash_pattern(commands, completion));
    }
    let mut words = String::new();
    if program == "rtftp" {
        let names: Vec<_> = commands.iter().filter_map(|command| subcommand(command)).collect();
        let _ = writeln!(words, "        1,[!-]* | 1,) words='{}' ;;", names.join(" "));
        let _ = writeln!(
            words,
            "        *,check) [[ $word == -* ]] && words='{}' || directories=1 ;;",
            long_names(commands[1])
        );
        let _ = writeln!(words, "        *,status) words='{}' ;;", long_names(commands[2]));
    } else if program == "rtftp-get" {
        let _ = writeln!(
            words,
            "        1,[!-]* | 1,) mapfile -t COMPREPLY < <(compgen -A hostname -- \"$word\"); return ;;"
        );
        let _ = writeln!(words, "        *,*) [[ $word == -* ]] || return ;;&");
    }
    let _ = writeln!(words, "        *) words='{}' ;;", long_names(commands[0]));
    format!(
        r#"# Bash completion for {program}.
{NOTICE}

{function}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD - 1]}} words='' directories=''
    # Bash splits `--option=value` into three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi

    case $option in
{cases}    *)
        case $COMP_CWORD,${{COMP_WORDS[1]}} in
{words}        esac
        ;;
    esac
    if [[ $directories ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}}

complete -F {function} {program}
"#
    )
}

/// Returns the completions for zsh.
pub(super) fn zsh(program: &str, commands: &[&Command]) -> String {
    let mut text = format!("#compdef {program}\n{NOTICE}\n\n");
    if commands.len() > 1 {
        text.push_str("case $words[2] in\n");
        for command in &commands[1..] {
            let name = subcommand(command).unwrap_or_default();
            let operand = if name == "check" { "'2:directory:_directories'" } else { "'2:client'" };
            let _ = writeln!(text, "{name})\n    _arguments \\\n        '1:command' \\\n        {operand} \\");
            text.push_str(&zsh_options(command, "        "));
            text.push_str("    return\n    ;;\n");
        }
        text.push_str("esac\n\n");
    }
    text.push_str("_arguments \\\n");
    if commands.len() > 1 {
        let names = commands.iter().filter_map(|command| subcommand(command));
        let names: Vec<_> = names.map(|name| format!("{name}\\:\"{}\"", summary(name))).collect();
        let _ = writeln!(text, "    '1:command:(({}))' \\", names.join(" "));
    } else if program == "rtftp-get" {
        text.push_str("    '1:host:_hosts' \\\n    '2:file' \\\n");
    }
    text + &zsh_options(commands[0], "    ")
}

/// Returns an argument of `_arguments` for each option.
fn zsh_options(command: &Command, indent: &str) -> String {
    let arguments: Vec<String> =
        command.options.iter().map(|option| format!("{indent}{}", zsh_option(option))).collect();
    arguments.join(" \\\n") + "\n"
}

fn zsh_option(option: &Flag) -> String {
    let action = match option.completion {
        Completion::Nothing => String::new(),
        Completion::File => "_files".into(),
        Completion::Directory => "_directories".into(),
        Completion::OneOf(values) => format!("({values})"),
    };
    let is_optional = option.value.is_some_and(|value| value.starts_with('['));
    let value = option.value.map(|value| value.trim_matches(['[', '=', ']']).to_lowercase().replace(':', "\\:"));
    let value = value.map(|value| format!("{}:{value}:{action}", if is_optional { ":" } else { "" }));
    let (equals, value) = if value.is_some() { ("=", value.unwrap_or_default()) } else { ("", String::new()) };
    let long = option.long;
    let description = description(option).replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]");
    let exits = matches!(long, "--help" | "--version");
    match option.short {
        Some(short) if exits => format!("'(- *)'{{{short},{long}}}'[{description}]'"),
        Some(short) => format!("'({short} {long})'{{{short},{long}{equals}}}'[{description}]{value}'"),
        None => format!("'{long}{equals}[{description}]{value}'"),
    }
}

/// Returns the completions for fish.
pub(super) fn fish(program: &str, commands: &[&Command]) -> String {
    let mut text = format!("# Fish completion for {program}.\n{NOTICE}\n\ncomplete -c {program} -f\n");
    let names: Vec<_> = commands.iter().filter_map(|command| subcommand(command)).collect();
    for name in &names {
        let _ = writeln!(text, "complete -c {program} -n __fish_use_subcommand -a {name} -d '{}'", summary(name));
    }
    if program == "rtftp-get" {
        let _ = writeln!(
            text,
            "complete -c {program} -n 'test (count (commandline -opc)) -eq 1' -a '(__fish_print_hostnames)'"
        );
    }
    for command in commands {
        let condition = match subcommand(command) {
            Some(name) => format!(" -n '__fish_seen_subcommand_from {name}'"),
            None if names.is_empty() => String::new(),
            None => format!(" -n 'not __fish_seen_subcommand_from {}'", names.join(" ")),
        };
        text.push('\n');
        if subcommand(command) == Some("check") {
            let _ = writeln!(text, "complete -c {program}{condition} -a '(__fish_complete_directories)'");
        }
        for option in command.options {
            let short = option.short.map(|short| format!(" -s {}", &short[1..])).unwrap_or_default();
            let value = match (option.value, option.completion) {
                (None, _) => String::new(),
                (Some(_), Completion::Nothing) => " -x".into(),
                (Some(_), Completion::File) => " -r -F".into(),
                (Some(_), Completion::Directory) => " -x -a '(__fish_complete_directories)'".into(),
                (Some(_), Completion::OneOf(values)) => format!(" -x -a '{values}'"),
            };
            let description = description(option).replace('\'', "\\'");
            let _ = writeln!(
                text,
                "complete -c {program}{condition}{short} -l {}{value} -d '{description}'",
                &option.long[2..]
            );
        }
    }
    text
}
