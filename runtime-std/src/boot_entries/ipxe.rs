//! Writes scripts of iPXE.

use super::{
    entry::{Entry, words},
    menu::Menu,
};

/// Writes a script. Its paths are relative to its own URL, in the root of the server.
pub(super) fn write(menu: &Menu, default: &Entry) -> String {
    let mut lines = vec!["#!ipxe".into()];
    lines.extend(menu.comments());
    lines.push("menu Boot entries".into());
    lines.extend(menu.entries.iter().map(|entry| format!("item {} {}", entry.id, entry.title)));
    // 0 waits without end.
    let milliseconds = (u32::from(menu.timeout) * 1000).max(1);
    lines.push(format!(
        "choose --default {} --timeout {milliseconds} target && goto ${{target}} || goto /failed",
        default.id
    ));
    for entry in &menu.entries {
        lines.push(format!(":{}", entry.id));
        lines.push(format!("# {}", entry.source));
        lines.push("imgfree".into());
        // Needed under UEFI, where the kernel loads them by these names.
        let names = entry.initrds.iter().filter_map(|path| path.rsplit('/').next());
        let names: String = names.map(|name| format!(" initrd={name}")).collect();
        // iPXE gives every EFI program arguments, which replace the command line that it contains.
        let options = if entry.options.is_empty() { String::new() } else { format!(" {}", entry.options) };
        lines.push(format!("kernel {}{names}{options} || goto /failed", entry.kernel));
        lines.extend(entry.initrds.iter().map(|path| format!("initrd {path} || goto /failed")));
        lines.push("boot || goto /failed".into());
    }
    // No identifier has a slash.
    lines.extend([":/failed".into(), "shell".into()]);
    lines.join("\n") + "\n"
}

/// Returns the reason why iPXE cannot load an entry.
pub(super) fn obstacle(entry: &Entry) -> Option<&'static str> {
    if entry.devicetree.is_some() {
        return Some("iPXE cannot load its device tree");
    }
    (!is_expressible(&entry.options)).then_some("iPXE would change its command line")
}

/// Returns whether iPXE, which has no quotes, passes a command line on unchanged.
fn is_expressible(options: &str) -> bool {
    let is_operator = |word: &str| matches!(word, "&&" | "||" | ";") || word.starts_with('#');
    !options.contains("${")
        && !options.contains("  ")
        && !options.split(' ').any(is_operator)
        && !words(options).iter().any(|word| word.contains(['"', '\'', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_with_syntax_of_ipxe_are_not_expressible() {
        for options in ["a && shell", "a || b", "a ; b", "a ${net0/mac}", "#x", "a=\"b c\"", r"a\"] {
            assert!(!is_expressible(options), "{options}");
        }
        assert!(is_expressible("root=UUID=1 ro console=ttyS0,115200n8 a;b"));
    }
}
