//! Writes the configuration of PXELINUX and EXTLINUX, which U-Boot reads as well.

use super::{entry::Entry, menu::Menu};

/// Writes a configuration. `prefix` is put before each path: the boot loader's way from its directory to the root of the server.
pub(super) fn write(menu: &Menu, default: &Entry, prefix: &str) -> String {
    let mut lines = menu.comments();
    lines.push(format!("default {}", default.id));
    lines.push("prompt 0".into());
    // In tenths of a second; 0 waits without end.
    lines.push(format!("timeout {}", (u32::from(menu.timeout) * 10).max(1)));
    let list = |paths: &[String], separator: &str| {
        paths.iter().map(|path| format!("{prefix}{path}")).collect::<Vec<_>>().join(separator)
    };
    for entry in &menu.entries {
        lines.push(format!("label {}", entry.id));
        lines.push(format!("  # {}", entry.source));
        lines.push(format!("  menu label {}", entry.title));
        lines.push(format!("  linux {prefix}{}", entry.kernel));
        if !entry.initrds.is_empty() {
            lines.push(format!("  initrd {}", list(&entry.initrds, ",")));
        }
        lines.extend(entry.devicetree.iter().map(|path| format!("  fdt {prefix}{path}")));
        lines.extend(entry.devicetree_directory.iter().map(|path| format!("  fdtdir {prefix}{path}")));
        if !entry.overlays.is_empty() {
            lines.push(format!("  fdtoverlays {}", list(&entry.overlays, " ")));
        }
        if !entry.options.is_empty() {
            lines.push(format!("  append {}", entry.options));
        }
    }
    lines.join("\n") + "\n"
}

/// Returns the reason why PXELINUX or U-Boot cannot load an entry.
pub(super) fn obstacle(entry: &Entry) -> Option<&'static str> {
    if entry.is_efi {
        return Some("PXELINUX and U-Boot cannot load EFI programs");
    }
    ["${", "$("].iter().any(|start| entry.options.contains(start)).then_some("U-Boot would change its command line")
}
