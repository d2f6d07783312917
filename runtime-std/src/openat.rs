//! Files of this machine, looked up and opened: at once if the kernel has all it takes in its caches, which is usual, else by
//! another thread, so that a slow disk holds up one request and no other.

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

/// Opens what a path leads to, from a directory or from where this process is. Programs that this one starts do not get it.
///
/// On a FUSE file system, whoever serves it is waited for even if its names are in the caches.
///
/// # Errors
///
/// As of openat2(2), which is not needed unless `resolve` says something.
pub(crate) async fn open(
    directory: Option<&OwnedFd>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let from = directory.map_or(CWD, AsFd::as_fd);
    match openat2(from, path, flags, Mode::empty(), resolve | ResolveFlags::CACHED) {
        // The caches do not suffice, or the kernel is older than Linux 5.12 or 5.6 and does not know the question.
        Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS) => {
            let directory = directory.map(OwnedFd::try_clone).transpose()?;
            let path = path.to_owned();
            smol::unblock(move || wait_for(directory.as_ref(), &path, flags, resolve)).await
        }
        opened => Ok(opened?),
    }
}

/// The same, however long it takes. Blocks.
fn wait_for(directory: Option<&OwnedFd>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let from = directory.map_or(CWD, AsFd::as_fd);
    if resolve.is_empty() {
        return Ok(openat(from, path, flags, Mode::empty())?);
    }
    loop {
        match openat2(from, path, flags, Mode::empty(), resolve) {
            // A directory on the way was renamed at this moment.
            Err(Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
    }
}

/// How to read a file without waiting for a disk.
pub(crate) fn without_waiting(file: impl AsFd) -> ReadWriteFlags {
    // A tmpfs does not know the question, and has nothing to wait for.
    let is_in_memory = fstatfs(file).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC);
    if is_in_memory { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use smol::block_on;

    use super::*;

    /// A directory on a disk and one in memory, where the kernel does not remember what is not there.
    fn places() -> [tempfile::TempDir; 2] {
        [tempfile::tempdir(), tempfile::tempdir_in("/dev/shm")].map(|place| place.expect("a directory"))
    }

    #[test]
    fn what_the_kernel_knows_and_what_it_does_not_is_opened() {
        for place in places() {
            fs::write(place.path().join("new"), "new").expect("written");
            for _ in 0..2 {
                let open = |from: Option<&OwnedFd>, path: PathBuf, flags| {
                    block_on(super::open(from, &path, flags, ResolveFlags::empty()))
                };
                let directory = open(None, place.path().to_owned(), OFlags::PATH | OFlags::DIRECTORY).expect("there");
                let file = open(Some(&directory), "new".into(), OFlags::RDONLY).expect("there");
                assert_eq!(io::read_to_string(fs::File::from(file)).expect("readable"), "new");
                let none = open(Some(&directory), "none".into(), OFlags::RDONLY).expect_err("not there");
                assert_eq!(none.kind(), io::ErrorKind::NotFound);
                let file = open(None, place.path().join("new"), OFlags::DIRECTORY).expect_err("not a directory");
                assert_eq!(file.kind(), io::ErrorKind::NotADirectory);
            }
        }
    }
}
