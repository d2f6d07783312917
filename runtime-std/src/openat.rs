//! Opens local files without blocking the thread: inline if the kernel's caches suffice, otherwise on a thread that may block.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::{Errno, ReadWriteFlags},
};

/// Opens a path relative to a directory, or to the working directory. The descriptor is closed in child processes.
///
/// A file system in user space (FUSE) can still block the thread, even if its names are cached.
///
/// # Errors
///
/// Returns the errors of openat2(2). Kernels without openat2 are supported if `resolve` is empty.
pub(crate) async fn open(
    directory: Option<&OwnedFd>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let from = directory.map_or(CWD, AsFd::as_fd);
    match openat2(from, path, flags, Mode::empty(), resolve | ResolveFlags::CACHED) {
        // Not cached; or the kernel has no RESOLVE_CACHED (before Linux 5.12) or no openat2 (before Linux 5.6).
        Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS) => {
            let directory = directory.map(OwnedFd::try_clone).transpose()?;
            let path = path.to_owned();
            smol::unblock(move || open_blocking(directory.as_ref(), &path, flags, resolve)).await
        }
        opened => Ok(opened?),
    }
}

/// Opens a path; blocks until the file system has answered.
fn open_blocking(
    directory: Option<&OwnedFd>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let from = directory.map_or(CWD, AsFd::as_fd);
    if resolve.is_empty() {
        return Ok(openat(from, path, flags, Mode::empty())?);
    }
    loop {
        match openat2(from, path, flags, Mode::empty(), resolve) {
            // A directory of the path was renamed at the same time.
            Err(Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
}

/// Returns the flags of preadv2(2) that read a file without waiting for a disk.
pub(crate) fn nonblocking_read_flags(file: impl AsFd) -> ReadWriteFlags {
    // A tmpfs rejects RWF_NOWAIT, and never waits for a disk.
    let is_in_memory = fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC);
    if is_in_memory { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use smol::block_on;

    use super::*;

    /// A directory on a disk and one in memory, where the kernel does not cache missing names.
    fn directories() -> [tempfile::TempDir; 2] {
        [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")].map(|directory| directory.expect("a directory"))
    }

    #[test]
    fn opens_cached_and_uncached_files() {
        for parent in directories() {
            fs::write(parent.path().join("new"), "new").expect("written");
            for _ in 0..2 {
                let open = |from: Option<&OwnedFd>, path: PathBuf, flags| {
                    block_on(super::open(from, &path, flags, ResolveFlags::empty()))
                };
                let directory =
                    open(None, parent.path().to_owned(), OFlags::PATH | OFlags::DIRECTORY).expect("it exists");
                let file = open(Some(&directory), "new".into(), OFlags::RDONLY).expect("it exists");
                assert_eq!(io::read_to_string(fs::File::from(file)).expect("readable"), "new");
                let missing = open(Some(&directory), "missing".into(), OFlags::RDONLY).expect_err("missing");
                assert_eq!(missing.kind(), io::ErrorKind::NotFound);
                let error = open(None, parent.path().join("new"), OFlags::DIRECTORY).expect_err("not a directory");
                assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
            }
        }
    }
}
