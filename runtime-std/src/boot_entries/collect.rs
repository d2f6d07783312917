//! Collects the boot entries of a disk.

use std::collections::HashSet;

use super::{
    boot_file::BootFile,
    entry::{Entry, MAX_FILES, is_plain_path, plain},
    menu::Menu,
    settings::Settings,
    sources::{DefaultEntry, Found, Sources},
    tree::{DiskTree, Served},
};

/// The maximum number of entries in a menu.
const MAX_ENTRIES: usize = 32;
/// The maximum size of all entries in bytes.
const MAX_SIZE: usize = 32 * 1024;
/// The maximum number of notes.
const MAX_NOTES: usize = 100;
/// The maximum number of characters of a path in a note.
const MAX_PATH: usize = 200;

/// Collects the boot entries of a disk for a file, from the first source that has any which the boot loader of the file can load.
///
/// # Errors
///
/// The errors of the disk.
pub async fn collect<T: DiskTree>(disk: &T, file: BootFile, settings: &Settings) -> Result<Menu, T::Error> {
    let mut sources = Sources::new(disk).await?;
    let mut menu = Menu { timeout: settings.timeout(), ..Menu::default() };
    while let Some(Found { entries, default }) = sources.next().await? {
        menu.notes.append(&mut sources.notes);
        menu.entries = usable(disk, entries, file, settings, &mut menu.notes).await?;
        if !menu.entries.is_empty() {
            let note = select_default(&mut menu, settings.default_entry(default));
            menu.notes.splice(0..0, [note].into_iter().chain(settings.note()));
            break;
        }
    }
    menu.notes.truncate(MAX_NOTES);
    Ok(menu)
}

/// Selects the default entry of a menu; returns a note that names its source.
fn select_default(menu: &mut Menu, default: Option<DefaultEntry>) -> String {
    let Some(DefaultEntry { name, source, by_number }) = default else { return "default: the first entry".into() };
    let Some(index) = position(&menu.entries, &name, by_number) else {
        menu.is_default_missing = true;
        return format!("default: the first entry; {source} is {name}, which is not in this menu");
    };
    menu.default = index;
    format!("default: {source}")
}

/// Returns the index of the entry with this identifier, which may end in `*`, or with this title or number.
fn position(entries: &[Entry], wanted: &str, by_number: bool) -> Option<usize> {
    let suffixes = [".conf", ".efi"];
    let id = plain(suffixes.iter().find_map(|suffix| wanted.strip_suffix(suffix)).unwrap_or(wanted), "._+-~*");
    let is_wanted = |entry: &Entry| match id.split_once('*') {
        Some((start, end)) => entry.id.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
        None => entry.id == id || entry.title == wanted,
    };
    let number = || wanted.parse().ok().filter(|&number| by_number && number < entries.len());
    entries.iter().position(is_wanted).or_else(number)
}

/// Returns those entries that the boot loader of the file can load, and notes why the others are left out.
async fn usable<T: DiskTree>(
    disk: &T,
    found: Vec<Entry>,
    file: BootFile,
    settings: &Settings,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, T::Error> {
    let (mut entries, mut ids, mut size) = (vec![], HashSet::new(), 0);
    for mut entry in found {
        if entries.len() == MAX_ENTRIES || size > MAX_SIZE {
            notes.push(format!("only the first {} entries are shown", entries.len()));
            break;
        }
        let normalised = entry.normalise().and_then(|()| {
            settings.apply(&mut entry);
            entry.normalise()
        });
        let reason = match normalised {
            Err(reason) => Some(reason.to_owned()),
            Ok(()) if entry.id.is_empty() || ids.contains(&entry.id) => {
                Some("an entry with its name exists".to_owned())
            }
            Ok(()) => match file.obstacle(&entry) {
                Some(obstacle) => Some(obstacle.to_owned()),
                None => locate(disk, &mut entry, notes).await?,
            },
        };
        match reason {
            Some(reason) => notes.push(format!("{} left out: {reason}", entry.source)),
            None => {
                entry.source = plain(&entry.source, "._+-~ /,=$");
                ids.insert(entry.id.clone());
                size += entry.len();
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

/// Replaces the paths of an entry by those for clients. Returns the reason if this is not possible.
async fn locate<T: DiskTree>(disk: &T, entry: &mut Entry, notes: &mut Vec<String>) -> Result<Option<String>, T::Error> {
    if entry.initrds.len().max(entry.overlays.len()) > MAX_FILES {
        return Ok(Some(format!("it has more than {MAX_FILES} initrds or overlays")));
    }
    for path in entry.files_mut() {
        match below_root(path, disk.served_file(path).await?) {
            Ok(served) => *path = served,
            Err(reason) => return Ok(Some(reason)),
        }
    }
    // U-Boot has a device tree of its own, with which most boards boot.
    if let Some(path) = entry.devicetree_directory.take() {
        match below_root(&path, disk.served_directory(&path).await?) {
            Ok(served) => entry.devicetree_directory = Some(served),
            Err(reason) => notes.push(format!("{}: without its device trees: {reason}", entry.source)),
        }
    }
    Ok(None)
}

/// Returns the path for clients, or the reason why they cannot get the file.
fn below_root(path: &str, served: Served) -> Result<String, String> {
    let path: String = path.chars().take(MAX_PATH).collect();
    match served {
        Served::At(served) if is_plain_path(&served) => Ok(served),
        Served::At(_) => Err(format!("{path} has special characters")),
        Served::Elsewhere => Err(format!("{path} is not below tftp_root")),
        Served::Missing => Err(format!("{path} not found")),
    }
}
