//! Everything behind an `.nbd` file.

mod actor;
mod handle;
mod remote_file;
mod snapshot;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, IoSliceMut, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rtftp_core::{
    RequestPath,
    config::disk::{DiskConfig, MAX_CONFIG},
};
use rustix::{
    fs::{OFlags, ResolveFlags},
    io::preadv2,
};
use smol::Executor;

use self::handle::Disk;
pub(crate) use self::{
    actor::{Backend, DiskActor, DiskTimeouts},
    handle::{RETRY_INTERVAL, RETRY_LIMIT},
    remote_file::RemoteFile,
    snapshot::{Contents, DiskError},
};
use crate::{
    client_name::ClientName,
    error::{OpenError, Unavailable},
    event_loop::EventLoop,
    openat,
};

/// The name of the file that describes a client's disk.
pub(crate) fn file_name(client: ClientName) -> String {
    format!("{client}.nbd")
}

/// The client whose disk a file of this name describes.
///
/// # Errors
///
/// `None` for a name that is not an `.nbd` file's; the right name for one that is spelled in another way than the names of
/// clients are written, and would never be looked for.
pub(crate) fn parse_file_name(name: &str) -> Result<ClientName, Option<String>> {
    let client = name.strip_suffix(".nbd").ok_or(None)?;
    ClientName::parse(client).map_err(|meant| meant.map(file_name))
}

/// The disks that the `.nbd` files of a directory describe.
#[derive(Debug)]
pub(crate) struct Disks {
    directory: PathBuf,
    backend: Arc<Backend>,
    known: Mutex<HashMap<ClientName, Known>>,
}

/// A description as it was last read, and what came of it.
#[derive(Debug)]
struct Known {
    /// The bytes of the file, or why they could not be read.
    content: Result<Vec<u8>, String>,
    disk: Result<Disk, Unavailable>,
}

impl Disks {
    /// The disks of a directory; NBD servers are waited for in the event loop, if there is one, which must then be running.
    pub(crate) fn new(
        directory: PathBuf,
        times: DiskTimeouts,
        launcher: crate::guestfs::client::Launcher,
        executor: Arc<Executor<'static>>,
        event_loop: Option<Arc<EventLoop>>,
    ) -> Self {
        Self {
            directory,
            backend: Arc::new(Backend::new(launcher, times, executor, event_loop)),
            known: Mutex::default(),
        }
    }

    /// Opens a file on a client's disk, which is connected first if need be.
    pub(crate) async fn open(&self, client: ClientName, path: &RequestPath) -> Result<RemoteFile, OpenError> {
        self.disk(client).await?.open(path).await
    }

    /// Sees to it that a client's disk is the one described now, and connects it in the background.
    pub(crate) async fn prepare(&self, client: ClientName) {
        if let Ok(disk) = self.disk(client).await {
            disk.connect();
        }
    }

    /// Lets a client's disk go; transfers from it end as they would have.
    pub(crate) fn remove(&self, client: ClientName) {
        if self.lock().remove(&client).is_some() {
            log::info!("{}: removed", file_name(client));
        }
    }

    /// Lets all disks go and waits for the end of all that was started for them.
    pub(crate) async fn close(&self) {
        self.lock().clear();
        self.backend.all_ended().await;
    }

    /// Whether a client's description has been looked at, and not been missed since.
    pub(crate) fn contains(&self, client: ClientName) -> bool {
        self.lock().contains_key(&client)
    }

    /// The clients whose descriptions have been looked at.
    #[cfg(test)]
    pub(crate) fn clients(&self) -> Vec<ClientName> {
        let mut clients: Vec<ClientName> = self.lock().keys().copied().collect();
        clients.sort();
        clients
    }

    /// Lets all disks go but those of these clients.
    pub(crate) fn retain(&self, clients: &[ClientName]) {
        let gone: Vec<ClientName> = self.lock().keys().filter(|client| !clients.contains(client)).copied().collect();
        gone.into_iter().for_each(|client| self.remove(client));
    }

    /// The disk that the client's file describes at this moment.
    async fn disk(&self, client: ClientName) -> Result<Disk, OpenError> {
        let name = file_name(client);
        let content = match read_description(&self.directory.join(&name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove(client);
                return Err(OpenError::NotFound);
            }
            content => content.map_err(|error| error.to_string()),
        };
        let mut known = self.lock();
        if let Some(known) = known.get(&client).filter(|known| known.content == content) {
            return known.disk.clone().map_err(OpenError::from);
        }
        let disk = self.describe(&name, &content).map_err(|reason| {
            log::error!("{name}: {reason}");
            Unavailable { to_client: "the description of this client's disk is not valid", reason }
        });
        known.insert(client, Known { content, disk: disk.clone() });
        disk.map_err(OpenError::from)
    }

    /// Makes a disk, not connected yet, of what its file says.
    fn describe(&self, name: &str, content: &Result<Vec<u8>, String>) -> Result<Disk, String> {
        let json = content.as_ref().map_err(Clone::clone)?;
        let config = DiskConfig::parse(json).map_err(|error| error.to_string())?;
        Ok(Disk::new(name.to_owned(), json.clone(), config, self.backend.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClientName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a description, and no more of a larger file than shows that it is too large.
pub(crate) async fn read_description(path: &Path) -> io::Result<Vec<u8>> {
    const MOST: usize = MAX_CONFIG + 1;
    // Non-blocking, or a FIFO would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = File::from(openat::open(None, path, flags, ResolveFlags::empty()).await?);
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = vec![0; usize::try_from(about.len()).map_or(MOST, |len| len.min(MOST))];
    let read = preadv2(&file, &mut [IoSliceMut::new(&mut content)], 0, openat::nonblocking_read_flags(&file));
    if read == Ok(content.len()) {
        return Ok(content);
    }
    smol::unblock(move || {
        let mut content = vec![];
        file.take(MOST as u64).read_to_end(&mut content)?;
        Ok(content)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_as_its_client_is_written() {
        for (name, client) in [
            ("10.0.0.1.nbd", "10.0.0.1"),
            ("fe80::1.nbd", "fe80::1"),
            ("dc-a6-32-01-36-c2.nbd", "dc-a6-32-01-36-c2"),
            ("9ffefdef.nbd", "9ffefdef"),
        ] {
            assert_eq!(parse_file_name(name), Ok(ClientName::parse(client).expect("a name")));
        }
        for (name, right) in [
            ("FE80::1.nbd", "fe80::1.nbd"),
            ("::ffff:10.0.0.1.nbd", "10.0.0.1.nbd"),
            ("dc:a6:32:01:36:c2.nbd", "dc-a6-32-01-36-c2.nbd"),
        ] {
            assert_eq!(parse_file_name(name), Err(Some(right.to_owned())), "{name}");
        }
        for name in ["10.0.0.1", "10.0.0.1.nbd~", ".10.0.0.1.nbd.swp", "9ffefdef.NBD", "board.nbd", ".nbd", ""] {
            assert_eq!(parse_file_name(name), Err(None), "{name}");
        }
    }
}
