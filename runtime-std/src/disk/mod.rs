//! The disks of clients, described by `.nbd` files.
//!
//! `Disks` has a `Disk` for each description. Behind it runs a `DiskActor`, which connects
//! through a `Connector` and returns `Snapshot`s. A `RemoteFile` is a file opened in a snapshot.
//!
//! All of this runs in tasks on the executor of the disks. A caller on another thread only awaits their results.

mod actor;
mod board_disk;
mod board_watch;
mod boot_files;
mod chunks;
mod connector;
mod description;
mod digest;
mod error;
mod error_log;
mod generated_file;
mod group;
mod handle;
mod lookup;
mod remote_file;
#[cfg(test)]
mod simulation;
mod snapshot;
#[cfg(test)]
mod tests;
mod urls;
mod usage;
mod watched;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use rtftp_core::{RequestPath, config::disk::Board};
use smol::{Executor, Task};

use self::handle::Disk;
pub(crate) use self::{
    board_disk::BoardDisk,
    boot_files::Made,
    connector::{Backend, Connector, DiskTimeouts},
    description::{Description, read_description},
    error::{RETRY_INTERVAL, RETRY_LIMIT},
    error_log::DiskState,
    generated_file::GeneratedFile,
    group::Group,
    remote_file::{RemoteFile, ServedDisk},
    snapshot::Contents,
};
pub use self::{description::NbdFile, error::DiskError, usage::DiskUsage};
use crate::{
    boot_entries::BootFile,
    client_name::ClientName,
    clock::within,
    event_loop::EventLoop,
    guestfs::Launcher,
    local_fs::{OpenRoot, RootDirectory},
    memory::Memory,
    text::printable,
};

/// The disks that the `.nbd` files of a directory describe.
#[derive(Debug)]
pub(crate) struct Disks {
    root: Arc<RootDirectory>,
    backend: Arc<Backend>,
    known: Mutex<HashMap<NbdFile, Known>>,
}

/// A description as it was last read, and what it describes.
#[derive(Debug)]
struct Known {
    /// The contents of the file, or why it could not be read.
    content: Result<Arc<[u8]>, String>,
    described: Result<Described, DiskError>,
    /// The name for people.
    label: Option<Arc<str>>,
}

/// What an `.nbd` file describes.
#[derive(Debug, Clone)]
enum Described {
    Disk(BoardDisk),
    Group(Arc<Group>),
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
        let backend = Arc::new(Backend::new(directory.clone(), launcher, timeouts, executor, event_loop, memory));
        let root = RootDirectory::new(directory, timeouts.reply);
        Self { root, backend, known: Mutex::default() }
    }

    /// Returns the directory that contains the descriptions.
    pub(crate) fn root(&self) -> &Arc<RootDirectory> {
        &self.root
    }

    /// Returns the disk that the file of a single board describes.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub(crate) async fn disk(&self, root: &OpenRoot, file: NbdFile) -> Result<BoardDisk, DiskError> {
        match self.described(root, file).await? {
            Described::Disk(disk) => Ok(disk),
            Described::Group(_) => Err(DiskError::NotFound),
        }
    }

    /// Reads the description of a group.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub(crate) async fn group(&self, root: &OpenRoot, file: NbdFile) -> Result<Arc<Group>, DiskError> {
        match self.described(root, file).await? {
            Described::Group(group) => Ok(group),
            Described::Disk(_) => Err(DiskError::NotFound),
        }
    }

    /// Returns the disk of a board of a group.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; [`DiskError::NoValue`] if the board has no value for a placeholder.
    pub(crate) fn disk_in_group(&self, group: &Group, board: &Board<'_>) -> Result<BoardDisk, DiskError> {
        group.disk(board, &self.backend)
    }

    /// Opens a file on a disk; connects the disk if necessary.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; [`DiskError::OpenTimeout`] after the time limit for opening, wherever the time is spent.
    pub(crate) async fn open(&self, disk: &BoardDisk, path: &RequestPath) -> Result<RemoteFile, DiskError> {
        let (opening, path) = (disk.disk.clone(), path.clone());
        let task = disk.disk.executor().spawn(async move { RemoteFile::open(&opening, &path).await });
        self.open_within(&disk.disk, task).await
    }

    /// Makes a file of the boot entries of a disk; connects the disk if necessary. Returns `None` if it has none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) async fn generate(&self, disk: &BoardDisk, file: BootFile) -> Result<Option<Made>, DiskError> {
        let (reading, boot) = (disk.disk.clone(), disk.boot());
        let task = disk.disk.executor().spawn(async move { boot_files::generate(&reading, file, &boot).await });
        self.open_within(&disk.disk, task).await
    }

    /// Waits for a task of a disk, within the time limit for opening. It is not awaited here as a future, which every session would
    /// have to have room for.
    async fn open_within<T>(&self, disk: &Disk, task: Task<Result<T, DiskError>>) -> Result<T, DiskError> {
        // The timer runs on the caller's thread. When it expires, dropping the task cancels it.
        let limit = self.backend.timeouts().open;
        let result = within(limit, task).await.unwrap_or(Err(DiskError::OpenTimeout(limit)));
        if let Err(error @ DiskError::OpenTimeout(_)) = &result {
            disk.log().opening_failed(error);
        }
        result
    }

    /// Reads a description. Connects the disk of a single board in the background; those of a group wait for requests.
    pub(crate) async fn prepare(&self, root: &OpenRoot, file: NbdFile) {
        if let Ok(Described::Disk(disk)) = self.described(root, file).await {
            disk.disk.connect();
        }
    }

    /// Removes the disks of a file. Transfers from them continue, and disconnect them at their end.
    pub(crate) fn remove(&self, file: NbdFile) {
        if self.known.lock().remove(&file).is_some() {
            log::info!("{file}: removed");
        }
    }

    /// Disconnects all disks and waits until their helper processes have ended.
    pub(crate) async fn close(&self) {
        self.known.lock().clear();
        self.backend.helpers_ended().await;
    }

    /// Returns whether a description has been read and has not been removed since.
    pub(crate) fn contains(&self, file: NbdFile) -> bool {
        self.known.lock().contains_key(&file)
    }

    /// Returns the disks, and the memory for what is read from them.
    pub(crate) fn usage(&self) -> DiskUsage {
        let (memory, max_memory) = self.backend.memory().usage();
        let mut usage = DiskUsage { memory, max_memory, ..DiskUsage::default() };
        for known in self.known.lock().values() {
            match &known.described {
                Ok(Described::Disk(disk)) => usage.count(disk.disk.log().state()),
                Ok(Described::Group(group)) => group.states(|state| usage.count(state)),
                Err(reason) => usage.count(DiskState::Failed(reason.to_string())),
            }
        }
        usage
    }

    /// Returns the states of the disks of single boards, and the labels of all descriptions.
    pub(crate) fn boards(&self) -> (BTreeMap<ClientName, DiskState>, HashMap<NbdFile, Arc<str>>) {
        let (mut states, mut labels) = (BTreeMap::new(), HashMap::new());
        for (file, known) in &*self.known.lock() {
            labels.extend(known.label.clone().map(|label| (*file, label)));
            let state = match &known.described {
                Ok(Described::Disk(disk)) => disk.disk.log().state(),
                Ok(Described::Group(_)) => continue,
                Err(reason) => DiskState::Failed(reason.to_string()),
            };
            if let NbdFile::Client(name) = file {
                states.insert(*name, state);
            }
        }
        (states, labels)
    }

    /// Returns the executor of the tasks.
    #[cfg(test)]
    pub(crate) fn executor(&self) -> &Arc<Executor<'static>> {
        self.backend.executor()
    }

    /// Returns the descriptions that have been read, sorted.
    #[cfg(test)]
    pub(crate) fn files(&self) -> Vec<NbdFile> {
        let mut files: Vec<NbdFile> = self.known.lock().keys().copied().collect();
        files.sort();
        files
    }

    /// Returns a description as it was last read.
    #[cfg(test)]
    pub(crate) fn description(&self, file: NbdFile) -> Option<Result<Vec<u8>, String>> {
        self.known.lock().get(&file).map(|known| known.content.clone().map(|json| json.to_vec()))
    }

    /// Removes all disks except those of these files.
    pub(crate) fn retain(&self, files: &HashSet<NbdFile>) {
        let is_removed = |file: &&NbdFile| !files.contains(file);
        let removed: Vec<NbdFile> = self.known.lock().keys().filter(is_removed).copied().collect();
        removed.into_iter().for_each(|file| self.remove(file));
    }

    /// Returns what a file describes now.
    async fn described(&self, root: &OpenRoot, file: NbdFile) -> Result<Described, DiskError> {
        let content = match read_description(root, file).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove(file);
                return Err(DiskError::NotFound);
            }
            // The disk stays as it is.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(DiskError::UnreadableDescription(error.to_string()));
            }
            content => content.map(Arc::from).map_err(|error| error.to_string()),
        };
        if let Some(described) = self.known(file, &content) {
            return described;
        }
        // Parsed while the map is unlocked: other threads must not wait for it.
        let described = self.describe(file, &content).map_err(|reason| {
            log::error!("{file}: {reason}");
            DiskError::InvalidDescription(reason)
        });
        let (described, label) = match described {
            Ok((described, label)) => (Ok(described), label),
            Err(error) => (Err(error), None),
        };
        self.known.lock().insert(file, Known { content, described: described.clone(), label });
        described
    }

    /// Returns what a file describes if its content is still this one.
    fn known(&self, file: NbdFile, content: &Result<Arc<[u8]>, String>) -> Option<Result<Described, DiskError>> {
        let known = self.known.lock();
        known.get(&file).filter(|known| known.content == *content).map(|known| known.described.clone())
    }

    /// Creates the disk or the group that a description describes. Returns its label, too.
    fn describe(
        &self,
        file: NbdFile,
        content: &Result<Arc<[u8]>, String>,
    ) -> Result<(Described, Option<Arc<str>>), String> {
        let json = content.as_ref().map_err(Clone::clone)?;
        let description = file.description(json.clone());
        let config = description.config().map_err(|error| error.to_string())?;
        let label = config.label.as_ref().map(|label| printable(label.as_bytes()).into());
        if file.is_group() {
            return Ok((Described::Group(Arc::new(Group::new(file, json.clone(), &config))), label));
        }
        let disk = Disk::new(Connector::new(file.to_string(), description, self.backend.clone()));
        Ok((Described::Disk(BoardDisk::new(disk, &config)), label))
    }
}
