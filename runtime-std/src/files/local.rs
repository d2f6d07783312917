//! Files in local directories.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fmt,
    fs::{File, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use parking_lot::Mutex;
use rtftp_core::{BlockReader, ReadFailed, RequestPath};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use smol::future::Boxed;

use crate::local_fs::{OpenRoot, ServedFile};

/// The number of bytes read from the disk at a time if the page cache does not have them.
const CHUNK: usize = 256 * 1024;
/// The number of bytes read at a time from a file system that is not local. Each of its transfers keeps this much in memory.
const SMALL_CHUNK: usize = 64 * 1024;
/// The number of cached bytes read at a time if a client takes small blocks one by one. Each transfer keeps this much in memory.
const READ_AHEAD: usize = 6 * 1024;

/// The reason why a local file cannot be opened.
#[derive(Debug)]
pub(crate) enum LocalError {
    NotFound,
    Forbidden(Cow<'static, str>),
    Io(io::Error),
}

/// A regular file. Cached bytes of a local file system are read directly from the page cache; others are read on a thread that may
/// block, so that a slow disk delays only this transfer.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: Arc<ServedFile>,
    /// The path for log messages.
    path: Box<Path>,
    /// The version that was opened.
    version: Version,
    /// The flags of preadv2(2) that read without waiting for a disk; `None` if the file system is not local.
    nonblocking: Option<ReadWriteFlags>,
    /// The bytes that were last read, unless they were read directly to their destination.
    chunk: Chunk,
    /// The offset of the last read that found its bytes missing.
    missing: u64,
    loading: Option<Loading>,
    failed: Option<ReadFailed>,
}

/// A read on another thread. The mutex makes it `Sync`; it is never locked.
struct Loading(Mutex<Boxed<io::Result<Chunk>>>);

/// A version of a file. The inode's change time (ctime) is left out: replacing the file by `rename` changes it, and the open file is
/// still whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: Option<SystemTime>,
}

/// Consecutive bytes of a file.
#[derive(Debug, Default)]
struct Chunk {
    offset: u64,
    bytes: Vec<u8>,
    /// Whether the chunk ends at the end of the file.
    is_last: bool,
    /// The version of the file after the chunk was read, if the file system is not local or the chunk is the whole file.
    version: Option<Version>,
}

impl LocalFile {
    /// Opens a file in a directory of this name in the root directory. Symbolic links are followed, but not out of the directory.
    pub(crate) async fn open(root: &OpenRoot, directory: &str, path: &RequestPath) -> Result<Self, LocalError> {
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let file = root.open_in(directory, path).await.map_err(LocalError::from_open)?;
        if !file.metadata().is_file() {
            return Err(LocalError::Forbidden("not a regular file".into()));
        }
        Ok(Self {
            path: root.path().join(directory).join(path).into(),
            version: Version::of(file.metadata()),
            nonblocking: file.is_local().then(|| file.kind().nonblocking_read_flags()),
            file: Arc::new(file),
            chunk: Chunk::default(),
            missing: 0,
            loading: None,
            failed: None,
        })
    }

    /// Returns the size of the opened version in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.version.size
    }

    /// Returns the modification time of the opened version.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        self.version.modified
    }

    /// Loads the bytes that the last read lacked; see [`OpenFile::poll_ready`](super::OpenFile::poll_ready).
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (file, offset, is_local) = (&self.file, self.missing, self.nonblocking.is_some());
        let loading = self.loading.get_or_insert_with(|| {
            let read =
                move |file: &File| if is_local { read_chunk(file, offset, CHUNK) } else { read_and_stat(file, offset) };
            Loading(Mutex::new(Box::pin(file.clone().run(read))))
        });
        match ready!(loading.0.get_mut().as_mut().poll(context)) {
            Ok(chunk) => self.chunk = chunk,
            Err(error) => {
                // It is logged once for all files of the directory.
                let has_timed_out = !is_local && error.kind() == io::ErrorKind::TimedOut;
                let level = if has_timed_out { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "{}: cannot read at byte {offset}: {error}", self.path.display());
                self.failed = Some(if has_timed_out {
                    ReadFailed("its file system does not answer")
                } else {
                    ReadFailed::UNREADABLE
                });
            }
        }
        self.loading = None;
        Poll::Ready(())
    }

    /// Fills `buf` from the page cache. Returns `None` if the cache does not have all of it.
    fn read_cached(&mut self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let flags = self.nonblocking?;
        let read = |buf: &mut [u8]| preadv2(self.file.file(), &mut [io::IoSliceMut::new(buf)], offset, flags).ok();
        let blocks = READ_AHEAD / buf.len().max(1);
        // Reading ahead saves no calls if the blocks are large.
        if blocks < 2 {
            return read(buf).filter(|&read| read == buf.len());
        }
        let rest = usize::try_from(self.version.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = &mut self.chunk.bytes;
        bytes.resize((blocks * buf.len()).min(rest), 0);
        let len = read(bytes).unwrap_or_default();
        bytes.truncate(len);
        // Releases the memory of a larger chunk from the disk.
        bytes.shrink_to(READ_AHEAD);
        (self.chunk.offset, self.chunk.is_last, self.chunk.version) = (offset, false, None);
        self.chunk.read(offset, buf)
    }

    /// Returns the file if calls to it wait for local disks at most.
    pub(crate) fn file(&self) -> Option<&Arc<ServedFile>> {
        self.nonblocking.map(|_| &self.file)
    }

    /// Returns a text that changes with the contents of the file.
    pub(crate) fn version_text(&self) -> String {
        let modified = self.version.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        format!("{:x}-{:x}", self.version.size, modified.unwrap_or_default().as_nanos())
    }

    /// Checks that the file is still the opened version.
    pub(crate) async fn verify(&self) -> Result<(), ReadFailed> {
        let version = self.file.clone().run(|file| file.metadata().map(|metadata| Version::of(&metadata))).await;
        if version.is_ok_and(|version| version == self.version) { Ok(()) } else { Err(ReadFailed::CHANGED) }
    }

    /// Returns whether the file is still the opened version, according to its inode.
    fn is_unchanged(&mut self) -> bool {
        if let Some(version) = &self.chunk.version {
            return *version == self.version;
        }
        let is_unchanged = self.file.file().metadata().is_ok_and(|metadata| Version::of(&metadata) == self.version);
        // The chunk is the whole file: later changes do not concern it.
        if is_unchanged && self.chunk.bytes.len() as u64 == self.version.size {
            self.chunk.version = Some(self.version);
        }
        is_unchanged
    }
}

impl BlockReader for LocalFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let rest = self.version.size.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let buf = &mut buf[..len];
        let Some(read) = self.chunk.read(offset, buf).or_else(|| self.read_cached(offset, buf)) else {
            self.missing = offset;
            return Ok(None);
        };
        // A client has the whole file only after the last block: checks before it that all blocks are of one version.
        let is_end = len as u64 == rest;
        if read < len || is_end && !self.is_unchanged() { Err(ReadFailed::CHANGED) } else { Ok(Some(read)) }
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Chunk {
    /// Copies bytes from the chunk, fewer than `buf` takes only at the end of the file. Returns `None` if the chunk does not have them.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let from = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let rest = self.bytes.get(from..)?;
        if rest.len() < buf.len() && !self.is_last {
            return None;
        }
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Some(len)
    }
}

/// Reads a chunk; blocks until the disk has answered.
fn read_chunk(file: &File, offset: u64, max_len: usize) -> io::Result<Chunk> {
    let mut bytes = vec![0; max_len];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(Chunk { offset, bytes, is_last: len < max_len, version: None })
}

/// Reads a chunk of a file that is not on a local file system, and its version after that.
fn read_and_stat(file: &File, offset: u64) -> io::Result<Chunk> {
    let chunk = read_chunk(file, offset, SMALL_CHUNK)?;
    Ok(Chunk { version: Some(Version::of(&file.metadata()?)), ..chunk })
}

impl fmt::Debug for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loading")
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Forbidden(reason) => write!(f, "forbidden: {reason}"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl LocalError {
    /// Maps an error of openat2(2).
    fn from_open(error: io::Error) -> Self {
        let forbidden = |reason: &'static str| Self::Forbidden(reason.into());
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Self::NotFound,
            Some(Errno::ACCESS | Errno::PERM) => forbidden("the server may not read it: permission denied"),
            Some(Errno::XDEV) => forbidden("a symbolic link leads out of the root"),
            Some(Errno::LOOP) => forbidden("too many symbolic links"),
            Some(Errno::NXIO | Errno::NODEV) => forbidden("not a regular file"),
            Some(Errno::NOSYS) => Self::Io(io::Error::other(
                "openat2 is not available: it needs Linux 5.6, and a unit without DynamicUser= and RestrictSUIDSGID=",
            )),
            None if error.kind() == io::ErrorKind::PermissionDenied => {
                Self::Forbidden(format!("the server may not read it: {error}").into())
            }
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests;
