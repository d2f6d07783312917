//! Files in a directory of this machine.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    future::Future,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rtftp_core::{BlockReader, ReadFailed, RequestPath};
use rustix::{
    fs::{OFlags, ResolveFlags},
    io::{Errno, ReadWriteFlags, preadv2},
};
use smol::Task;

use crate::{
    error::{OpenError, Unavailable},
    openat,
};

/// How much is read at once when the page cache does not have it, in bytes.
const CHUNK: usize = 256 * 1024;
/// How much is read at once when the page cache has it and a client takes small blocks one by one: as many of them as this holds.
/// Each transfer keeps so much in memory.
const AHEAD: usize = 6 * 1024;

/// A regular file. Its bytes come straight from the page cache; only what is not there is read by another thread, so that a
/// slow disk holds up this transfer and no other.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: Arc<File>,
    /// As it was when it was opened.
    opened: Stamp,
    /// How it is read without waiting for a disk.
    now: ReadWriteFlags,
    /// What was read last, and not straight to where it is needed.
    chunk: Chunk,
    /// Where the read that was not possible at once began.
    wanted: u64,
    loading: Option<Task<io::Result<Chunk>>>,
    failed: bool,
}

/// What tells a file from a later state of it.
///
/// Not the time of the inode's own change: a file that was replaced by renaming another over it is still whole.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    /// When its bytes were last changed: seconds and nanoseconds.
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { len: file.len(), modified: (file.mtime(), file.mtime_nsec()) }
    }
}

/// A part of a file.
#[derive(Debug, Default)]
struct Chunk {
    offset: u64,
    bytes: Vec<u8>,
    /// Whether it ends where the file ends.
    last: bool,
}

impl LocalFile {
    /// Opens a file below `root`, which symbolic links never lead out of.
    pub(crate) async fn open(root: &Path, path: &RequestPath) -> Result<Self, OpenError> {
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let root = openat::open(None, root, directory, ResolveFlags::empty()).await.map_err(open_error)?;
        // Non-blocking, or a FIFO would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let name = Path::new(OsStr::from_bytes(path.as_bytes()));
        let file = File::from(openat::open(Some(&root), name, flags, resolve).await.map_err(open_error)?);
        let opened = file.metadata().map_err(unavailable)?;
        if !opened.is_file() {
            return Err(OpenError::Forbidden("not a regular file".into()));
        }
        let opened = Stamp::of(&opened);
        let now = openat::nonblocking_read_flags(&file);
        Ok(Self { file: Arc::new(file), opened, now, chunk: Chunk::default(), wanted: 0, loading: None, failed: false })
    }

    /// The size when it was opened, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.opened.len
    }

    /// See [`OpenFile::poll_ready`](crate::files::open_file::OpenFile::poll_ready).
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (file, offset) = (&self.file, self.wanted);
        let loading = self.loading.get_or_insert_with(|| {
            let file = file.clone();
            smol::unblock(move || read_chunk(&file, offset))
        });
        match ready!(Pin::new(loading).poll(context)) {
            Ok(chunk) => self.chunk = chunk,
            Err(error) => {
                log::warn!("reading a local file: {error}");
                self.failed = true;
            }
        }
        self.loading = None;
        Poll::Ready(())
    }

    /// Reads what the page cache holds, without waiting for the disk; `None` unless that is all that is asked.
    fn read_now(&mut self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let read = |buf: &mut [u8]| preadv2(&self.file, &mut [io::IoSliceMut::new(buf)], offset, self.now).ok();
        let blocks = AHEAD / buf.len().max(1);
        // Nothing is to be had ahead of large blocks, or of a whole file.
        if blocks < 2 || buf.len() as u64 == self.opened.len {
            return read(buf).filter(|&read| read == buf.len());
        }
        let bytes = &mut self.chunk.bytes;
        bytes.resize(blocks * buf.len(), 0);
        let len = read(bytes).unwrap_or_default();
        bytes.truncate(len);
        // What another thread has read was many times as much.
        bytes.shrink_to(AHEAD);
        (self.chunk.offset, self.chunk.last) = (offset, false);
        self.chunk.read(offset, buf)
    }

    /// Whether the file is still the one that was opened, as far as its inode tells.
    fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|now| Stamp::of(&now) == self.opened)
    }
}

impl BlockReader for LocalFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        const CHANGED: ReadFailed = ReadFailed("the file changed during the transfer");
        if self.failed {
            return Err(ReadFailed("the file cannot be read"));
        }
        let rest = self.opened.len.saturating_sub(offset);
        let wanted = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let buf = &mut buf[..wanted];
        let Some(read) = self.chunk.read(offset, buf).or_else(|| self.read_now(offset, buf)) else {
            self.wanted = offset;
            return Ok(None);
        };
        // The client completes the file only with its last block: that is the moment to see that it was one file throughout.
        let is_end = wanted as u64 == rest;
        if read < wanted || is_end && !self.is_unchanged() { Err(CHANGED) } else { Ok(Some(read)) }
    }
}

impl Chunk {
    /// Copies what is asked, or what there is of it before the file's end; `None` when that is not in here.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let from = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let rest = self.bytes.get(from..)?;
        if rest.len() < buf.len() && !self.last {
            return None;
        }
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Some(len)
    }
}

/// Reads from the disk, however long it takes.
fn read_chunk(file: &File, offset: u64) -> io::Result<Chunk> {
    let mut bytes = vec![0; CHUNK];
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
    Ok(Chunk { offset, bytes, last: len < CHUNK })
}

fn open_error(error: io::Error) -> OpenError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => OpenError::NotFound,
        Some(Errno::ACCESS | Errno::PERM) => {
            OpenError::Forbidden("the server may not read it: permission denied".into())
        }
        Some(Errno::XDEV) => OpenError::Forbidden("a symbolic link leads out of the root".into()),
        Some(Errno::LOOP) => OpenError::Forbidden("too many symbolic links".into()),
        Some(Errno::NXIO | Errno::NODEV) => OpenError::Forbidden("not a regular file".into()),
        Some(Errno::NOSYS) => unavailable(io::Error::other(
            "needs openat2: Linux 5.6 or later, and a unit without DynamicUser= and RestrictSUIDSGID=, which forbid it",
        )),
        _ => unavailable(error),
    }
}

fn unavailable(error: io::Error) -> OpenError {
    Unavailable { to_client: "the file cannot be read", reason: error.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use std::{fs, future::poll_fn, os::unix::fs::symlink};

    use rustix::fs::{CWD, FileType, Mode};
    use smol::block_on;

    use super::*;

    fn path(name: &str) -> RequestPath {
        RequestPath::parse(name.as_bytes()).expect("a path")
    }

    /// Reads a whole file as a transfer does, in blocks.
    fn read(file: &mut LocalFile) -> Result<Vec<u8>, ReadFailed> {
        let mut all = vec![];
        let mut block = [0; 1468];
        loop {
            match file.read_at(all.len() as u64, &mut block)? {
                None => block_on(poll_fn(|context| file.poll_ready(context))),
                Some(len) => {
                    all.extend_from_slice(&block[..len]);
                    if len < block.len() {
                        return Ok(all);
                    }
                }
            }
        }
    }

    #[test]
    fn files_of_every_size_are_read_whole() {
        let root = tempfile::tempdir().expect("a directory");
        for size in [0, 1, 1467, 1468, 1469, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let content: Vec<u8> = (0..size).map(|at| (at / 5) as u8).collect();
            fs::write(root.path().join("file"), &content).expect("written");
            let mut file = block_on(LocalFile::open(root.path(), &path("file"))).expect("opened");
            assert_eq!(file.size(), size as u64);
            assert!(read(&mut file) == Ok(content), "{size}");
        }
    }

    /// A tmpfs knows no reading without waiting, so every part went through another thread.
    #[test]
    fn a_file_in_memory_is_read_at_once() {
        let root = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        fs::write(root.path().join("file"), [7; 3000]).expect("written");
        let mut file = block_on(LocalFile::open(root.path(), &path("file"))).expect("opened");
        assert!(file.now.is_empty(), "/dev/shm is a tmpfs");
        let mut buf = [0; 3000];
        assert_eq!(file.read_at(0, &mut buf), Ok(Some(3000)));
        assert_eq!(buf, [7; 3000]);
    }

    #[test]
    fn several_small_blocks_are_read_at_once() {
        let root = tempfile::tempdir().expect("a directory");
        let content: Vec<u8> = (0..9000).map(|at| (at / 5) as u8).collect();
        fs::write(root.path().join("file"), &content).expect("written");
        let mut file = block_on(LocalFile::open(root.path(), &path("file"))).expect("opened");
        let mut buf = [0; 4096];
        for (block, at, read) in
            [(1468, 0, 0), (1468, 1468, 0), (4096, 2936, 0), (1468, 4404, 0), (1468, 5872, 5872), (1468, 4404, 4404)]
        {
            assert_eq!(file.read_at(at as u64, &mut buf[..block]), Ok(Some(block)));
            assert!(buf[..block] == content[at..at + block]);
            assert_eq!(
                (file.chunk.offset, file.chunk.bytes.len()),
                (read, content.len().min(read as usize + 5872) - read as usize)
            );
        }
        assert!(file.chunk.bytes.capacity() <= AHEAD);
        assert!(read(&mut file) == Ok(content));
    }

    #[test]
    fn a_chunk_ends_where_the_file_ends() {
        let mut buf = [0; 8];
        let whole = Chunk { offset: 100, bytes: vec![7; CHUNK], last: false };
        assert_eq!(whole.read(99, &mut buf), None);
        assert_eq!(whole.read(100, &mut buf), Some(8));
        assert_eq!(whole.read(100 + CHUNK as u64 - 8, &mut buf), Some(8));
        assert_eq!(whole.read(100 + CHUNK as u64 - 7, &mut buf), None, "the rest is in the next chunk");
        let last = Chunk { offset: 100, bytes: vec![7; 10], last: true };
        assert_eq!(last.read(105, &mut buf), Some(5));
        assert_eq!(last.read(110, &mut buf), Some(0));
        assert_eq!(last.read(111, &mut buf), None);
    }

    #[test]
    fn nothing_outside_the_root_is_opened() {
        let top = tempfile::tempdir().expect("a directory");
        let root = top.path().join("root");
        fs::create_dir_all(root.join("dir")).expect("made");
        fs::write(top.path().join("secret"), "secret").expect("written");
        fs::write(root.join("dir/file"), "file").expect("written");
        for (target, link) in [("../secret", "out"), ("/etc/passwd", "absolute"), ("..", "up"), ("loop", "loop")] {
            symlink(target, root.join(link)).expect("linked");
        }
        symlink("dir/../dir/file", root.join("in")).expect("linked");
        let open = |name: &str| block_on(LocalFile::open(&root, &path(name))).map(|mut file| read(&mut file));
        assert_eq!(open("in").expect("opened"), Ok(b"file".to_vec()));
        for name in ["out", "absolute", "up/secret", "loop", "dir"] {
            assert!(matches!(open(name), Err(OpenError::Forbidden(_))), "{name}");
        }
        for name in ["none", "dir/file/x", "dir/none", &"n".repeat(300)] {
            assert!(matches!(open(name), Err(OpenError::NotFound)), "{name}");
        }
        assert!(matches!(block_on(LocalFile::open(&root.join("none"), &path("x"))), Err(OpenError::NotFound)));
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let root = tempfile::tempdir().expect("a directory");
        rustix::fs::mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
        assert!(matches!(block_on(LocalFile::open(root.path(), &path("fifo"))), Err(OpenError::Forbidden(_))));
    }

    #[test]
    fn a_file_that_changes_is_not_completed() {
        let root = tempfile::tempdir().expect("a directory");
        let name = root.path().join("file");
        let changed = Err(ReadFailed("the file changed during the transfer"));
        let open = || {
            fs::write(&name, [1; 3000]).expect("written");
            let long_ago = std::time::SystemTime::UNIX_EPOCH;
            File::options().write(true).open(&name).and_then(|file| file.set_modified(long_ago)).expect("set");
            block_on(LocalFile::open(root.path(), &path("file"))).expect("opened")
        };
        let mut file = open();
        fs::write(&name, [2; 3000]).expect("written");
        assert_eq!(read(&mut file), changed, "overwritten");
        let mut file = open();
        File::options()
            .append(true)
            .open(&name)
            .and_then(|mut file| io::Write::write_all(&mut file, b"x"))
            .expect("written");
        assert_eq!(read(&mut file), changed, "longer");
        for len in [0, 1000, 2999] {
            let mut file = open();
            assert_eq!(file.read_at(0, &mut [0; 512]), Ok(Some(512)));
            File::options().write(true).open(&name).and_then(|file| file.set_len(len)).expect("set");
            assert_eq!(read(&mut file), changed, "shorter");
        }
        let mut file = open();
        fs::write(root.path().join("new"), [2; 3000]).expect("written");
        fs::rename(root.path().join("new"), &name).expect("renamed");
        assert_eq!(read(&mut file), Ok(vec![1; 3000]), "replaced: the old file is whole");
    }
}
