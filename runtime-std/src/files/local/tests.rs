use std::{fs, future::poll_fn, os::unix::fs::symlink, time::Duration};

use rustix::fs::{CWD, FileType, Mode};
use smol::block_on;

use super::*;
use crate::local_fs::RootDirectory;

fn path(name: &str) -> RequestPath {
    RequestPath::parse(name.as_bytes()).expect("a path")
}

/// Opens a file in a directory at this path.
fn open(directory: &Path, name: &str) -> Result<LocalFile, LocalError> {
    let root = RootDirectory::new(directory.parent().expect("a parent").to_owned(), Duration::from_secs(10));
    let root = block_on(root.open()).expect("a directory");
    let name_of_directory = directory.file_name().and_then(OsStr::to_str).expect("a name");
    block_on(LocalFile::open(&root, name_of_directory, &path(name)))
}

/// Reads a whole file in blocks, as a transfer does.
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
fn reads_whole_files_of_all_sizes() {
    let root = tempfile::tempdir().expect("a directory");
    for size in [0, 1, 1467, 1468, 1469, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let content: Vec<u8> = (0..size).map(|at| (at / 5) as u8).collect();
        fs::write(root.path().join("file"), &content).expect("written");
        let mut file = open(root.path(), "file").expect("opened");
        assert_eq!(file.size(), size as u64);
        assert!(read(&mut file) == Ok(content), "{size}");
    }
}

/// A tmpfs rejects `RWF_NOWAIT`.
#[test]
fn reads_tmpfs_without_another_thread() {
    let root = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    fs::write(root.path().join("file"), [7; 3000]).expect("written");
    let mut file = open(root.path(), "file").expect("opened");
    assert!(file.nonblocking == Some(ReadWriteFlags::empty()), "/dev/shm is a tmpfs");
    let mut buf = [0; 3000];
    assert_eq!(file.read_at(0, &mut buf), Ok(Some(3000)));
    assert_eq!(buf, [7; 3000]);
}

#[test]
fn reads_small_blocks_ahead() {
    let root = tempfile::tempdir().expect("a directory");
    let content: Vec<u8> = (0..9000).map(|at| (at / 5) as u8).collect();
    fs::write(root.path().join("file"), &content).expect("written");
    let mut file = open(root.path(), "file").expect("opened");
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
    assert!(file.chunk.bytes.capacity() <= READ_AHEAD);
    assert!(read(&mut file) == Ok(content));
}

#[test]
fn short_reads_only_at_end_of_file() {
    let mut buf = [0; 8];
    let whole = Chunk { offset: 100, bytes: vec![7; CHUNK], is_last: false, version: None };
    assert_eq!(whole.read(99, &mut buf), None);
    assert_eq!(whole.read(100, &mut buf), Some(8));
    assert_eq!(whole.read(100 + CHUNK as u64 - 8, &mut buf), Some(8));
    assert_eq!(whole.read(100 + CHUNK as u64 - 7, &mut buf), None, "the rest is in the next chunk");
    let last = Chunk { offset: 100, bytes: vec![7; 10], is_last: true, version: None };
    assert_eq!(last.read(105, &mut buf), Some(5));
    assert_eq!(last.read(110, &mut buf), Some(0));
    assert_eq!(last.read(111, &mut buf), None);
}

#[test]
fn follows_links_only_within_root() {
    let top = tempfile::tempdir().expect("a directory");
    let root = top.path().join("root");
    fs::create_dir_all(root.join("dir")).expect("made");
    fs::write(top.path().join("secret"), "secret").expect("written");
    fs::write(root.join("dir/file"), "file").expect("written");
    for (target, link) in [("../secret", "out"), ("/etc/passwd", "absolute"), ("..", "up"), ("loop", "loop")] {
        symlink(target, root.join(link)).expect("linked");
    }
    symlink("dir/../dir/file", root.join("in")).expect("linked");
    let open = |name: &str| super::tests::open(&root, name).map(|mut file| read(&mut file));
    assert_eq!(open("in").expect("opened"), Ok(b"file".to_vec()));
    for name in ["out", "absolute", "up/secret", "loop", "dir"] {
        assert!(matches!(open(name), Err(LocalError::Forbidden(_))), "{name}");
    }
    for name in ["missing", "dir/file/x", "dir/missing", &"n".repeat(300)] {
        assert!(matches!(open(name), Err(LocalError::NotFound)), "{name}");
    }
    assert!(matches!(super::tests::open(&root.join("missing"), "x"), Err(LocalError::NotFound)));
}

#[test]
fn refuses_fifo_without_blocking() {
    let root = tempfile::tempdir().expect("a directory");
    rustix::fs::mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
    assert!(matches!(open(root.path(), "fifo"), Err(LocalError::Forbidden(_))));
}

#[test]
fn fails_at_end_of_changed_file() {
    let root = tempfile::tempdir().expect("a directory");
    let name = root.path().join("file");
    let changed = Err(ReadFailed::CHANGED);
    let opened = || {
        fs::write(&name, [1; 3000]).expect("written");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&name).and_then(|file| file.set_modified(long_ago)).expect("set");
        open(root.path(), "file").expect("opened")
    };
    let mut file = opened();
    fs::write(&name, [2; 3000]).expect("written");
    assert_eq!(read(&mut file), changed, "overwritten");
    let mut file = opened();
    File::options()
        .append(true)
        .open(&name)
        .and_then(|mut file| io::Write::write_all(&mut file, b"x"))
        .expect("written");
    assert_eq!(read(&mut file), changed, "longer");
    for len in [0, 1000, 2999] {
        let mut file = opened();
        assert_eq!(file.read_at(0, &mut [0; 512]), Ok(Some(512)));
        File::options().write(true).open(&name).and_then(|file| file.set_len(len)).expect("set");
        assert_eq!(read(&mut file), changed, "shorter");
    }
    let mut file = opened();
    fs::write(root.path().join("new"), [2; 3000]).expect("written");
    fs::rename(root.path().join("new"), &name).expect("renamed");
    assert_eq!(read(&mut file), Ok(vec![1; 3000]), "replaced: the open file is whole");
}
