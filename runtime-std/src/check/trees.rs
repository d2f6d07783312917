//! The trees that files are served from: directories of this machine, and disks.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rtftp_core::RequestPath;

use super::files::{Item, Listing, MOST_NAMES, Tree};
use crate::{
    files::{LocalError, LocalFile},
    fs::{FileType, MountedDisk, MountedEntry},
    guestfs::{client::DirectoryEntry, shared::SharedAppliance},
};

/// A directory of this machine.
pub(super) struct Local {
    root: Arc<Path>,
}

impl Local {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root: root.into() }
    }
}

impl Tree for Local {
    /// The path below the root.
    type Directory = PathBuf;

    async fn top(&self) -> Result<PathBuf, String> {
        Ok(PathBuf::new())
    }

    async fn list(&self, directory: &PathBuf) -> Result<Listing<PathBuf>, String> {
        let (root, directory) = (self.root.clone(), directory.clone());
        smol::unblock(move || list_local(&root, &directory)).await
    }
}

/// Lists a directory below a root, and tries to open its files as for a client. Blocks.
fn list_local(root: &Path, directory: &Path) -> Result<Listing<PathBuf>, String> {
    let entries = fs::read_dir(root.join(directory))
        .and_then(|entries| entries.take(MOST_NAMES + 1).collect::<Result<Vec<_>, _>>());
    let mut entries = entries.map_err(|error| error.to_string())?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let list = entries.into_iter().map(|entry| {
        let name = entry.file_name().into_encoded_bytes();
        let path = directory.join(entry.file_name());
        let item = match entry.file_type() {
            Ok(kind) if kind.is_dir() => Item::Directory(path),
            // A link to a directory is none to look into: it may lead back.
            Ok(kind) if kind.is_symlink() && entry.path().is_dir() => Item::Other,
            Ok(kind) if kind.is_file() || kind.is_symlink() => open_local(root, &path),
            Ok(_) => Item::Other,
            Err(error) => Item::Unreadable(error.to_string()),
        };
        (name, item)
    });
    Ok(list.collect())
}

fn open_local(root: &Path, path: &Path) -> Item<PathBuf> {
    let path = match RequestPath::parse(path.as_os_str().as_encoded_bytes()) {
        Ok(path) => path,
        Err(error) => return Item::Unreadable(format!("cannot be asked for: {error}")),
    };
    match smol::block_on(LocalFile::open(root, &path)) {
        Ok(file) => Item::File(file.size()),
        Err(LocalError::NotFound) => Item::Unreadable("a link that leads nowhere".into()),
        Err(why) => Item::Unreadable(why.to_string()),
    }
}

/// A disk that is read natively.
impl<'v> Tree for &'v MountedDisk {
    type Directory = MountedEntry<'v>;

    async fn top(&self) -> Result<MountedEntry<'v>, String> {
        MountedDisk::root_directory(self).await.map_err(|error| error.to_string())
    }

    async fn list(&self, directory: &MountedEntry<'v>) -> Result<Listing<MountedEntry<'v>>, String> {
        let entries = MountedDisk::read_directory(self, directory).await.map_err(|error| error.to_string())?;
        let mut list = Vec::new();
        for entry in entries.into_iter().take(MOST_NAMES + 1) {
            let name = entry.name().to_vec();
            let item = match entry.file_type() {
                FileType::File => entry.size().await.map_or_else(|why| Item::Unreadable(why.to_string()), Item::File),
                FileType::Directory => Item::Directory(entry),
                FileType::Link | FileType::Other => Item::Other,
            };
            list.push((name, item));
        }
        Ok(list)
    }
}

/// A disk that libguestfs reads.
impl Tree for &SharedAppliance {
    /// The path below the description's `tftp_root`.
    type Directory = Vec<u8>;

    async fn top(&self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    async fn list(&self, directory: &Vec<u8>) -> Result<Listing<Vec<u8>>, String> {
        let listed = SharedAppliance::list(self, directory).await.map_err(|why| why.to_string())?;
        let items = listed.into_iter().map(|DirectoryEntry { name, kind, size }| {
            let item = match kind {
                FileType::File => Item::File(size),
                FileType::Directory if directory.is_empty() => Item::Directory(name.clone()),
                FileType::Directory => Item::Directory([directory, &b"/"[..], &name].concat()),
                FileType::Link | FileType::Other => Item::Other,
            };
            (name, item)
        });
        Ok(items.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use smol::block_on;

    use super::*;
    use crate::check::{Limits, files::find};

    #[test]
    fn local_files_are_those_that_clients_can_get() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("boot")).expect("a directory");
        fs::write(at("boot/vmlinuz"), "kernel").expect("a file");
        for (name, target) in [
            ("kernel8.img", "boot/vmlinuz"),
            ("loop", "."),
            ("nowhere", "boot/nothing"),
            ("out", "/proc/self/status"),
            ("boot/up", ".."),
        ] {
            symlink(target, at(name)).expect("a link");
        }
        let limits = Limits { open: Duration::from_secs(60), answer: Duration::from_secs(60) };
        let files = block_on(find(&Local::new(root.path().into()), limits));
        assert_eq!((files.count, files.bytes, files.cut), (2, 12, None));
        assert_eq!(files.kernel.map(|kernel| kernel.path).as_deref(), Some("kernel8.img"));
        let unreadable: Vec<_> = files.unreadable.iter().map(|(path, why)| (path.as_str(), why.as_str())).collect();
        let expected =
            [("nowhere", "a link that leads nowhere"), ("out", "forbidden: a symbolic link leads out of the root")];
        assert_eq!(unreadable, expected);

        let missing = block_on(find(&Local::new(at("missing")), limits));
        assert_eq!(missing.unreadable.len(), 1, "{missing:?}");
    }
}
