//! What boots from a disk: the boot menus that are generated from it, and its EFI programs.

use rtftp_core::{
    RequestPath,
    config::disk::{BootDefault, DiskConfig},
};
use serde::Serialize;

use crate::{
    boot_entries::{BootFile, DiskTree, Entry, Menu, Settings, collect, signers},
    fs::{Error, MountedDisk, ResolveError},
    text::printable,
};

/// The files that are generated, by the names that most boot loaders ask for.
const FILES: [(&str, BootFile); 3] = [
    ("grub/grub.cfg", BootFile::Grub),
    ("boot.ipxe", BootFile::Ipxe),
    ("pxelinux.cfg/default", BootFile::Pxelinux { depth: 0 }),
];
/// The directories that are the EFI system partition on most systems.
const EFI_DIRECTORIES: [&str; 4] = ["/boot/efi/EFI", "/efi/EFI", "/boot/EFI", "/EFI"];
/// The number of EFI programs that are reported.
const MAX_PROGRAMS: usize = 32;

/// What boots from a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// The entries of the menu for GRUB.
    pub entries: Vec<BootEntry>,
    /// The identifier of the default entry; `None` if there are no entries.
    pub default: Option<String>,
    /// Where the default comes from, and what is left out with the reason, also from the menus for iPXE, PXELINUX and U-Boot.
    pub notes: Vec<String>,
    /// The boot loaders and kernels that are EFI programs.
    pub programs: Vec<Program>,
    /// The default that the description names, if it is not among the entries.
    #[serde(skip)]
    pub missing_default: Option<String>,
}

/// An entry of a generated boot menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    /// The identifier.
    pub id: String,
    /// The title for people.
    pub title: String,
    /// The files of the disk that the entry comes from.
    pub source: String,
    /// The path of the kernel below the served directory.
    pub kernel: String,
    /// The paths of the initial RAM disks below the served directory.
    pub initrds: Vec<String>,
    /// The command line of the kernel.
    pub options: String,
}

/// An EFI program on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// The path on the disk.
    pub path: String,
    /// The names of those who have signed it; empty if it is not signed.
    pub signers: Vec<String>,
}

impl From<&Entry> for BootEntry {
    fn from(entry: &Entry) -> Self {
        let Entry { id, title, source, kernel, initrds, options, .. } = entry.clone();
        Self { id, title, source, kernel, initrds, options }
    }
}

/// Finds out what boots from a disk. Errors are among the notes.
pub(super) async fn check(disk: &MountedDisk, config: &DiskConfig) -> Boot {
    let mut boot = Boot::default();
    if let Err(error) = disk.with_budget(add_menus(&mut boot, disk, config)).await {
        boot.notes.push(format!("boot entries: {error}"));
    }
    if let Err(error) = disk.with_budget(add_programs(&mut boot, disk, &config.tftp_root)).await {
        boot.notes.push(format!("EFI programs: {error}"));
    }
    boot
}

/// Adds the menu for GRUB, and what other boot loaders cannot load.
async fn add_menus(boot: &mut Boot, disk: &MountedDisk, config: &DiskConfig) -> Result<(), Error> {
    let settings = Settings::from(&config.boot);
    for (name, file) in FILES {
        let menu = collect(disk, file, &settings).await?;
        if boot.entries.is_empty() {
            boot.default = menu.default_entry().map(|entry| entry.id.clone());
            boot.entries = menu.entries.iter().map(BootEntry::from).collect();
            if let (true, BootDefault::Id(id)) = (menu.is_default_missing, &config.boot.default) {
                boot.missing_default = Some(id.as_str().to_owned());
            }
        }
        add_notes(boot, &menu);
        if let Some(entry) = menu.default_entry().filter(|entry| Some(&entry.id) != boot.default.as_ref()) {
            boot.notes.push(format!("{name}: the default is {}", entry.id));
        }
        let path = RequestPath::parse(name.as_bytes()).ok();
        let is_on_disk = match path {
            Some(path) if !menu.entries.is_empty() => match disk.find_file(&path).await {
                Ok(_) => true,
                Err(ResolveError::FileSystem(error)) => return Err(error),
                Err(_) => false,
            },
            _ => false,
        };
        if is_on_disk {
            boot.notes.push(format!("{name} is on the disk, and is not generated"));
        }
    }
    if let Some(image) = collect(disk, BootFile::Image, &settings).await?.default_entry() {
        boot.notes.push(format!("boot.efi is {}", printable(image.kernel.as_bytes())));
    }
    Ok(())
}

/// Adds the notes of a menu that are not there yet.
fn add_notes(boot: &mut Boot, menu: &Menu) {
    for note in &menu.notes {
        let note = printable(note.as_bytes());
        let is_of_default = note.starts_with("default: ") && !boot.notes.is_empty();
        if !is_of_default && !boot.notes.contains(&note) {
            boot.notes.push(note);
        }
    }
}

/// Adds the EFI programs: boot loaders, unified kernel images, and the kernels of the menu.
async fn add_programs(boot: &mut Boot, disk: &MountedDisk, tftp_root: &str) -> Result<(), Error> {
    let root = tftp_root.trim_end_matches('/');
    let mut paths: Vec<String> = boot.entries.iter().map(|entry| format!("{root}/{}", entry.kernel)).collect();
    for directory in EFI_DIRECTORIES {
        for vendor in DiskTree::list(disk, directory).await? {
            let directory = format!("{directory}/{vendor}");
            let names = DiskTree::list(disk, &directory).await?;
            let programs = names.iter().filter(|name| name.to_ascii_lowercase().ends_with(".efi"));
            paths.extend(programs.map(|name| format!("{directory}/{name}")));
        }
        // The same directory may have several names.
        if paths.len() > boot.entries.len() {
            break;
        }
    }
    for path in paths {
        if boot.programs.len() == MAX_PROGRAMS {
            boot.notes.push(format!("only the first {MAX_PROGRAMS} EFI programs are shown"));
            break;
        }
        let path_text = printable(&path.as_bytes()[1..]);
        if boot.programs.iter().any(|program| program.path == path_text) {
            continue;
        }
        if let Some(signers) = signers(disk, &path).await? {
            let signers = signers.iter().map(|signer| printable(signer.as_bytes())).collect();
            boot.programs.push(Program { path: path_text, signers });
        }
    }
    Ok(())
}
