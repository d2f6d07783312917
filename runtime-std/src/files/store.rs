//! Where a client's files are looked for: under each of its names in its own directory and on its own disk, then in the
//! common directory.

use std::{fmt, net::SocketAddr, path::PathBuf};

use rtftp_core::RequestPath;

use crate::{
    client_name::ClientName,
    disk,
    disk::Disks,
    error::{OpenError, Unavailable},
    files::{
        local::LocalFile,
        open_file::OpenFile,
        root_index::{Entries, Listing},
    },
    net::{neighbour, neighbour::LinkAddress},
};

/// The directory that everything is named in, and the disks that its `.nbd` files describe.
#[derive(Debug)]
pub(crate) struct FileStore {
    directory: PathBuf,
    listing: Listing,
    disks: Disks,
}

/// Which root a file is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `<root>/<client>/`
    Client(ClientName),
    /// The disk of `<root>/<client>.nbd`
    Disk(ClientName),
    /// `<root>/default/`
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "{client}/"),
            Self::Disk(client) => f.write_str(&disk::file_name(*client)),
            Self::Default => f.write_str("default/"),
        }
    }
}

/// Why a file could not be opened, and where.
type Failed = (OpenError, Option<Origin>);

impl FileStore {
    pub(crate) fn new(directory: PathBuf, disks: Disks) -> Self {
        Self { listing: Listing::new(directory.clone()), directory, disks }
    }

    /// The disks behind the `.nbd` files.
    pub(crate) fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Opens a file for a client in the first root that has it: those of its address, of its network card, of the serial
    /// number that it puts in front of the path, and the common one. What is forbidden or unavailable in one root is not looked
    /// for in the next: the client must not boot something else because its own is not to be had.
    ///
    /// Address and network card are what answers are sent to; the serial number is only what the client says.
    pub(crate) async fn open(&self, client: SocketAddr, path: &RequestPath) -> Result<(OpenFile, Origin), Failed> {
        let there = self.listing.now().await.map_err(|error| {
            let reason = format!("{}: {error}", self.directory.display());
            (Unavailable { to_client: "the server cannot read its directory", reason }.into(), None)
        })?;
        if let Some(found) = self.open_named(&there, ClientName::Ip(client.ip()), path).await? {
            return Ok(found);
        }
        if there.has_cards()
            && let Some(mac) = mac(client).await.map_err(|error| (error.into(), None))?
            && let Some(found) = self.open_named(&there, mac, path).await?
        {
            return Ok(found);
        }
        if let Some((serial, rest)) = ClientName::split_serial(path)
            && let Some(found) = self.open_named(&there, serial, &rest).await?
        {
            return Ok(found);
        }
        self.open_in(Origin::Default, path).await?.ok_or((OpenError::NotFound, None))
    }

    /// Opens a file in the directory or on the disk of this name, as far as they are there.
    async fn open_named(
        &self,
        there: &Entries,
        name: ClientName,
        path: &RequestPath,
    ) -> Result<Option<(OpenFile, Origin)>, Failed> {
        if there.has_directory(name)
            && let Some(found) = self.open_in(Origin::Client(name), path).await?
        {
            return Ok(Some(found));
        }
        // A disk that is known is to be let go if its description is there no more.
        if there.has_disk(name) || self.disks.contains(name) {
            return self.open_in(Origin::Disk(name), path).await;
        }
        Ok(None)
    }

    /// Opens a file in one root.
    async fn open_in(&self, origin: Origin, path: &RequestPath) -> Result<Option<(OpenFile, Origin)>, Failed> {
        let opened = match origin {
            Origin::Client(name) => self.open_local(&name.to_string(), path).await,
            Origin::Disk(name) => self.disks.open(name, path).await.map(OpenFile::Remote),
            Origin::Default => self.open_local("default", path).await,
        };
        match opened {
            Ok(file) => Ok(Some((file, origin))),
            Err(OpenError::NotFound) => Ok(None),
            Err(error) => Err((error, Some(origin))),
        }
    }

    async fn open_local(&self, directory: &str, path: &RequestPath) -> Result<OpenFile, OpenError> {
        LocalFile::open(&self.directory.join(directory), path).await.map(OpenFile::Local)
    }
}

/// The name of a client after its network card, as far as the kernel can tell.
async fn mac(client: SocketAddr) -> Result<Option<ClientName>, Unavailable> {
    // The kernel may have to finish with somebody else's change of its networks first.
    let card = match smol::unblock(move || neighbour::link_address(client)).await {
        Ok(LinkAddress::Unresolved) => neighbour::resolve(client).await,
        card => card,
    };
    match card {
        Ok(LinkAddress::Mac(mac)) => Ok(Some(ClientName::Mac(mac))),
        // One that does not tell the kernel its card cannot be sent anything either.
        Ok(LinkAddress::Unresolved | LinkAddress::None) => Ok(None),
        Err(error) => {
            let reason = format!("the kernel does not tell the client's MAC address, which a root may have: {error}");
            Err(Unavailable { to_client: "the server cannot tell who you are", reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc, time::Duration};

    use smol::{Executor, block_on};

    use super::*;
    use crate::{
        disk::DiskTimeouts,
        guestfs::client::{HelperTimeouts, Launcher},
    };

    const SERIAL: ClientName = ClientName::Serial(0x9ffe_fdef);

    /// A root with these files, each of which holds its own path.
    fn store(files: &[&str]) -> (tempfile::TempDir, FileStore) {
        let top = tempfile::tempdir().expect("a directory");
        for file in files {
            let path = top.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, file).expect("written");
        }
        let minute = Duration::from_secs(60);
        let times = DiskTimeouts { idle: minute, view_gap: minute, reply: minute };
        let launcher = Launcher::new(HelperTimeouts::default());
        let disks = Disks::new(top.path().to_owned(), times, launcher, Arc::new(Executor::new()), None);
        let store = FileStore::new(top.path().to_owned(), disks);
        (top, store)
    }

    fn localhost() -> (ClientName, SocketAddr) {
        let client = SocketAddr::from(([127, 0, 0, 1], 1234));
        (ClientName::Ip(client.ip()), client)
    }

    /// Where a path is found, or where and why not.
    fn open(store: &FileStore, path: &str) -> Result<(u64, Origin), Failed> {
        let path = RequestPath::parse(path.as_bytes()).expect("a path");
        let opened = block_on(store.open(localhost().1, &path));
        opened.map(|(file, origin)| (file.size().expect("a size"), origin))
    }

    #[test]
    fn the_address_comes_before_the_serial_number_and_both_before_default() {
        let (files, ip) = (["127.0.0.1/9ffefdef/f", "9ffefdef/f", "default/9ffefdef/f"], localhost().0);
        let origins = [Origin::Client(ip), Origin::Client(SERIAL), Origin::Default];
        let (top, store) = store(&files);
        for (file, origin) in files.iter().zip(origins) {
            assert_eq!(open(&store, "9ffefdef/f"), Ok((file.len() as u64, origin)));
            fs::remove_file(top.path().join(file)).expect("removed");
        }
        assert_eq!(open(&store, "9ffefdef/f"), Err((OpenError::NotFound, None)));
    }

    #[test]
    fn of_each_name_the_directory_comes_before_the_disk() {
        let files = ["127.0.0.1/9ffefdef/f", "127.0.0.1.nbd", "9ffefdef/f", "9ffefdef.nbd", "default/9ffefdef/f"];
        let (top, store) = store(&files);
        let refused = |name| match open(&store, "9ffefdef/f") {
            Err((OpenError::Unavailable(_), Some(origin))) => assert_eq!(origin, Origin::Disk(name)),
            other => panic!("a description that is wrong, not {other:?}"),
        };
        for (pair, name) in files.chunks(2).zip([localhost().0, SERIAL]) {
            assert_eq!(open(&store, "9ffefdef/f"), Ok((pair[0].len() as u64, Origin::Client(name))));
            fs::remove_file(top.path().join(pair[0])).expect("removed");
            refused(name);
            fs::remove_file(top.path().join(pair[1])).expect("removed");
        }
        assert_eq!(open(&store, "9ffefdef/f"), Ok((files[4].len() as u64, Origin::Default)));
    }

    #[test]
    fn a_serial_number_names_a_root_only_in_front_of_a_path() {
        let (_top, store) = store(&["9ffefdef/f", "default/9FFEFDEF/f", "default/dir/f"]);
        assert_eq!(open(&store, "9ffefdef/f").map(|(_, origin)| origin), Ok(Origin::Client(SERIAL)));
        for name in ["f", "9ffefdef", "x/9ffefdef/f", "9ffefdef/../9ffefdee/f"] {
            assert_eq!(open(&store, name), Err((OpenError::NotFound, None)), "{name}");
        }
        assert_eq!(open(&store, "9FFEFDEF/f").map(|(_, origin)| origin), Ok(Origin::Default));
        assert_eq!(open(&store, "dir/f").map(|(_, origin)| origin), Ok(Origin::Default));
    }

    #[test]
    fn a_root_that_is_gone_is_not_an_empty_one() {
        let (top, store) = store(&["default/f"]);
        fs::remove_dir_all(top.path()).expect("removed");
        match open(&store, "f") {
            Err((OpenError::Unavailable(why), None)) => {
                assert!(why.reason.contains(top.path().to_str().expect("a name")));
            }
            other => panic!("not {other:?}"),
        }
    }
}
