//! Opens files relative to a directory with openat2(2).

use std::{
    borrow::Cow,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat},
    io::Errno,
    path::Arg,
};

/// Opens a directory without any access to its file system.
pub(super) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Opens a directory to read its entries.
pub(super) const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Non-blocking, because opening a FIFO would wait for a writer.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A file to open in the root directory.
#[derive(Debug, Clone)]
pub(super) struct Target<'p> {
    /// The directory that contains the file: symbolic links are followed, but not out of it. `None` for a file in the root directory
    /// itself, where links may lead anywhere.
    pub(super) directory: Option<Cow<'p, str>>,
    pub(super) path: Cow<'p, Path>,
}

/// The reason why a file cannot be opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum OpenFailure {
    /// The directory that contains the file cannot be opened.
    Directory(Errno),
    File(Errno),
}

impl Target<'_> {
    pub(super) fn into_owned(self) -> Target<'static> {
        let directory = self.directory.map(|directory| Cow::Owned(directory.into_owned()));
        Target { directory, path: Cow::Owned(self.path.into_owned()) }
    }

    /// Returns the path of its entry in the root directory.
    pub(super) fn entry(&self) -> &Path {
        self.directory.as_ref().map_or(&self.path, |directory| Path::new(&**directory))
    }

    /// Opens the file with these flags beside its own. With `CACHED | NO_XDEV` it does not wait if the root directory is on a local
    /// file system.
    pub(super) fn open(&self, root: BorrowedFd<'_>, resolve: ResolveFlags) -> Result<File, OpenFailure> {
        match &self.directory {
            Some(name) => self.open_in(&open_directory(root, name, resolve)?, resolve),
            None => open_at(root, &*self.path, FILE, resolve).map(File::from).map_err(OpenFailure::File),
        }
    }

    /// Opens the file, as [`open`](Self::open) does, in its directory.
    pub(super) fn open_in(&self, directory: &OwnedFd, resolve: ResolveFlags) -> Result<File, OpenFailure> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = open_at(directory, &*self.path, FILE, resolve | beneath);
        opened.map(File::from).map_err(OpenFailure::File)
    }

    /// Returns the error with the reason that the entry in the root directory gives. Blocks.
    pub(super) fn explain(&self, root: BorrowedFd<'_>, failure: OpenFailure) -> io::Error {
        let is_link = || {
            let stat = statat(root, self.entry(), AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
        };
        match (failure, &self.directory) {
            (OpenFailure::Directory(Errno::NOTDIR), _) => io::Error::other("it is a file: expected a directory"),
            (OpenFailure::Directory(Errno::NOENT), _) if is_link() => {
                io::Error::other("it is a symbolic link to a directory that does not exist")
            }
            (OpenFailure::File(Errno::NOENT), None) if is_link() => {
                io::Error::other("it is a symbolic link to a file that does not exist")
            }
            (OpenFailure::Directory(Errno::ACCESS) | OpenFailure::File(Errno::ACCESS), _) if is_link() => {
                let error = io::Error::from(Errno::ACCESS);
                let text =
                    "if the link was changed after the start, restart rtftp: its sandbox allows the old target only";
                io::Error::new(io::ErrorKind::PermissionDenied, format!("{error}; {text}"))
            }
            (OpenFailure::Directory(errno) | OpenFailure::File(errno), _) => errno.into(),
        }
    }
}

/// Opens the directory of this name in the root directory.
pub(super) fn open_directory(root: BorrowedFd<'_>, name: &str, resolve: ResolveFlags) -> Result<OwnedFd, OpenFailure> {
    open_at(root, name, DIRECTORY, resolve).map_err(OpenFailure::Directory)
}

/// Opens a path. Kernels without openat2 are supported if `resolve` is empty.
pub(super) fn open_at(
    directory: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    if resolve.is_empty() {
        return openat(directory, path, flags, Mode::empty());
    }
    loop {
        match openat2(&directory, path, flags, Mode::empty(), resolve) {
            // A directory of the path was renamed at the same time.
            Err(Errno::AGAIN) if !resolve.contains(ResolveFlags::CACHED) => {}
            opened => return opened,
        }
    }
}
