//! Writes the configuration of GRUB.

use super::{
    entry::{Entry, words},
    menu::Menu,
};

/// Writes a `grub.cfg`. Its paths start at the root of the server that GRUB was loaded from.
pub(super) fn write(menu: &Menu, default: &Entry) -> String {
    let mut lines = menu.comments();
    lines.push(format!("set default='{}'", default.id));
    lines.push(format!("set timeout={}", menu.timeout));
    for entry in &menu.entries {
        lines.push(format!("menuentry '{}' --id '{}' {{", entry.title, entry.id));
        lines.push(format!("  # {}", entry.source));
        let options: String = words(&entry.options).into_iter().map(|word| format!(" {}", quoted(word))).collect();
        let command = match (entry.is_efi, entry.has_own_options) {
            (true, true) => format!("chainloader /{}", entry.kernel),
            (true, false) => format!("chainloader /{}{options}", entry.kernel),
            (false, _) => format!("linux /{}{options}", entry.kernel),
        };
        lines.push(format!("  {command}"));
        if !entry.initrds.is_empty() {
            let paths: String = entry.initrds.iter().map(|path| format!(" /{path}")).collect();
            lines.push(format!("  initrd{paths}"));
        }
        lines.extend(entry.devicetree.iter().map(|path| format!("  devicetree /{path}")));
        let unused = entry.devicetree_directory.iter().chain(&entry.overlays);
        lines.extend(unused.map(|path| format!("  # GRUB cannot select {path}")));
        lines.push("}".into());
    }
    lines.join("\n") + "\n"
}

/// Quotes a word of a command line, without its own double quotes: GRUB adds them around words with blanks.
fn quoted(word: &str) -> String {
    let word = word.replace('"', "");
    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._+-~@=,:%".contains(&byte)) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_end_a_command() {
        for (word, expected) in [
            ("root=UUID=1-2", "root=UUID=1-2"),
            ("a;reboot", "'a;reboot'"),
            ("${x}", "'${x}'"),
            ("}", "'}'"),
            ("a'b", r"'a'\''b'"),
            (r"a\", r"'a\'"),
            (r#"a="b c""#, "'a=b c'"),
            (r#""""#, "''"),
            ("#", "'#'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
