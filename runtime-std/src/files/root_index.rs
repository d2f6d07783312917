//! An index of the root directory: the directories and disk descriptions that are named after clients.

use std::{cmp::Reverse, collections::HashSet, io, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{
    client_name::ClientName,
    disk::NbdFile,
    local_fs::{OpenRoot, Version},
    prefix::Prefix,
};

/// A cached index of the root directory, read again after each change. Most clients have no roots of their own, which the index shows
/// without looking up each of their names.
#[derive(Debug, Default)]
pub(super) struct RootIndex {
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    /// The version of the directory, if it shows each change.
    version: Option<Version>,
    entries: Arc<Entries>,
}

/// The entries that are named after clients.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    directories: HashSet<ClientName>,
    disks: HashSet<ClientName>,
    /// The longest first.
    groups: Vec<Prefix>,
    has_default_disk: bool,
    has_mac_names: bool,
    has_default: bool,
}

impl RootIndex {
    /// Returns the present entries.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be read.
    pub(super) async fn entries(&self, root: &OpenRoot) -> io::Result<Arc<Entries>> {
        {
            let cached = self.cached.lock();
            if cached.version.is_some_and(|version| root.has_version(version)) {
                return Ok(cached.entries.clone());
            }
        }
        // Before the directory is read, so that a change at the same time is noticed.
        let version = root.reliable_version();
        let entries = Arc::new(Entries::parse(&root.names().await?));
        *self.cached.lock() = Cached { version, entries: entries.clone() };
        Ok(entries)
    }

    /// Makes the next request read the directory again.
    pub(super) fn clear(&self) {
        self.cached.lock().version = None;
    }

    /// Returns the entries that were read last.
    pub(super) fn last(&self) -> Arc<Entries> {
        self.cached.lock().entries.clone()
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

    /// Returns the names of the clients that have a directory or a disk.
    pub(super) fn clients(&self) -> impl Iterator<Item = ClientName> {
        self.directories.iter().chain(&self.disks).copied()
    }

    /// Returns the files of the groups of a client, in the order in which they are searched.
    pub(super) fn groups_of(&self, ip: IpAddr) -> Vec<NbdFile> {
        let groups = self.groups.iter().filter(|group| group.contains(ip)).map(|group| NbdFile::Group(*group));
        groups.chain(self.has_default_disk.then_some(NbdFile::Default)).collect()
    }

    /// Returns whether any entry is named after a MAC address.
    pub(super) fn has_mac_names(&self) -> bool {
        self.has_mac_names
    }

    /// Returns whether there is a common directory.
    pub(super) fn has_default(&self) -> bool {
        self.has_default
    }

    fn parse(names: &[Vec<u8>]) -> Self {
        let mut entries = Self::default();
        for name in names.iter().filter_map(|name| str::from_utf8(name).ok()) {
            entries.has_default |= name == "default";
            let (client, names) = match NbdFile::parse(name) {
                Ok(NbdFile::Client(client)) => (client, &mut entries.disks),
                Ok(NbdFile::Group(group)) => {
                    entries.groups.push(group);
                    continue;
                }
                Ok(NbdFile::Default) => {
                    entries.has_default_disk = true;
                    continue;
                }
                Err(_) => match ClientName::parse(name) {
                    Ok(client) => (client, &mut entries.directories),
                    Err(_) => continue,
                },
            };
            names.insert(client);
            entries.has_mac_names |= matches!(client, ClientName::Mac(_));
        }
        entries.groups.sort_unstable_by_key(|group| Reverse(group.len()));
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use rustix::fs::{Timespec, Timestamps, utimensat};
    use smol::block_on;

    use super::*;
    use crate::local_fs::RootDirectory;

    const MAC: ClientName = ClientName::Mac([2, 0, 0, 0, 0, 5]);

    fn open(root: &Arc<RootDirectory>) -> OpenRoot {
        block_on(root.open()).expect("a directory")
    }

    fn entries(index: &RootIndex, root: &Arc<RootDirectory>) -> Arc<Entries> {
        block_on(index.entries(&open(root))).expect("readable")
    }

    fn root() -> (tempfile::TempDir, Arc<RootDirectory>) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = RootDirectory::new(directory.path().to_owned(), Duration::from_secs(10));
        (directory, root)
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
            let (top, root) = root();
            fs::write(top.path().join(entry), "").expect("written");
            let entries = entries(&RootIndex::default(), &root);
            assert_eq!((entries.has_directory(MAC), entries.has_disk(MAC)), (directory, disk), "{entry}");
            assert_eq!(entries.has_mac_names(), directory || disk, "{entry}");
            assert_eq!(entries.has_default(), entry == "default", "{entry}");
        }
    }

    #[test]
    fn groups_of_a_client_are_ordered_by_the_length_of_their_prefixes() {
        let names =
            ["default.nbd", "10.0.0.0_8.nbd", "10.0.1.0_24.nbd", "10.0.0.0_24.nbd", "0.0.0.0_0.nbd", "::_0.nbd"];
        let names: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let entries = Entries::parse(&names);
        for (ip, expected) in [
            ("10.0.0.5", &["10.0.0.0_24.nbd", "10.0.0.0_8.nbd", "0.0.0.0_0.nbd", "default.nbd"][..]),
            ("10.9.0.5", &["10.0.0.0_8.nbd", "0.0.0.0_0.nbd", "default.nbd"]),
            ("fe80::1", &["::_0.nbd", "default.nbd"]),
        ] {
            let groups = entries.groups_of(ip.parse().expect("an address"));
            assert_eq!(groups.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{ip}");
        }
    }

    #[test]
    fn notices_every_change() {
        let (top, root) = root();
        let (old, new) = (top.path().join("02-00-00-00-00-05"), top.path().join("02-00-00-00-00-05.nbd"));
        let index = RootIndex::default();
        for _ in 0..50 {
            assert!(!entries(&index, &root).has_mac_names());
            fs::create_dir(&old).expect("created");
            assert!(entries(&index, &root).has_directory(MAC));
            fs::rename(&old, &new).expect("renamed");
            assert!(entries(&index, &root).has_disk(MAC) && !entries(&index, &root).has_directory(MAC));
            fs::remove_dir(&new).expect("removed");
        }
        fs::remove_dir(top.path()).expect("removed");
        block_on(root.open()).expect_err("the root was removed");
    }

    #[test]
    fn caches_only_reliable_versions_of_the_same_directory() {
        let (top, root) = root();
        let index = RootIndex::default();
        assert!(entries(&index, &root).disks.is_empty());
        assert!(index.cached.lock().version.is_none(), "the directory was created just now");
        let cached = Arc::new(Entries { disks: HashSet::from([MAC]), ..Entries::default() });
        let version = open(&root).version();
        *index.cached.lock() = Cached { version: Some(version), entries: cached.clone() };
        assert!(entries(&index, &root).has_disk(MAC), "the directory is not read again");
        index.clear();
        assert!(!entries(&index, &root).has_disk(MAC));
        *index.cached.lock() = Cached { version: Some(version), entries: cached };
        // Setting the modification time changes ctime too.
        let long_ago = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        while open(&root).version() == version {
            utimensat(rustix::fs::CWD, top.path(), &times, rustix::fs::AtFlags::empty()).expect("set");
        }
        assert!(!entries(&index, &root).has_disk(MAC));
    }
}
