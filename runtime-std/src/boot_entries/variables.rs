//! Variables of GRUB's environment block and of files that a shell reads, such as `/etc/default/grub` and `os-release`.

/// The maximum length of a value in bytes: a disk could double it in each line.
const MAX_VALUE: usize = 8192;

/// Variables and their values.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<Variable>);

#[derive(Debug)]
struct Variable {
    name: String,
    /// `None` if only a shell can determine it.
    value: Option<String>,
}

impl Variables {
    /// Parses an environment block of GRUB: lines `name=value`, filled up with `#`. A backslash quotes the next character.
    pub(super) fn parse_grubenv(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let variable = |line: &str| {
            let (name, value) = line.split_once('=')?;
            let mut characters = value.chars();
            let mut unquoted = String::with_capacity(value.len());
            while let Some(character) = characters.next() {
                unquoted.extend(if character == '\\' { characters.next() } else { Some(character) });
            }
            Some(Variable { name: name.to_owned(), value: Some(unquoted) })
        };
        Self(lines.filter_map(variable).collect())
    }

    /// Parses the assignments in a file that a shell reads.
    pub(super) fn parse_assignments(text: &str) -> Self {
        let mut variables = Self::default();
        variables.assign(text);
        variables
    }

    /// Adds the assignments in a file that a shell reads after others. Quotes and variables are replaced; commands are not run.
    pub(super) fn assign(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim();
            let Some((name, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=') else { continue };
            if name.is_empty() || !name.chars().all(is_name_character) {
                continue;
            }
            let value = self.evaluate(value);
            self.0.retain(|variable| variable.name != name);
            self.0.push(Variable { name: name.to_owned(), value });
        }
    }

    /// Returns the value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|variable| variable.name == name)?.value.as_deref()
    }

    /// Returns whether a variable is set to a value that only a shell can determine.
    pub(super) fn needs_shell(&self, name: &str) -> bool {
        self.0.iter().any(|variable| variable.name == name && variable.value.is_none())
    }

    /// Replaces `$name` and `${name}` by the values of the variables. Variables that are not set become empty, as in GRUB.
    /// The result is cut off if it is longer than any command line.
    pub(super) fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut parts = text.split('$');
        expanded.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let (name, rest) = split_name(part);
            if name.is_empty() {
                expanded.push('$');
            }
            expanded.push_str(self.get(name).unwrap_or_default());
            expanded.push_str(rest);
            if expanded.len() > MAX_VALUE {
                break;
            }
        }
        expanded
    }

    /// Returns the value that a shell assigns; `None` if it would run a command for it, or if it ends on another line.
    fn evaluate(&self, value: &str) -> Option<String> {
        let (mut text, mut quote, mut rest) = (String::with_capacity(value.len()), None, value);
        while let Some(character) = rest.chars().next() {
            if text.len() > MAX_VALUE {
                return None;
            }
            rest = &rest[character.len_utf8()..];
            match (quote, character) {
                (Some(open), _) if character == open => quote = None,
                (None, '\'' | '"') => quote = Some(character),
                (Some('"'), '\\') if !rest.starts_with(['"', '\\', '$', '`']) => text.push(character),
                (None | Some('"'), '\\') => {
                    let quoted = rest.chars().next()?;
                    text.push(quoted);
                    rest = &rest[quoted.len_utf8()..];
                }
                (None | Some('"'), '`') => return None,
                (None | Some('"'), '$') => {
                    let (name, after) = split_name(rest);
                    if name.is_empty() && rest.starts_with(['(', '{']) || self.needs_shell(name) {
                        return None;
                    }
                    text.push_str(if name.is_empty() { "$" } else { self.get(name).unwrap_or_default() });
                    rest = after;
                }
                (None, ' ' | '\t' | ';' | '&' | '|') => break,
                _ => text.push(character),
            }
        }
        quote.is_none().then_some(text)
    }
}

/// Splits the text after a `$` into the name of a variable, which may be in braces, and the rest.
fn split_name(text: &str) -> (&str, &str) {
    let braced = text.strip_prefix('{').and_then(|text| text.split_once('}'));
    match braced.filter(|(name, _)| name.chars().all(is_name_character)) {
        Some(braced) => braced,
        None => text.split_at(text.find(|character| !is_name_character(character)).unwrap_or(text.len())),
    }
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_variables_once() {
        let env = Variables::parse_grubenv(
            "# GRUB Environment Block\nkernelopts=root=/dev/a ro $x\nsaved_entry=a\\\\b\n#####",
        );
        assert_eq!(env.get("saved_entry"), Some("a\\b"));
        for (text, expected) in [
            ("$kernelopts $tuned_params quiet", "root=/dev/a ro $x  quiet"),
            ("${kernelopts}s", "root=/dev/a ro $xs"),
            ("a$ b$", "a$ b$"),
            ("${open", "${open"),
        ] {
            assert_eq!(env.expand(text), expected, "{text}");
        }
    }

    #[test]
    fn evaluates_assignments_as_the_shell_does() {
        for (text, expected) in [
            ("A=\"a b\" # c", Some("a b")),
            ("A='a=\"b c\"'", Some("a=\"b c\"")),
            ("A=\"x\\\"y\\\" \\d\"", Some("x\"y\" \\d")),
            ("#A=a", None),
            ("export A=a\nA=\"$A b${A}\"", Some("a ba")),
            ("B=1\nA='$B'\"$B$C\"", Some("$B1")),
            ("A=b#c;d", Some("b#c")),
            ("A=$", Some("$")),
            ("A=$(reboot)", None),
            ("A=`reboot`", None),
            ("A=${B:-1}", None),
            ("A=\"open", None),
            ("B=$(x)\nA=\"$B c\"", None),
            ("if A=1", None),
            (&format!("A=x\n{}", "A=$A$A\n".repeat(100)), None),
        ] {
            let variables = Variables::parse_assignments(text);
            assert_eq!(variables.get("A"), expected, "{text}");
            assert_eq!(variables.needs_shell("A"), expected.is_none() && !text.starts_with(['#', 'i']), "{text}");
        }
    }
}
