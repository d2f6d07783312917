//! What there is in the root by the names of clients.

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{OFlags, ResolveFlags};

use crate::{client_name::ClientName, disk, openat};

/// How long after a change of a directory another one is sure to give it another time, on any file system.
const SETTLED: Duration = Duration::from_secs(3);

/// The root, which is walked through whenever it has changed: most clients have none of the names that they could have, and one look
/// at the directory tells so.
#[derive(Debug)]
pub(crate) struct Listing {
    directory: PathBuf,
    known: Mutex<Option<(Stamp, Arc<Entries>)>>,
}

/// What is named after a client.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    directories: HashSet<ClientName>,
    disks: HashSet<ClientName>,
    has_cards: bool,
}

/// What tells a directory from another one and from a later state of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    /// When it last changed: seconds and nanoseconds.
    changed: (i64, i64),
}

impl Listing {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, known: Mutex::default() }
    }

    /// What there is now.
    ///
    /// # Errors
    ///
    /// The directory is not there or cannot be read.
    pub(crate) async fn now(&self) -> io::Result<Arc<Entries>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = openat::open(None, &self.directory, flags, ResolveFlags::empty()).await?;
        let stamp = Stamp::of(&File::from(directory).metadata()?);
        let known = self.lock().as_ref().filter(|(known, _)| *known == stamp).map(|(_, entries)| entries.clone());
        if let Some(entries) = known {
            return Ok(entries);
        }
        let directory = self.directory.clone();
        let (stamp, entries) = smol::unblock(move || walk(&directory)).await?;
        let entries = Arc::new(entries);
        *self.lock() = stamp.map(|stamp| (stamp, entries.clone()));
        Ok(entries)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Stamp, Arc<Entries>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Whether there is a directory of this name, or anything else.
    pub(crate) fn has_directory(&self, name: ClientName) -> bool {
        self.directories.contains(&name)
    }

    /// Whether there is a description of a disk for this name.
    pub(crate) fn has_disk(&self, name: ClientName) -> bool {
        self.disks.contains(&name)
    }

    /// Whether anything is named after a network card.
    pub(crate) fn has_cards(&self) -> bool {
        self.has_cards
    }
}

impl Stamp {
    fn of(directory: &Metadata) -> Self {
        let changed = (directory.ctime(), directory.ctime_nsec());
        Self { device: directory.dev(), inode: directory.ino(), changed }
    }

    /// Whether a change from now on is sure to give another one.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.0.try_into().unwrap_or_default());
        now > changed + SETTLED
    }
}

/// What there is in a directory, and its stamp, if that tells every later change. Blocks.
fn walk(directory: &Path) -> io::Result<(Option<Stamp>, Entries)> {
    let stamp = Some(Stamp::of(&fs::metadata(directory)?)).filter(Stamp::is_settled);
    let mut entries = Entries::default();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let (client, named) = match disk::parse_file_name(name) {
            Ok(client) => (client, &mut entries.disks),
            Err(_) => match ClientName::parse(name) {
                Ok(client) => (client, &mut entries.directories),
                Err(_) => continue,
            },
        };
        named.insert(client);
        entries.has_cards |= matches!(client, ClientName::Mac(_));
    }
    Ok((stamp, entries))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Timespec, Timestamps, utimensat};
    use smol::block_on;

    use super::*;

    const CARD: ClientName = ClientName::Mac([2, 0, 0, 0, 0, 5]);

    fn now(listing: &Listing) -> Arc<Entries> {
        block_on(listing.now()).expect("readable")
    }

    #[test]
    fn names_of_clients_are_seen() {
        for (entry, directory, disk) in [
            ("02-00-00-00-00-05", true, false),
            ("02-00-00-00-00-05.nbd", false, true),
            ("02:00:00:00:00:05.nbd", false, false),
            ("9ffefdef.nbd", false, false),
            ("127.0.0.1", false, false),
            ("default", false, false),
        ] {
            let top = tempfile::tempdir().expect("a directory");
            fs::write(top.path().join(entry), "").expect("written");
            let there = now(&Listing::new(top.path().to_owned()));
            assert_eq!((there.has_directory(CARD), there.has_disk(CARD)), (directory, disk), "{entry}");
            assert_eq!(there.has_cards(), directory || disk, "{entry}");
        }
    }

    #[test]
    fn every_change_is_seen() {
        let top = tempfile::tempdir().expect("a directory");
        let (old, new) = (top.path().join("02-00-00-00-00-05"), top.path().join("02-00-00-00-00-05.nbd"));
        let listing = Listing::new(top.path().to_owned());
        for _ in 0..50 {
            assert!(!now(&listing).has_cards());
            fs::create_dir(&old).expect("made");
            assert!(now(&listing).has_directory(CARD));
            fs::rename(&old, &new).expect("renamed");
            assert!(now(&listing).has_disk(CARD) && !now(&listing).has_directory(CARD));
            fs::remove_dir(&new).expect("removed");
        }
        fs::remove_dir(top.path()).expect("removed");
        block_on(listing.now()).expect_err("there is no root");
    }

    #[test]
    fn what_is_known_is_believed_only_of_the_same_directory_that_has_not_changed_for_long() {
        let top = tempfile::tempdir().expect("a directory");
        let stamp = || Stamp::of(&fs::metadata(top.path()).expect("there"));
        let listing = Listing::new(top.path().to_owned());
        assert!(now(&listing).disks.is_empty());
        assert!(listing.lock().is_none(), "it was made just now");
        let known = Arc::new(Entries { disks: HashSet::from([CARD]), ..Entries::default() });
        *listing.lock() = Some((stamp(), known));
        assert!(now(&listing).has_disk(CARD), "it is not walked through again");
        // Not even the time can be set without a trace.
        let before = stamp();
        let long_ago = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        while stamp() == before {
            utimensat(rustix::fs::CWD, top.path(), &times, rustix::fs::AtFlags::empty()).expect("set");
        }
        assert!(!now(&listing).has_disk(CARD));
        let other = tempfile::tempdir().expect("another directory");
        assert_ne!(stamp(), Stamp::of(&fs::metadata(other.path()).expect("there")));
        let changed = |ago: Duration| {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").saturating_sub(ago);
            Stamp { changed: (at.as_secs() as i64, 0), ..before }
        };
        assert!(changed(SETTLED + Duration::from_secs(2)).is_settled() && !changed(Duration::ZERO).is_settled());
    }
}
