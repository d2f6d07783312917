//! Generates the list of options of a manual page (mdoc(7)) and the table of options in README.md.

use crate::command::{Command, Flag};

const README_HEADER: &str = "| option | meaning | default |\n|---|---|---|\n";

/// Replaces the list in the section OPTIONS of a manual page.
pub(super) fn replace_manual(page: &str, command: &Command) -> String {
    let (before, rest) = page.split_once(".Sh OPTIONS\n").expect("a section OPTIONS");
    let (introduction, rest) = rest.split_once(".It ").expect("a list of options");
    let (_, after) = rest.split_once(".El\n").expect("the end of the list");
    let entries: String = command.options.iter().map(manual_entry).collect();
    format!("{before}.Sh OPTIONS\n{introduction}{entries}.El\n{after}")
}

/// Returns the entry of an option: names, description, details and default.
fn manual_entry(option: &Flag) -> String {
    let short = option.short.map(|short| format!("{} , ", &short[1..])).unwrap_or_default();
    let value = match option.value {
        Some(value) if value.starts_with('[') => format!(" Ns Op = Ns Ar {}", value.trim_matches(['[', '=', ']'])),
        Some(value) => format!(" Ar {value}"),
        None => String::new(),
    };
    let mut text = sentence(option.help);
    if !option.details.is_empty() {
        text += &format!(" {}", option.details);
    }
    if let Some(default) = option.default {
        text += &format!(" The default is {default}.");
    }
    format!(".It Fl {short}{}{value}\n{}", &option.long[1..], mdoc(&text))
}

/// Returns a phrase as a sentence.
fn sentence(phrase: &str) -> String {
    let mut characters = phrase.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    format!("{}{}.", first.into_iter().collect::<String>(), characters.as_str())
}

/// Formats text for mdoc(7): each sentence begins a line, and each literal is a macro on a line of its own.
fn mdoc(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some((literal, punctuation)) = word.strip_prefix('`').and_then(|rest| rest.split_once('`')) {
            lines.extend([literal_macro(literal, punctuation), String::new()]);
            continue;
        }
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= 80 && !line.ends_with('.') => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Returns the macro for a literal; punctuation after it consists of further arguments.
fn literal_macro(literal: &str, punctuation: &str) -> String {
    let call = match literal.strip_prefix('-').filter(|name| !name.is_empty()) {
        Some(option) => format!(".Fl {option}"),
        None if literal.starts_with(['/', '.']) => format!(".Pa {literal}"),
        None => format!(".Cm {literal}"),
    };
    call + &punctuation.chars().map(|c| format!(" {c}")).collect::<String>()
}

/// Replaces the table in README.md that begins with the command's first option.
pub(super) fn replace_readme(readme: &str, command: &Command) -> String {
    let start = format!("{README_HEADER}{}", readme_names(&command.options[0]));
    let at = readme.find(&start).expect("a table of options") + README_HEADER.len();
    let rows = readme[at..].split_inclusive('\n').take_while(|line| line.starts_with('|'));
    let end = at + rows.map(str::len).sum::<usize>();
    let table: String = command.options.iter().map(readme_row).collect();
    format!("{}{table}{}", &readme[..at], &readme[end..])
}

fn readme_row(option: &Flag) -> String {
    let default = option.default.map(|default| format!(" {default}")).unwrap_or_default();
    format!("{} {} |{default} |\n", readme_names(option), option.help)
}

fn readme_names(option: &Flag) -> String {
    let short = option.short.map(|short| format!("`{short}`, ")).unwrap_or_default();
    format!("| {short}`{}{}` |", option.long, option.value_suffix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_literals_and_punctuation_for_mdoc() {
        assert_eq!(mdoc("Use `a`, not `-b`. It is /c."), "Use\n.Cm a ,\nnot\n.Fl b .\nIt is /c.\n");
        assert_eq!(mdoc("`/x`"), ".Pa /x\n");
    }
}
