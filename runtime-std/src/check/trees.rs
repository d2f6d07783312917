//! The directory trees that files are served from: local directories and disks.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rtftp_core::RequestPath;

use super::files::{Entry, Listing, MAX_NAMES, Tree};
use crate::{
    client_name::ClientName,
    files::{LocalError, LocalFile, OpenFile, Origin},
    fs::{FileType, MountedDisk, MountedEntry},
    guestfs::{SharedAppliance, wire::DirectoryEntry},
    local_fs::RootDirectory,
};

/// A directory in the root directory.
pub(super) struct LocalTree {
    root: Arc<RootDirectory>,
    name: String,
}

impl LocalTree {
    pub(super) fn new(root: Arc<RootDirectory>, name: String) -> Self {
        Self { root, name }
    }

    /// Opens a file as for a client.
    async fn open(&self, path: &RequestPath) -> Result<OpenFile, String> {
        let root = self.root.open().await.map_err(|error| error.to_string())?;
        let origin = ClientName::parse(&self.name).map_or(Origin::Default, Origin::Client);
        match LocalFile::open(&root, &self.name, path).await {
            Ok(file) => Ok(OpenFile::local(file, origin)),
            Err(LocalError::NotFound) => Err("dangling symbolic link".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the size of a file, or the reason why no client can read it.
    async fn size(&self, path: &Path) -> Result<u64, String> {
        let request = RequestPath::parse(path.as_os_str().as_encoded_bytes());
        let request = request.map_err(|error| format!("cannot be requested: {error}"))?;
        Ok(self.open(&request).await?.size())
    }
}

impl Tree for LocalTree {
    /// The path below the root directory.
    type Directory = PathBuf;

    async fn read_start(&self, path: &RequestPath, len: u32) -> Option<Vec<u8>> {
        let mut file = self.open(path).await.ok()?;
        let mut start = vec![0; usize::try_from(len).ok()?];
        let read = file.read_at(0, &mut start).await.ok()?;
        start.truncate(read);
        Some(start)
    }

    async fn root(&self) -> Result<PathBuf, String> {
        Ok(PathBuf::new())
    }

    async fn list(&self, directory: &PathBuf) -> Result<Listing<PathBuf>, String> {
        let absolute = self.root.path().join(&self.name).join(directory);
        let entries =
            smol::unblock(move || read_local_directory(&absolute)).await.map_err(|error| error.to_string())?;
        let mut listing = Vec::with_capacity(entries.len());
        for (name, file_type) in entries {
            let path = directory.join(&name);
            let entry = match file_type {
                Ok(FileType::Directory) => Entry::Directory(path),
                Ok(FileType::File | FileType::Link) => {
                    self.size(&path).await.map_or_else(Entry::Unreadable, Entry::File)
                }
                Ok(FileType::Other) => Entry::Other,
                Err(error) => Entry::Unreadable(error.to_string()),
            };
            listing.push((name.into_encoded_bytes(), entry));
        }
        Ok(listing)
    }
}

/// Reads a directory, sorted by name. A symbolic link to a directory counts as [`FileType::Other`], since it may form a cycle.
fn read_local_directory(path: &Path) -> io::Result<Vec<(OsString, io::Result<FileType>)>> {
    let entries = fs::read_dir(path)?.take(MAX_NAMES + 1).collect::<Result<Vec<_>, _>>()?;
    let classify = |entry: &fs::DirEntry| {
        Ok(match entry.file_type()? {
            kind if kind.is_dir() => FileType::Directory,
            kind if kind.is_file() => FileType::File,
            kind if kind.is_symlink() && !entry.path().is_dir() => FileType::Link,
            _ => FileType::Other,
        })
    };
    let mut names: Vec<_> = entries.iter().map(|entry| (entry.file_name(), classify(entry))).collect();
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(names)
}

/// A disk that is read natively.
impl<'v> Tree for &'v MountedDisk {
    type Directory = MountedEntry<'v>;

    async fn read_start(&self, path: &RequestPath, len: u32) -> Option<Vec<u8>> {
        let file = self.find_file(path).await.ok()?;
        let bytes = file.read(&**self.device(), 0, usize::try_from(len).ok()?).await.ok()?;
        Some(bytes.to_vec())
    }

    async fn root(&self) -> Result<MountedEntry<'v>, String> {
        MountedDisk::root_directory(self).await.map_err(|error| error.to_string())
    }

    async fn list(&self, directory: &MountedEntry<'v>) -> Result<Listing<MountedEntry<'v>>, String> {
        let entries = MountedDisk::read_directory(self, directory).await.map_err(|error| error.to_string())?;
        let mut listing = Vec::new();
        for entry in entries.into_iter().take(MAX_NAMES + 1) {
            let name = entry.name().to_vec();
            let found = match entry.file_type() {
                FileType::File => {
                    entry.size().await.map_or_else(|error| Entry::Unreadable(error.to_string()), Entry::File)
                }
                FileType::Directory => Entry::Directory(entry),
                FileType::Link | FileType::Other => Entry::Other,
            };
            listing.push((name, found));
        }
        Ok(listing)
    }
}

/// A disk that is read through libguestfs.
impl Tree for &SharedAppliance {
    /// The path below the description's `tftp_root`.
    type Directory = Vec<u8>;

    async fn read_start(&self, path: &RequestPath, len: u32) -> Option<Vec<u8>> {
        self.open(path).await.ok()?.read(0, len).await.ok()
    }

    async fn root(&self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    async fn list(&self, directory: &Vec<u8>) -> Result<Listing<Vec<u8>>, String> {
        let listed = SharedAppliance::list(self, directory).await.map_err(|error| error.to_string())?;
        let entries = listed.into_iter().map(|DirectoryEntry { name, file_type, size }| {
            let entry = match file_type {
                FileType::File => Entry::File(size),
                FileType::Directory if directory.is_empty() => Entry::Directory(name.clone()),
                FileType::Directory => Entry::Directory([directory, &b"/"[..], &name].concat()),
                FileType::Link | FileType::Other => Entry::Other,
            };
            (name, entry)
        });
        Ok(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use smol::block_on;

    use super::*;
    use crate::check::{Limits, files::scan};

    fn tree(directory: &Path) -> LocalTree {
        let root = RootDirectory::new(directory.parent().expect("a parent").into(), Duration::from_secs(60));
        LocalTree::new(root, directory.file_name().expect("a name").to_str().expect("UTF-8").into())
    }

    #[test]
    fn finds_the_local_files_that_clients_can_read() {
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
        let files = block_on(scan(&tree(root.path()), limits));
        assert_eq!((files.count, files.bytes, files.incomplete), (2, 12, None));
        let kernel = files.kernel.expect("a kernel");
        assert_eq!((&*kernel.path, kernel.content_type), ("kernel8.img", Some("application/vnd.efi-img")));
        let unreadable: Vec<_> =
            files.unreadable.iter().map(|(path, reason)| (path.as_str(), reason.as_str())).collect();
        let expected =
            [("nowhere", "dangling symbolic link"), ("out", "forbidden: a symbolic link leads out of the root")];
        assert_eq!(unreadable, expected);

        let missing = block_on(scan(&tree(&at("missing")), limits));
        assert_eq!(missing.unreadable.len(), 1, "{missing:?}");
    }
}
