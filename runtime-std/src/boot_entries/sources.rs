//! The sources of boot entries on a disk.

use super::{
    bls::OrderedEntry,
    debian,
    entry::Entry,
    extlinux,
    tree::{DiskTree, read_first},
    uki,
    variables::Variables,
    version,
};

/// The maximum number of files of a directory that are read.
const MAX_FILES: usize = 32;
/// The maximum number of names of a directory that are ordered.
const MAX_NAMES: usize = 1024;
/// The directories that are the boot partition on most systems.
const BOOT_DIRECTORIES: [&str; 4] = ["/boot", "", "/efi", "/boot/efi"];
/// The environment block of GRUB.
const GRUBENV: [&str; 4] = ["/boot/grub2/grubenv", "/boot/grub/grubenv", "/grub2/grubenv", "/grub/grubenv"];

/// The entries of a source, the default first unless the source names another one.
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) default: Option<DefaultEntry>,
}

/// The default entry that a source names.
pub(super) struct DefaultEntry {
    /// The identifier or title; `*` matches any text.
    pub(super) name: String,
    /// What names it.
    pub(super) source: String,
    /// Whether a number counts the entries from 0 on.
    pub(super) by_number: bool,
}

/// The sources of a disk, one after the other.
pub(super) struct Sources<'d, T> {
    disk: &'d T,
    /// The environment block of GRUB.
    env: Variables,
    next: usize,
    /// What was left out, and why.
    pub(super) notes: Vec<String>,
}

impl<'d, T: DiskTree> Sources<'d, T> {
    pub(super) async fn new(disk: &'d T) -> Result<Self, T::Error> {
        let env = read_first(disk, &GRUBENV).await?;
        let env = env.map(|(_, text)| Variables::parse_grubenv(&text)).unwrap_or_default();
        Ok(Self { disk, env, next: 0, notes: vec![] })
    }

    /// Returns the entries of the next source; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, T::Error> {
        self.next += 1;
        Ok(Some(match self.next {
            1 => self.specified_entries().await?,
            2 => self.unified_images().await?,
            3 => self.extlinux().await?,
            4 => self.named_kernels().await?,
            _ => return Ok(None),
        }))
    }

    /// Reads the entries of the Boot Loader Specification.
    async fn specified_entries(&mut self) -> Result<Found, T::Error> {
        let mut parsed = vec![];
        for boot in BOOT_DIRECTORIES {
            let directory = format!("{boot}/loader/entries");
            let names = self.newest_files(&directory, ".conf").await?;
            if names.is_empty() {
                continue;
            }
            let mountpoint = self.disk.mountpoint(&directory).await?;
            for name in names {
                let path = format!("{directory}/{name}");
                let Some(text) = self.disk.read(&path).await? else { continue };
                let Some(mut ordered) = OrderedEntry::parse(&name, &text, &self.env) else { continue };
                path[1..].clone_into(&mut ordered.entry.source);
                // Paths start at the root of the partition that contains the entry.
                let locate = |path: &mut String| *path = format!("{mountpoint}/{}", path.trim_start_matches('/'));
                ordered.entry.files_mut().for_each(locate);
                parsed.push(ordered);
            }
        }
        let default = match self.saved_entry() {
            None => self.loader_default().await?,
            saved => saved,
        };
        Ok(Found { entries: ordered(parsed), default })
    }

    /// Reads the unified kernel images.
    async fn unified_images(&mut self) -> Result<Found, T::Error> {
        let mut parsed = vec![];
        for boot in BOOT_DIRECTORIES {
            let directory = format!("{boot}/EFI/Linux");
            for name in self.newest_files(&directory, ".efi").await? {
                let Some(mut ordered) = uki::read(self.disk, &directory, &name).await? else { continue };
                ordered.entry.source = format!("{}/{name}", &directory[1..]);
                parsed.push(ordered);
            }
        }
        Ok(Found { entries: ordered(parsed), default: self.loader_default().await? })
    }

    /// Reads the labels of `extlinux.conf`.
    async fn extlinux(&mut self) -> Result<Found, T::Error> {
        let found = read_first(self.disk, &["/boot/extlinux/extlinux.conf", "/extlinux/extlinux.conf"]).await?;
        let Some((path, text)) = found else { return Ok(Found { entries: vec![], default: None }) };
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mountpoint = self.disk.mountpoint(directory).await?;
        let mut parsed = extlinux::parse(&text, directory, &mountpoint);
        parsed.entries.iter_mut().for_each(|entry| entry.source = format!("{}, label {}", &path[1..], entry.id));
        let source = format!("default of {}", &path[1..]);
        let default = parsed.default.map(|name| DefaultEntry { name, source, by_number: false });
        Ok(Found { entries: parsed.entries, default })
    }

    /// Finds kernels by their names, and the command line of this system.
    async fn named_kernels(&mut self) -> Result<Found, T::Error> {
        for boot in ["/boot", ""] {
            let names = self.disk.list(if boot.is_empty() { "/" } else { boot }).await?;
            let mut entries = debian::entries(boot, &names);
            if entries.is_empty() {
                continue;
            }
            entries.truncate(MAX_FILES);
            let (settings, settings_source) = self.grub_settings().await?;
            let (options, source) = self.command_line(&settings, settings_source).await?;
            for entry in &mut entries {
                entry.source = format!("{}, {source}", &entry.kernel[1..]);
                options.clone_into(&mut entry.options);
            }
            let mut default = match settings.get("GRUB_DEFAULT") {
                Some("saved") => self.saved_entry(),
                Some(name) if name != "0" && !name.is_empty() => {
                    let source = "GRUB_DEFAULT of etc/default/grub".to_owned();
                    Some(DefaultEntry { name: name.to_owned(), source, by_number: false })
                }
                _ => None,
            };
            if let Some(default) = &mut default {
                // Numbers count submenus and recovery entries, too, which this menu does not have.
                default.by_number = false;
                if let Some(entry) = debian::default_of(&entries, &default.name) {
                    entry.id.clone_into(&mut default.name);
                }
            }
            return Ok(Found { entries, default });
        }
        Ok(Found { entries: vec![], default: None })
    }

    /// Returns the settings of `grub-mkconfig`, and the file that they come from.
    async fn grub_settings(&self) -> Result<(Variables, Option<&'static str>), T::Error> {
        let Some(text) = self.disk.read("/etc/default/grub").await? else { return Ok((Variables::default(), None)) };
        let mut settings = Variables::parse_assignments(&text);
        let mut names = self.disk.list("/etc/default/grub.d").await?;
        names.retain(|name| name.ends_with(".cfg"));
        names.sort();
        for name in names.iter().take(MAX_FILES) {
            if let Some(text) = self.disk.read(&format!("/etc/default/grub.d/{name}")).await? {
                settings.assign(&text);
            }
        }
        Ok((settings, Some(if names.is_empty() { "etc/default/grub" } else { "etc/default/grub and grub.d" })))
    }

    /// Returns the command line of the system, and the files that it comes from.
    async fn command_line(
        &mut self,
        settings: &Variables,
        settings_source: Option<&str>,
    ) -> Result<(String, String), T::Error> {
        let (options, mut source) = match (self.disk.read("/etc/kernel/cmdline").await?, settings_source) {
            (Some(text), _) => (text.lines().collect::<Vec<_>>().join(" "), "etc/kernel/cmdline".to_owned()),
            (None, Some(source)) => {
                let mut options = String::new();
                for name in ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"] {
                    options = format!("{options} {}", settings.get(name).unwrap_or_default());
                    if settings.needs_shell(name) {
                        self.notes.push(format!("{name} of {source} left out: it needs a shell"));
                    }
                }
                (options, source.to_owned())
            }
            (None, None) => (String::new(), "no command line on the disk".to_owned()),
        };
        if options.split_whitespace().any(|word| word.starts_with("root=")) {
            return Ok((options, source));
        }
        let fstab = self.disk.read("/etc/fstab").await?;
        let Some(root) = fstab.as_deref().and_then(debian::fstab_root) else { return Ok((options, source)) };
        source.push_str(", root= of etc/fstab");
        Ok((format!("root={root} ro {options}"), source))
    }

    /// Returns the default that GRUB has saved.
    fn saved_entry(&self) -> Option<DefaultEntry> {
        let name = self.env.get("saved_entry").filter(|name| !name.is_empty())?.to_owned();
        Some(DefaultEntry { name, source: "saved_entry of grubenv".into(), by_number: true })
    }

    /// Returns the default of systemd-boot.
    async fn loader_default(&self) -> Result<Option<DefaultEntry>, T::Error> {
        for boot in BOOT_DIRECTORIES {
            let path = format!("{boot}/loader/loader.conf");
            let Some(text) = self.disk.read(&path).await? else { continue };
            let name = text.lines().find_map(|line| line.trim().strip_prefix("default")?.strip_prefix([' ', '\t']));
            // Names with `@` mean variables of the firmware.
            let name = name.map(str::trim).filter(|name| !name.starts_with('@'));
            return Ok(name.map(|name| DefaultEntry {
                name: name.to_owned(),
                source: format!("default of {}", &path[1..]),
                by_number: false,
            }));
        }
        Ok(None)
    }

    /// Returns the names in a directory that end in a suffix, those of the highest versions first.
    async fn newest_files(&mut self, directory: &str, suffix: &str) -> Result<Vec<String>, T::Error> {
        let mut names = self.disk.list(directory).await?;
        names.retain(|name| name.len() >= suffix.len() && name.to_ascii_lowercase().ends_with(suffix));
        names.truncate(MAX_NAMES);
        names.sort_by(|one, other| version::newest_first(one, other));
        if names.len() > MAX_FILES {
            names.truncate(MAX_FILES);
            self.notes.push(format!("{}: only {MAX_FILES} files are read", &directory[1..]));
        }
        Ok(names)
    }
}

/// Returns the entries in their order.
fn ordered(mut parsed: Vec<OrderedEntry>) -> Vec<Entry> {
    parsed.sort_by(OrderedEntry::order);
    parsed.into_iter().map(|ordered| ordered.entry).collect()
}
