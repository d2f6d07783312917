//! An index of the root directory: the directories and disk descriptions that are named after clients.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustix::fs::{OFlags, ResolveFlags};

use crate::{client_name::ClientName, disk, openat};

/// The age at which the change time of a directory is reliable: a later change gives it another time, on any file system.
const MIN_CHANGE_AGE: Duration = Duration::from_secs(3);

/// A cached index of the root directory, read again after each change. Most clients have no roots of their own, which the index shows
/// without looking up each of their names.
#[derive(Debug)]
pub(super) struct RootIndex {
    directory: PathBuf,
    cached: Mutex<Option<(Version, Arc<Entries>)>>,
}

/// The entries that are named after clients.
#[derive(Debug, Default)]
pub(super) struct Entries {
    directories: HashSet<ClientName>,
    disks: HashSet<ClientName>,
    has_mac_names: bool,
}

/// A version of a directory: its identity and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    /// The change time (ctime) in seconds and nanoseconds.
    changed: (i64, i64),
}

impl RootIndex {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, cached: Mutex::default() }
    }

    /// Returns the present entries.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory does not exist or cannot be read.
    pub(super) async fn entries(&self) -> io::Result<Arc<Entries>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = openat::open(None, &self.directory, flags, ResolveFlags::empty()).await?;
        let version = Version::of(&File::from(directory).metadata()?);
        let cached =
            self.cached.lock().as_ref().filter(|(cached, _)| *cached == version).map(|(_, entries)| entries.clone());
        if let Some(entries) = cached {
            return Ok(entries);
        }
        let directory = self.directory.clone();
        let (version, entries) = smol::unblock(move || read(&directory)).await?;
        let entries = Arc::new(entries);
        *self.cached.lock() = version.map(|version| (version, entries.clone()));
        Ok(entries)
    }
}

impl Entries {
    /// Returns whether there is a directory, or any other file, of this name.
    pub(super) fn has_directory(&self, name: ClientName) -> bool {
        self.directories.contains(&name)
    }

    /// Returns whether there is a disk description for this name.
    pub(super) fn has_disk(&self, name: ClientName) -> bool {
        self.disks.contains(&name)
    }

    /// Returns whether any entry is named after a MAC address.
    pub(super) fn has_mac_names(&self) -> bool {
        self.has_mac_names
    }
}

impl Version {
    fn of(directory: &Metadata) -> Self {
        let changed = (directory.ctime(), directory.ctime_nsec());
        Self { device: directory.dev(), inode: directory.ino(), changed }
    }

    /// Returns whether every later change will give the directory another version.
    fn is_reliable(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.0.try_into().unwrap_or_default());
        now > changed + MIN_CHANGE_AGE
    }
}

/// Reads the entries of a directory, and its version if that is reliable. Blocks.
fn read(directory: &Path) -> io::Result<(Option<Version>, Entries)> {
    let version = Some(Version::of(&fs::metadata(directory)?)).filter(Version::is_reliable);
    let mut entries = Entries::default();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let (client, names) = match disk::parse_file_name(name) {
            Ok(client) => (client, &mut entries.disks),
            Err(_) => match ClientName::parse(name) {
                Ok(client) => (client, &mut entries.directories),
                Err(_) => continue,
            },
        };
        names.insert(client);
        entries.has_mac_names |= matches!(client, ClientName::Mac(_));
    }
    Ok((version, entries))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Timespec, Timestamps, utimensat};
    use smol::block_on;

    use super::*;

    const MAC: ClientName = ClientName::Mac([2, 0, 0, 0, 0, 5]);

    fn entries(index: &RootIndex) -> Arc<Entries> {
        block_on(index.entries()).expect("readable")
    }

    #[test]
    fn indexes_entries_named_after_clients() {
        for (entry, directory, disk) in [
            ("02-00-00-00-00-05", true, false),
            ("02-00-00-00-00-05.nbd", false, true),
            ("02:00:00:00:00:05.nbd", false, false),
            ("9ffefdef.nbd", false, false),
            ("127.0.0.1", false, false),
            ("default", false, false),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            fs::write(root.path().join(entry), "").expect("written");
            let entries = entries(&RootIndex::new(root.path().to_owned()));
            assert_eq!((entries.has_directory(MAC), entries.has_disk(MAC)), (directory, disk), "{entry}");
            assert_eq!(entries.has_mac_names(), directory || disk, "{entry}");
        }
    }

    #[test]
    fn notices_every_change() {
        let root = tempfile::tempdir().expect("a directory");
        let (old, new) = (root.path().join("02-00-00-00-00-05"), root.path().join("02-00-00-00-00-05.nbd"));
        let index = RootIndex::new(root.path().to_owned());
        for _ in 0..50 {
            assert!(!entries(&index).has_mac_names());
            fs::create_dir(&old).expect("created");
            assert!(entries(&index).has_directory(MAC));
            fs::rename(&old, &new).expect("renamed");
            assert!(entries(&index).has_disk(MAC) && !entries(&index).has_directory(MAC));
            fs::remove_dir(&new).expect("removed");
        }
        fs::remove_dir(root.path()).expect("removed");
        block_on(index.entries()).expect_err("the root was removed");
    }

    #[test]
    fn caches_only_reliable_versions_of_the_same_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let version = || Version::of(&fs::metadata(root.path()).expect("it exists"));
        let index = RootIndex::new(root.path().to_owned());
        assert!(entries(&index).disks.is_empty());
        assert!(index.cached.lock().is_none(), "the directory was created just now");
        let cached = Arc::new(Entries { disks: HashSet::from([MAC]), ..Entries::default() });
        *index.cached.lock() = Some((version(), cached));
        assert!(entries(&index).has_disk(MAC), "the directory is not read again");
        // Setting the modification time changes ctime too.
        let before = version();
        let long_ago = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        while version() == before {
            utimensat(rustix::fs::CWD, root.path(), &times, rustix::fs::AtFlags::empty()).expect("set");
        }
        assert!(!entries(&index).has_disk(MAC));
        let other = tempfile::tempdir().expect("another directory");
        assert_ne!(version(), Version::of(&fs::metadata(other.path()).expect("it exists")));
        let changed = |ago: Duration| {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").saturating_sub(ago);
            Version { changed: (at.as_secs() as i64, 0), ..before }
        };
        let reliable = changed(MIN_CHANGE_AGE + Duration::from_secs(2));
        assert!(reliable.is_reliable() && !changed(Duration::ZERO).is_reliable());
    }
}
