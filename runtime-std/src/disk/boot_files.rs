//! Boot menus that are generated from the files on a disk.

use rtftp_core::RequestPath;

use super::{
    Contents, DiskError, RemoteFile, generated_file::GeneratedFile, handle::Disk, lookup::Lookup, snapshot::Snapshot,
};
use crate::{
    boot_entries::{BootFile, DiskTree, Menu, Served, Settings, collect},
    fs::{self, MountedDisk},
};

/// The maximum size in bytes of a file that describes boot entries.
const MAX_FILE: usize = 16 * 1024;

/// A file that is made of the boot entries of a disk.
#[derive(Debug)]
pub(crate) enum Made {
    /// A menu.
    Menu(GeneratedFile),
    /// The unified kernel image of the entry with this title.
    Image(Box<RemoteFile>, Box<str>),
}

/// Makes a file of the boot entries of a disk, in the snapshot of the current boot. Returns `None` if it has none.
pub(super) async fn generate(disk: &Disk, file: BootFile, settings: &Settings) -> Result<Option<Made>, DiskError> {
    let (mut lookup, mut before) = (Lookup::new(disk), None);
    let menu = loop {
        let collected = match lookup.snapshot().await {
            Ok(snapshot) => collect_in(&snapshot, file, settings).await,
            Err(error) => Err(error),
        };
        if let Some(result) = lookup.finish(collected).await {
            let menu = result?;
            if !lookup.must_confirm(before.as_ref() == Some(&menu))? {
                break menu;
            }
            before = Some(menu);
        }
    };
    if file == BootFile::Image {
        return open_image(disk, &menu).await;
    }
    disk.remember(&menu);
    let text = file.write(&menu).map(|text| GeneratedFile::new(disk, text)).transpose()?;
    Ok(text.map(Made::Menu))
}

/// Opens the kernel of the default entry.
async fn open_image(disk: &Disk, menu: &Menu) -> Result<Option<Made>, DiskError> {
    let Some(entry) = menu.default_entry() else { return Ok(None) };
    let Ok(path) = RequestPath::parse(entry.kernel.as_bytes()) else { return Ok(None) };
    let image = Box::pin(RemoteFile::open(disk, &path)).await?;
    Ok(Some(Made::Image(image.into(), (*entry.title).into())))
}

async fn collect_in(snapshot: &Snapshot, file: BootFile, settings: &Settings) -> Result<Menu, DiskError> {
    match snapshot.contents() {
        Contents::Native(mounted) => Ok(mounted.with_budget(collect(mounted, file, settings)).await?),
        // The helper opens only files below the tftp_root.
        Contents::Guestfs(_) => Ok(Menu::default()),
    }
}

impl DiskTree for MountedDisk {
    type Error = fs::Error;

    async fn list(&self, directory: &str) -> Result<Vec<String>, fs::Error> {
        let names = self.list_directory(directory).await?;
        Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect())
    }

    async fn read(&self, path: &str) -> Result<Option<String>, fs::Error> {
        let bytes = self.read_file(path, MAX_FILE).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn read_part(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>, fs::Error> {
        self.read_file_part(path, offset, len).await
    }

    async fn served_file(&self, path: &str) -> Result<Served, fs::Error> {
        Ok(served(self, self.real_path(path).await?))
    }

    async fn served_directory(&self, path: &str) -> Result<Served, fs::Error> {
        Ok(served(self, self.real_directory(path).await?))
    }

    async fn mountpoint(&self, path: &str) -> Result<String, fs::Error> {
        Ok(String::from_utf8_lossy(Self::mountpoint(self, path).await?).into_owned())
    }
}

/// Returns the location of a real path, if there is one.
fn served(disk: &MountedDisk, real: Option<Vec<u8>>) -> Served {
    let Some(real) = real else { return Served::Missing };
    let below = disk.below_root(&real).map(|below| String::from_utf8_lossy(below).into_owned());
    below.map_or(Served::Elsewhere, Served::At)
}
