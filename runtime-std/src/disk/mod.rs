//! The disks of clients, described by `.nbd` files.
//!
//! `Disks` has a `Disk` for each description. Behind it runs a `DiskActor`, which connects
//! through a `Connector` and returns `Snapshot`s. A `RemoteFile` is a file opened in a snapshot.
//!
//! All of this runs in tasks on the executor of the disks. A caller on another thread only awaits their results.

mod actor;
mod chunks;
mod connector;
mod description;
mod digest;
mod error;
mod error_log;
mod handle;
mod remote_file;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use rtftp_core::{RequestPath, config::disk::DiskConfig};
use smol::Executor;

pub use self::error::DiskError;
use self::handle::Disk;
pub(crate) use self::{
    connector::{Backend, Connector, DiskTimeouts},
    description::{file_name, parse_file_name, read_description},
    error::{RETRY_INTERVAL, RETRY_LIMIT},
    remote_file::RemoteFile,
    snapshot::Contents,
};
use crate::{
    client_name::ClientName,
    clock::within,
    event_loop::EventLoop,
    guestfs::Launcher,
    local_fs::{OpenRoot, RootDirectory},
    memory::Memory,
};

/// The disks that the `.nbd` files of a directory describe.
#[derive(Debug)]
pub(crate) struct Disks {
    root: Arc<RootDirectory>,
    backend: Arc<Backend>,
    known: Mutex<HashMap<ClientName, Known>>,
}

/// A description as it was last read, and its disk.
#[derive(Debug)]
struct Known {
    /// The contents of the file, or why it could not be read.
    content: Result<Arc<[u8]>, String>,
    disk: Result<Disk, DiskError>,
}

impl Disks {
    /// Creates the disks of a directory. Connections to NBD servers use the event loop, if there is one, which the thread of the
    /// executor must run.
    pub(crate) fn new(
        directory: PathBuf,
        timeouts: DiskTimeouts,
        launcher: Launcher,
        executor: Arc<Executor<'static>>,
        event_loop: Option<Arc<EventLoop>>,
        memory: Memory,
    ) -> Self {
        let root = RootDirectory::new(directory, timeouts.reply);
        let backend = Arc::new(Backend::new(launcher, timeouts, executor, event_loop, memory));
        Self { root, backend, known: Mutex::default() }
    }

    /// Returns the directory that contains the descriptions.
    pub(crate) fn root(&self) -> &Arc<RootDirectory> {
        &self.root
    }

    /// Opens a file on the disk of a client; connects the disk if necessary.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; [`DiskError::OpenTimeout`] after the time limit for opening, wherever the time is spent.
    pub(crate) async fn open(
        &self,
        root: &OpenRoot,
        client: ClientName,
        path: &RequestPath,
    ) -> Result<RemoteFile, DiskError> {
        let disk = self.disk(root, client).await?;
        let (opening, path) = (disk.clone(), path.clone());
        let open = disk.executor().spawn(async move { RemoteFile::open(&opening, &path).await });
        // The timer runs on the caller's thread. When it expires, dropping the task cancels it.
        let limit = self.backend.timeouts().open;
        let opened = within(limit, open).await.unwrap_or(Err(DiskError::OpenTimeout(limit)));
        if let Err(error @ DiskError::OpenTimeout(_)) = &opened {
            disk.log().opening_failed(error);
        }
        opened
    }

    /// Reads the description of the disk of a client, and connects the disk in the background.
    pub(crate) async fn prepare(&self, root: &OpenRoot, client: ClientName) {
        if let Ok(disk) = self.disk(root, client).await {
            disk.connect();
        }
    }

    /// Removes the disk of a client. Transfers from it continue, and disconnect the disk at their end.
    pub(crate) fn remove(&self, client: ClientName) {
        if self.known.lock().remove(&client).is_some() {
            log::info!("{}: removed", file_name(client));
        }
    }

    /// Disconnects all disks and waits until their helper processes have ended.
    pub(crate) async fn close(&self) {
        self.known.lock().clear();
        self.backend.helpers_ended().await;
    }

    /// Returns whether the description of a client has been read and has not been removed since.
    pub(crate) fn contains(&self, client: ClientName) -> bool {
        self.known.lock().contains_key(&client)
    }

    /// Returns the executor of the tasks.
    #[cfg(test)]
    pub(crate) fn executor(&self) -> &Arc<Executor<'static>> {
        self.backend.executor()
    }

    /// Returns the clients whose descriptions have been read, sorted.
    #[cfg(test)]
    pub(crate) fn clients(&self) -> Vec<ClientName> {
        let mut clients: Vec<ClientName> = self.known.lock().keys().copied().collect();
        clients.sort();
        clients
    }

    /// Returns the description of a client as it was last read.
    #[cfg(test)]
    pub(crate) fn description(&self, client: ClientName) -> Option<Result<Vec<u8>, String>> {
        self.known.lock().get(&client).map(|known| known.content.clone().map(|json| json.to_vec()))
    }

    /// Removes all disks except those of these clients.
    pub(crate) fn retain(&self, clients: &[ClientName]) {
        let is_removed = |client: &&ClientName| !clients.contains(client);
        let removed: Vec<ClientName> = self.known.lock().keys().filter(is_removed).copied().collect();
        removed.into_iter().for_each(|client| self.remove(client));
    }

    /// Returns the disk of a client as its description is now.
    async fn disk(&self, root: &OpenRoot, client: ClientName) -> Result<Disk, DiskError> {
        let name = file_name(client);
        let content = match read_description(root, client).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove(client);
                return Err(DiskError::NotFound);
            }
            // The disk stays as it is.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(DiskError::UnreadableDescription(error.to_string()));
            }
            content => content.map(Arc::from).map_err(|error| error.to_string()),
        };
        if let Some(disk) = self.known_disk(client, &content) {
            return disk;
        }
        // Parsed while the map is unlocked: other threads must not wait for it.
        let disk = self.describe(&name, &content).map_err(|reason| {
            log::error!("{name}: {reason}");
            DiskError::InvalidDescription(reason)
        });
        self.known.lock().insert(client, Known { content, disk: disk.clone() });
        disk
    }

    /// Returns the disk of a client if its description is still this one.
    fn known_disk(&self, client: ClientName, content: &Result<Arc<[u8]>, String>) -> Option<Result<Disk, DiskError>> {
        let known = self.known.lock();
        known.get(&client).filter(|known| known.content == *content).map(|known| known.disk.clone())
    }

    /// Creates the disk that a description describes.
    fn describe(&self, name: &str, content: &Result<Arc<[u8]>, String>) -> Result<Disk, String> {
        let json = content.as_ref().map_err(Clone::clone)?;
        DiskConfig::parse(json).map_err(|error| error.to_string())?;
        Ok(Disk::new(Connector::new(name.to_owned(), json.clone(), self.backend.clone())))
    }
}
