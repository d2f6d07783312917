//! Kernels that are found by their names, as Debian and Ubuntu name them.

use std::collections::HashSet;

use super::{entry::Entry, version};

/// The maximum number of kernels: their order must not take long.
const MAX_KERNELS: usize = 1024;
/// The ends of the names of files that are no kernels.
const OTHERS: [&str; 7] = [".old", ".bak", ".sig", ".hmac", ".dpkg-new", ".dpkg-tmp", "~"];

/// Returns an entry for each kernel `vmlinuz-VERSION` among the names in the directory `boot`, the highest version first.
pub(super) fn entries(boot: &str, names: &[String]) -> Vec<Entry> {
    let is_kernel = |version: &&str| !version.is_empty() && !OTHERS.iter().any(|end| version.ends_with(end));
    let versions = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).filter(is_kernel);
    let mut versions: Vec<&str> = versions.take(MAX_KERNELS).collect();
    versions.sort_by(|one, other| version::newest_first(one, other));
    let names: HashSet<&str> = names.iter().map(String::as_str).collect();
    let entry = |version: &str| {
        let initrds = [
            format!("initrd.img-{version}"),
            format!("initrd-{version}"),
            format!("initramfs-{version}.img"),
            format!("initramfs-{version}"),
        ];
        let initrd = initrds.iter().find(|name| names.contains(name.as_str())).map(|name| format!("{boot}/{name}"));
        Entry {
            id: version.to_owned(),
            title: format!("Linux {version}"),
            kernel: format!("{boot}/vmlinuz-{version}"),
            initrds: initrd.into_iter().collect(),
            ..Entry::default()
        }
    };
    versions.into_iter().map(entry).collect()
}

/// Returns the entry that a default of `grub-mkconfig` means: a title, or an identifier with the version, after those of submenus.
pub(super) fn default_of<'e>(entries: &'e [Entry], wanted: &str) -> Option<&'e Entry> {
    let wanted = wanted.rsplit('>').next().unwrap_or_default();
    if wanted == "0" || wanted.starts_with("gnulinux-simple-") {
        return entries.first();
    }
    entries.iter().find(|Entry { id, .. }| {
        wanted.starts_with(&format!("gnulinux-{id}-advanced-")) || wanted.ends_with(&format!(", with Linux {id}"))
    })
}

/// Returns the file system that `/etc/fstab` mounts on `/`, as in `root=`.
pub(super) fn fstab_root(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let source = fields.next().filter(|source| !source.starts_with('#'))?;
        (fields.next() == Some("/")).then_some(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lists_kernels_by_version_with_their_initrds() {
        let names = names(&[
            "vmlinuz-6.1.0-9",
            "initrd.img-6.1.0-10",
            "vmlinuz-6.1.0-10",
            "vmlinuz-6.1.0-11.old",
            "vmlinuz",
            "vmlinuz-",
        ]);
        let entries = entries("/boot", &names);
        let found: Vec<_> = entries.iter().map(|entry| (&*entry.kernel, entry.initrds.clone())).collect();
        assert_eq!(
            found,
            [
                ("/boot/vmlinuz-6.1.0-10", vec!["/boot/initrd.img-6.1.0-10".to_owned()]),
                ("/boot/vmlinuz-6.1.0-9", vec![])
            ]
        );
    }

    #[test]
    fn finds_the_entries_that_grub_mkconfig_names() {
        let entries = entries("/boot", &names(&["vmlinuz-6.1.0-10-amd64", "vmlinuz-6.1.0-9-amd64"]));
        for (wanted, expected) in [
            ("0", Some("6.1.0-10-amd64")),
            ("gnulinux-simple-1234", Some("6.1.0-10-amd64")),
            ("gnulinux-advanced-1234>gnulinux-6.1.0-9-amd64-advanced-1234", Some("6.1.0-9-amd64")),
            ("Advanced options for Debian>Debian GNU/Linux, with Linux 6.1.0-9-amd64", Some("6.1.0-9-amd64")),
            ("gnulinux-6.1.0-9-amd64-recovery-1234", None),
            ("1>2", None),
        ] {
            assert_eq!(default_of(&entries, wanted).map(|entry| &*entry.id), expected, "{wanted}");
        }
    }

    #[test]
    fn finds_the_root_in_fstab() {
        let fstab = "# UUID=0 / ext4\nUUID=1 /boot ext4 defaults 0 2\nUUID=2\t/ ext4 defaults 0 1\n";
        assert_eq!(fstab_root(fstab), Some("UUID=2"));
        assert_eq!(fstab_root("proc /proc proc"), None);
    }
}
