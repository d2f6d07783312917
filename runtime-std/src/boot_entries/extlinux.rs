//! Parses `extlinux.conf`, which u-boot-menu and images for single-board computers have.

use super::entry::Entry;

/// The maximum number of labels that are read.
const MAX_LABELS: usize = 32;

/// The entries of a configuration, and the identifier of the default one.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    pub(super) entries: Vec<Entry>,
    pub(super) default: Option<String>,
}

/// Parses the configuration in a directory. Absolute paths start at `mountpoint`, others at the directory.
pub(super) fn parse(text: &str, directory: &str, mountpoint: &str) -> Configuration {
    let mut parsed = Configuration::default();
    // What comes before the first label holds for all labels.
    let mut common = Entry::default();
    let located = |path: &str| match path.strip_prefix('/') {
        Some(path) => format!("{mountpoint}/{path}"),
        None => format!("{directory}/{path}"),
    };
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let (key, value) = split_word(line);
        let key = key.to_ascii_lowercase();
        if key == "label" && parsed.entries.len() == MAX_LABELS {
            break;
        }
        if key == "label" {
            parsed.entries.push(Entry { id: value.to_owned(), title: value.to_owned(), ..common.clone() });
            continue;
        }
        let entry = parsed.entries.last_mut().unwrap_or(&mut common);
        let paths = |separator: fn(char) -> bool| -> Vec<String> {
            value.split(separator).map(str::trim).filter(|path| !path.is_empty()).map(located).collect()
        };
        match &*key {
            "default" => parsed.default = Some(value.to_owned()),
            "menu" => {
                let (key, value) = split_word(value);
                match &*key.to_ascii_lowercase() {
                    "label" => entry.title = value.replace('^', ""),
                    "default" => parsed.default = Some(entry.id.clone()),
                    _ => {}
                }
            }
            "linux" | "kernel" => entry.kernel = located(value),
            "initrd" => entry.initrds = paths(|character| character == ','),
            "append" => {
                let initrds = value.split_whitespace().filter_map(|word| word.strip_prefix("initrd="));
                let initrds = initrds.flat_map(|paths| paths.split(',')).map(located);
                if entry.initrds.is_empty() {
                    entry.initrds = initrds.collect();
                }
                value.clone_into(&mut entry.options);
            }
            "fdt" | "devicetree" => entry.devicetree = Some(located(value)),
            "fdtdir" | "devicetreedir" => entry.devicetree_directory = Some(located(value.trim_end_matches('/'))),
            "fdtoverlays" | "devicetree-overlay" => entry.overlays = paths(char::is_whitespace),
            _ => {}
        }
    }
    // Modules of SYSLINUX are no kernels.
    parsed.entries.retain(|entry| !entry.kernel.is_empty() && !entry.kernel.ends_with(".c32"));
    parsed
}

/// Splits off the first word.
fn split_word(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_configuration_of_u_boot_menu() {
        let text = "## /boot/extlinux/extlinux.conf\ndefault l1\nmenu title Menu\nprompt 1\ntimeout 50\n\
                    label l0\n\tmenu label Debian 6.1.0-9\n\tlinux /boot/vmlinuz-6.1.0-9\n\tinitrd /boot/initrd.img-6.1.0-9\n\
                    \tfdtdir /usr/lib/linux-image-6.1.0-9/\n\n\tappend root=UUID=1 ro quiet\n\
                    label l1\n\tLINUX ../Image\n\tAPPEND initrd=/a,/b root=UUID=2\n\tfdt /dtb/board.dtb\n\tfdtoverlays /dtb/a.dtbo /dtb/b.dtbo\n\
                    label memtest\n\tkernel memtest.c32\n";
        let parsed = parse(text, "/boot/extlinux", "/boot");
        assert_eq!(parsed.default.as_deref(), Some("l1"));
        let [first, second] = &parsed.entries[..] else { panic!("{parsed:?}") };
        assert_eq!((&*first.title, &*first.kernel), ("Debian 6.1.0-9", "/boot/boot/vmlinuz-6.1.0-9"));
        assert_eq!(first.devicetree_directory.as_deref(), Some("/boot/usr/lib/linux-image-6.1.0-9"));
        assert_eq!(first.options, "root=UUID=1 ro quiet");
        assert_eq!((&*second.title, &*second.kernel), ("l1", "/boot/extlinux/../Image"));
        assert_eq!(second.initrds, ["/boot/a", "/boot/b"]);
        assert_eq!(second.devicetree.as_deref(), Some("/boot/dtb/board.dtb"));
        assert_eq!(second.overlays, ["/boot/dtb/a.dtbo", "/boot/dtb/b.dtbo"]);
    }

    #[test]
    fn common_options_hold_for_all_labels() {
        let parsed = parse(
            "append ro\nlabel a\nmenu ^label\nmenu label ^A\nkernel /k\nlabel b\nmenu default\nkernel /k\nappend rw",
            "",
            "",
        );
        let found: Vec<_> = parsed.entries.iter().map(|entry| (&*entry.title, &*entry.options)).collect();
        assert_eq!(found, [("A", "ro"), ("b", "rw")]);
        assert_eq!(parsed.default.as_deref(), Some("b"));
    }
}
