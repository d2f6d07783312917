//! The root directory: opens files below it without blocking the thread.

use std::{
    fs::{File, Metadata},
    io, mem,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustix::{
    fs::{AtFlags, CWD, Dir, ResolveFlags, StatxFlags, statx},
    io::Errno,
};
use smol::channel::{Receiver, Sender, bounded};

use super::{
    calls::{Calls, Places, Scope},
    kind::Kind,
    open::{DIRECTORY, OpenFailure, READ_DIRECTORY, Target, open_at, open_directory},
};

/// The age at which the change time of a directory is reliable: a later change gives it another time.
const MIN_CHANGE_AGE: Duration = Duration::from_secs(3);
/// The flags of an open call that must not wait.
const AT_ONCE: ResolveFlags = ResolveFlags::CACHED.union(ResolveFlags::NO_XDEV);

/// The root directory of a server.
#[derive(Debug)]
pub(crate) struct RootDirectory {
    path: PathBuf,
    calls: Calls,
    /// The places for calls about the directory itself.
    places: Arc<Places>,
    state: Mutex<State>,
    /// Has a message when another directory was found at the path.
    replaced: (Sender<()>, Receiver<()>),
}

#[derive(Debug, Default)]
struct State {
    /// The version of the directory that was last found on a local file system.
    local: Option<(Version, Kind)>,
    /// The directories that were opened first and last.
    first: Option<Identity>,
    last: Option<Identity>,
}

/// The root directory, opened for one request, or for several that have arrived together.
#[derive(Debug)]
pub(crate) struct OpenRoot {
    directory: OwnedFd,
    /// The directory in it that was opened first, and its name: most requests open the same.
    first: OnceLock<(Box<str>, OwnedFd)>,
    version: Version,
    kind: Kind,
    /// Whether another directory was at this path before.
    is_replaced: bool,
    root: Arc<RootDirectory>,
}

/// A version of a directory: its identity and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    identity: Identity,
    /// The change time (ctime) in seconds and nanoseconds.
    changed: (i64, u32),
}

/// A directory at its mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl RootDirectory {
    /// Creates the root directory. Each call to its file systems is waited for `limit` at most.
    pub(crate) fn new(path: PathBuf, limit: Duration) -> Arc<Self> {
        let calls = Calls::new(limit);
        let places = calls.places(&path.display().to_string());
        Arc::new(Self { path, calls, places, state: Mutex::default(), replaced: bounded(1) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory that is at the path now.
    ///
    /// # Errors
    ///
    /// Those of openat2(2); [`io::ErrorKind::TimedOut`] if the file system does not answer.
    pub(crate) async fn open(self: &Arc<Self>) -> io::Result<OpenRoot> {
        if let Some(root) = self.open_at_once() {
            return Ok(root);
        }
        let path = self.path.clone();
        let call = move || {
            let directory = open_at(CWD, &path, DIRECTORY, ResolveFlags::empty())?;
            let kind = Kind::of(&directory)?;
            Ok((Version::of(&directory)?, kind, directory))
        };
        let (version, kind, directory) = self.places.run(Scope::Any, call).await?;
        let mut state = self.state.lock();
        state.local = kind.is_local.then_some((version, kind));
        let is_replaced = *state.first.get_or_insert(version.identity) != version.identity;
        if state.last.replace(version.identity).is_some_and(|last| last != version.identity) {
            // A message that has not been received is enough.
            _ = self.replaced.0.try_send(());
        }
        drop(state);
        Ok(OpenRoot { directory, first: OnceLock::new(), version, kind, is_replaced, root: self.clone() })
    }

    /// Opens the directory if it is unchanged and on a local file system: its version shows that no other one was mounted over it.
    fn open_at_once(self: &Arc<Self>) -> Option<OpenRoot> {
        let (known, first) = {
            let state = self.state.lock();
            (state.local?, state.first?)
        };
        let directory = open_at(CWD, &self.path, DIRECTORY, ResolveFlags::CACHED).ok()?;
        let version = Version::of(&directory).ok().filter(|version| *version == known.0)?;
        let is_replaced = version.identity != first;
        Some(OpenRoot { directory, first: OnceLock::new(), version, kind: known.1, is_replaced, root: self.clone() })
    }

    /// Notes the directory that is at the path now: only another one is [`replaced`](Self::replaced).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) async fn note_present(self: &Arc<Self>) -> io::Result<()> {
        self.open().await?;
        _ = self.replaced.1.try_recv();
        Ok(())
    }

    /// Waits until a request finds another directory at the path than the one before.
    pub(crate) async fn replaced(&self) {
        // The sender is never closed.
        _ = self.replaced.1.recv().await;
    }

    /// Runs a call about the directory itself on a thread that may block.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.places.run(Scope::Any, call).await
    }
}

impl OpenRoot {
    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.root.path
    }

    #[cfg(test)]
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Returns the version of the directory if every later change will give it another one.
    pub(crate) fn reliable_version(&self) -> Option<Version> {
        Some(self.version).filter(|version| self.kind.stamps_directories && version.is_old())
    }

    /// Returns whether the directory has this version, and its file system changes the version with each entry.
    pub(crate) fn has_version(&self, version: Version) -> bool {
        self.kind.stamps_directories && self.version == version
    }

    /// Returns the names in the directory.
    pub(crate) async fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let directory = self.directory.try_clone()?;
        let scope = if self.kind.is_local { Scope::Local } else { Scope::Any };
        let read = move || {
            let names = Dir::new(open_at(&directory, ".", READ_DIRECTORY, ResolveFlags::empty())?)?
                .map(|entry| Ok(entry?.file_name().to_bytes().to_vec()));
            names.collect::<io::Result<Vec<_>>>()
        };
        self.root.places.run(scope, read).await.map_err(|error| self.explain(error))
    }

    /// Opens a file in a directory of this name. Symbolic links are followed, but not out of the directory.
    ///
    /// # Errors
    ///
    /// Those of openat2(2); an error with a text if the name is not that of a directory; [`io::ErrorKind::TimedOut`] if the file
    /// system does not answer.
    pub(crate) async fn open_in(&self, directory: &str, path: &Path) -> io::Result<ServedFile> {
        self.open_target(Target { directory: Some(directory.into()), path: path.into() }).await
    }

    /// Opens a file of this name in the directory itself. Symbolic links may lead anywhere.
    ///
    /// # Errors
    ///
    /// As [`open_in`](Self::open_in).
    pub(crate) async fn open_named(&self, name: &str) -> io::Result<ServedFile> {
        self.open_target(Target { directory: None, path: Path::new(name).into() }).await
    }

    async fn open_target(&self, target: Target<'_>) -> io::Result<ServedFile> {
        let mut scope = Scope::Any;
        if self.kind.is_local {
            match self.open_at_once(&target) {
                Ok(file) => return ServedFile::new(file, self.kind, None),
                Err(OpenFailure::File(Errno::NOENT)) if target.directory.is_some() => return Err(Errno::NOENT.into()),
                // It is on another mount.
                Err(OpenFailure::Directory(Errno::XDEV) | OpenFailure::File(Errno::XDEV)) => {}
                // Not cached; or the kernel has no RESOLVE_CACHED (before Linux 5.12) or no openat2 (before Linux 5.6); or the error
                // needs an explanation.
                Err(_) => scope = Scope::Local,
            }
        }
        let target = target.into_owned();
        let mut opened = self.open_blocking(scope, target.clone()).await;
        if scope == Scope::Local
            && let Err(error) = &opened
            && let Some(Errno::XDEV | Errno::NOSYS) = Errno::from_io_error(error)
        {
            opened = self.open_blocking(Scope::Any, target).await;
        }
        opened.map_err(|error| self.explain(error))
    }

    /// Opens a target without waiting.
    fn open_at_once(&self, target: &Target<'_>) -> Result<File, OpenFailure> {
        let (root, first) = (self.directory.as_fd(), self.first.get());
        let Some(name) = &target.directory else { return target.open(root, AT_ONCE) };
        if let Some((_, directory)) = first.filter(|(first, _)| **first == **name) {
            return target.open_in(directory, AT_ONCE);
        }
        let directory = open_directory(root, name, AT_ONCE)?;
        let file = target.open_in(&directory, AT_ONCE);
        if first.is_none() {
            _ = self.first.set(((&**name).into(), directory));
        }
        file
    }

    /// Opens a target on a thread that may block. With [`Scope::Local`], it is not on another mount.
    async fn open_blocking(&self, scope: Scope, target: Target<'static>) -> io::Result<ServedFile> {
        let places = self.root.calls.places(&target.entry().display().to_string());
        let root = self.directory.try_clone()?;
        let of_file = places.clone();
        let open = move || {
            let resolve = if scope == Scope::Local { ResolveFlags::NO_XDEV } else { ResolveFlags::empty() };
            let file = target.open(root.as_fd(), resolve).map_err(|failure| target.explain(root.as_fd(), failure))?;
            let kind = Kind::of(&file)?;
            ServedFile::new(file, kind, Some(of_file).filter(|_| !kind.is_local))
        };
        places.run(scope, open).await
    }

    /// Adds the reason to an error: the sandbox allows access only to the directory that was at the path at the start.
    fn explain(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::PermissionDenied && self.is_replaced {
            let text = "it is another directory than at the start: restart rtftp";
            return io::Error::new(io::ErrorKind::PermissionDenied, text);
        }
        error
    }
}

impl Version {
    fn of(directory: impl AsFd) -> io::Result<Self> {
        // What is cached, without asking a server.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(directory, "", flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let identity = Identity { device, inode: stat.stx_ino, mount: stat.stx_mnt_id };
        Ok(Self { identity, changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec) })
    }

    /// Returns whether the change time is reliable.
    fn is_old(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.0.try_into().unwrap_or_default());
        now > changed + MIN_CHANGE_AGE
    }
}

/// An open file, and the thread that may call its file system.
#[derive(Debug)]
pub(crate) struct ServedFile {
    /// `None` only while it is dropped.
    file: Option<File>,
    metadata: Metadata,
    kind: Kind,
    /// The places for calls to the file system; `None` if it is local.
    places: Option<Arc<Places>>,
}

impl ServedFile {
    /// Blocks if the file system is not local.
    fn new(file: File, kind: Kind, places: Option<Arc<Places>>) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { file: Some(file), metadata, kind, places })
    }

    /// Returns the file. Only a local one may be accessed without [`run`](Self::run).
    pub(crate) fn file(&self) -> &File {
        self.file.as_ref().expect("present until it is dropped")
    }

    /// Returns the metadata at the time of opening.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns whether calls to the file wait for local disks at most.
    pub(crate) fn is_local(&self) -> bool {
        self.places.is_none()
    }

    /// Returns the kind of the file's file system.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs a call on a thread that may block.
    ///
    /// # Errors
    ///
    /// Those of the call; [`io::ErrorKind::TimedOut`] if a file system that is not local does not answer.
    pub(crate) async fn run<T: Send + 'static>(
        self: Arc<Self>,
        call: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = self.clone();
        match &self.places {
            Some(places) => places.run(Scope::Any, move || call(file.file())).await,
            None => smol::unblock(move || call(file.file())).await,
        }
    }
}

impl Drop for ServedFile {
    fn drop(&mut self) {
        if let (Some(file), Some(places)) = (mem::take(&mut self.file), &self.places) {
            places.close(file);
        }
    }
}

#[cfg(test)]
mod tests;
