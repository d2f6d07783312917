//! Parses entries of the Boot Loader Specification, and orders them.

use std::cmp::{Ordering, Reverse};

use super::{
    entry::{Entry, MAX_OPTIONS},
    variables::Variables,
    version,
};

/// An entry, and the fields by which the Boot Loader Specification orders it.
#[derive(Debug, Default)]
pub(super) struct OrderedEntry {
    pub(super) entry: Entry,
    /// Whether boot counting has found the entry to be bad.
    is_bad: bool,
    pub(super) sort_key: Option<String>,
    machine_id: String,
    pub(super) version: String,
}

impl OrderedEntry {
    /// Creates the entry of a file with this name, without its suffix.
    pub(super) fn new(name: &str) -> Self {
        let (id, is_bad) = without_counter(name);
        Self { entry: Entry { id: id.to_owned(), ..Entry::default() }, is_bad, ..Self::default() }
    }

    /// Parses the file `name`, which ends in `.conf`. Paths stay as they are in the file. Returns `None` if it loads nothing.
    pub(super) fn parse(name: &str, text: &str, env: &Variables) -> Option<Self> {
        let mut parsed = Self::new(name.strip_suffix(".conf")?);
        let entry = &mut parsed.entry;
        let mut title = "";
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once([' ', '\t']) else { continue };
            let value = value.trim();
            match key {
                "title" => title = value,
                "version" => value.clone_into(&mut parsed.version),
                "machine-id" => value.clone_into(&mut parsed.machine_id),
                "sort-key" => parsed.sort_key = Some(value.to_owned()),
                "linux" => {
                    value.clone_into(&mut entry.kernel);
                    entry.is_efi = false;
                }
                "efi" | "uki" if entry.kernel.is_empty() => {
                    value.clone_into(&mut entry.kernel);
                    entry.is_efi = true;
                }
                // GRUB expands variables here, too: `$tuned_initrd`.
                "initrd" if entry.initrds.iter().map(String::len).sum::<usize>() <= MAX_OPTIONS => {
                    entry.initrds.extend(env.expand(value).split_whitespace().map(str::to_owned));
                }
                // A longer command line is rejected, however it goes on.
                "options" if entry.options.len() <= MAX_OPTIONS => {
                    entry.options.push(' ');
                    entry.options.push_str(&env.expand(value));
                }
                "devicetree" => entry.devicetree = Some(value.to_owned()),
                "devicetree-overlay" => entry.overlays.extend(value.split_whitespace().map(str::to_owned)),
                _ => {}
            }
        }
        let version = parsed.version.clone();
        parsed.set_title(title.to_owned(), &version);
        (!parsed.entry.kernel.is_empty()).then_some(parsed)
    }

    /// Sets the title: the name of the operating system, if there is one, and the version.
    pub(super) fn set_title(&mut self, title: String, version: &str) {
        self.entry.title = if title.is_empty() {
            self.entry.id.clone()
        } else if version.is_empty() || title.contains(version) {
            title
        } else {
            format!("{title} ({version})")
        };
    }

    /// Compares two entries by their order in the menu: the first one is the default.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let keys = match (&self.sort_key, &other.sort_key) {
            (Some(key), Some(other_key)) => key
                .cmp(other_key)
                .then_with(|| self.machine_id.cmp(&other.machine_id))
                .then_with(|| version::compare(&other.version, &self.version)),
            (key, other_key) => Reverse(key.is_some()).cmp(&Reverse(other_key.is_some())),
        };
        let names = || version::newest_first(&self.entry.id, &other.entry.id);
        self.is_bad.cmp(&other.is_bad).then(keys).then_with(names)
    }
}

/// Removes the counter of boot counting, `+LEFT` or `+LEFT-DONE`, from the end of a name; returns whether no try is left.
fn without_counter(name: &str) -> (&str, bool) {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((id, counter)) = name.rsplit_once('+') else { return (name, false) };
    let (left, done) = counter.split_once('-').map_or((counter, None), |(left, done)| (left, Some(done)));
    if id.is_empty() || !is_number(left) || !done.is_none_or(is_number) {
        return (name, false);
    }
    (id, left.bytes().all(|digit| digit == b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(files: &[(&str, &str)]) -> Vec<String> {
        let env = Variables::default();
        let parse = |(name, fields): &(&str, &str)| {
            OrderedEntry::parse(&format!("{name}.conf"), &format!("linux /k\n{fields}"), &env).expect("an entry")
        };
        let mut entries: Vec<_> = files.iter().map(parse).collect();
        entries.sort_by(OrderedEntry::order);
        entries.into_iter().map(|parsed| parsed.entry.id).collect()
    }

    #[test]
    fn orders_entries_as_specified() {
        for files in [
            // The expected order; the files are given in reverse.
            &[("6.1.10", ""), ("6.1.9", ""), ("6.1.9~rc1", "")][..],
            &[("x", "sort-key a\nversion 1"), ("z", "sort-key b\nversion 9"), ("zz", "")],
            &[("a", "sort-key d\nmachine-id 1\nversion 1"), ("b", "sort-key d\nmachine-id 2\nversion 2")],
            &[("a", "sort-key d\nversion 10"), ("b", "sort-key d\nversion 9")],
            &[("old", ""), ("new+0-3", ""), ("a+0", "")],
        ] {
            let expected: Vec<_> = files.iter().map(|(name, _)| without_counter(name).0.to_owned()).collect();
            let reversed: Vec<_> = files.iter().rev().copied().collect();
            assert_eq!(order(&reversed), expected);
        }
    }

    #[test]
    fn removes_boot_counters() {
        for (name, expected) in [
            ("x+3-0", ("x", false)),
            ("x+0-3", ("x", true)),
            ("x+2", ("x", false)),
            ("6.10.11+deb13-amd64", ("6.10.11+deb13-amd64", false)),
            ("x+", ("x+", false)),
        ] {
            assert_eq!(without_counter(name), expected, "{name}");
        }
    }

    #[test]
    fn parses_repeated_keys_and_variables() {
        let env = Variables::parse_grubenv("kernelopts=root=UUID=1 ro");
        let text = "# comment\ntitle Fedora\nversion 6.1\nlinux\t/vmlinuz\ninitrd /a $tuned_initrd\ninitrd /b\n\
                    options $kernelopts\noptions quiet\ndevicetree /dtb\nunknown x\n";
        let entry = OrderedEntry::parse("f.conf", text, &env).expect("an entry").entry;
        assert_eq!(
            (&*entry.title, &*entry.kernel, entry.options.trim()),
            ("Fedora (6.1)", "/vmlinuz", "root=UUID=1 ro quiet")
        );
        assert_eq!(
            (entry.initrds, entry.devicetree),
            (vec!["/a".to_owned(), "/b".to_owned()], Some("/dtb".to_owned()))
        );
        assert!(OrderedEntry::parse("f.conf", "title nothing", &env).is_none());
    }
}
