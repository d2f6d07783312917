//! Trees of files: one that has what is hard to read, and what is found when a file system is walked.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File as OpenFile},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, FileTypeExt, symlink},
    },
    path::Path,
    sync::Arc,
};

use smol::block_on;

use super::super::super::{BlockDevice, DirectoryEntry, FileMap, FileSystem, FileType, Node, ext4::Ext};

/// What is found at a path.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// With its first, its middle and its last bytes; all of them if there are not many.
    File {
        size: u64,
        bytes: Arc<[u8]>,
    },
    Directory,
    Link(Vec<u8>),
    Other,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { size, bytes } => write!(f, "a file of {size} bytes, {} of them zeros", zeros(bytes)),
            Self::Directory => write!(f, "a directory"),
            Self::Link(target) => write!(f, "a link to {}", target.escape_ascii()),
            Self::Other => write!(f, "a device"),
        }
    }
}

/// What is found at all paths, which begin with `/`.
pub(super) type Tree = BTreeMap<Vec<u8>, Found>;

/// Bytes of which none are zeros, and no 256 are like those of another seed or place.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push((state >> 32) as u8 | 1);
    }
    bytes
}

/// Makes the files of a small boot disk.
pub(super) fn make_small(root: &Path) {
    fs::create_dir_all(root.join("boot/grub")).expect("a new directory");
    fs::write(root.join("boot/vmlinuz-6.1"), noise(1, 300_000)).expect("a new file");
    fs::write(root.join("boot/grub/grub.cfg"), "set timeout=1\n").expect("a new file");
    symlink("vmlinuz-6.1", root.join("boot/vmlinuz")).expect("a new link");
    symlink("/".repeat(200), root.join("boot/long")).expect("a new link");
    let sparse = OpenFile::create(root.join("boot/sparse")).expect("a new file");
    for at in [0, 20, 300] {
        sparse.write_all_at(b"data", at * 1024).expect("room for it");
    }
}

/// Makes all that is hard to read; with a directory of so many names.
pub(super) fn make(root: &Path, names: usize) {
    make_small(root);
    let write = |path: &str, bytes: &[u8]| fs::write(root.join(path), bytes).expect("a new file");
    for directory in ["many", "sizes", "sparse", "links", "names", "few", "few/empty", "few/one", "special"] {
        fs::create_dir(root.join(directory)).expect("a new directory");
    }
    for number in 0..names {
        write(&many(number), if number % 100 == 0 { b"some" } else { b"" });
    }
    for size in [0, 1, 59, 60, 61, 100, 130, 150, 160, 1023, 1024, 1025, 4095, 4096, 4097, 70_000, 1_000_000] {
        write(&format!("sizes/{size}"), &noise(size as u64, size));
    }
    for (name, len) in [("holes", 3_000_000), ("unwritten", 1_000_000), ("huge", 4_300_000_000)] {
        let sparse = OpenFile::create(root.join("sparse").join(name)).expect("a new file");
        sparse.set_len(len).expect("a file system that knows sparse files");
        for at in [0, len / 2, len - 4000] {
            sparse.write_all_at(&noise(at, 4000), at).expect("room for it");
        }
    }
    write("sparse/fragmented", &noise(3, 1_600 * 1024));
    for len in [1, 58, 59, 60, 61, 100, 150, 900] {
        symlink(
            String::from_utf8(vec![b'a' + (len % 26) as u8; len]).expect("ASCII"),
            root.join(format!("links/{len}")),
        )
        .expect("a new link");
    }
    write(&format!("names/{}", "n".repeat(255)), b"long");
    for name in [&b"\xff\xfe not UTF-8"[..], "M\u{fc}ller".as_bytes(), b" ", b"...", b"a\nb"] {
        fs::write(root.join("names").join(std::ffi::OsStr::from_bytes(name)), name).expect("a new file");
    }
    write("few/one/name", b"");
    for number in 0..9 {
        write(&format!("few/{number}-of-a-few-names"), b"");
    }
    fs::hard_link(root.join("boot/vmlinuz-6.1"), root.join("boot/hard")).expect("a new name");
    nix::unistd::mkfifo(&root.join("special/fifo"), nix::sys::stat::Mode::S_IRUSR).expect("a new FIFO");
}

/// The path of one of many files.
pub(super) fn many(number: usize) -> String {
    format!("many/one-of-many-names-{number:05}")
}

/// What is in a directory of this machine.
pub(super) fn on_this_machine(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![(root.to_owned(), Vec::new())];
    while let Some((directory, path)) = waiting.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = [&path[..], b"/", &entry.file_name().into_vec()].concat();
            let kind = entry.file_type().expect("its type");
            let found = if kind.is_dir() {
                waiting.push((entry.path(), path.clone()));
                Found::Directory
            } else if kind.is_symlink() {
                Found::Link(fs::read_link(entry.path()).expect("a link").into_os_string().into_vec())
            } else if kind.is_fifo() {
                Found::Other
            } else {
                let file = OpenFile::open(entry.path()).expect("a file");
                file_found(file.metadata().expect("its size").len(), |at, len| {
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, at).expect("its bytes");
                    bytes
                })
            };
            tree.insert(path, found);
        }
    }
    // `mke2fs` makes it.
    tree.insert(b"/lost+found".to_vec(), Found::Directory);
    tree
}

/// What is in a file system.
pub(super) fn in_ext(ext: &Ext, disk: &dyn BlockDevice) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![(ext.root(), Vec::new())];
    while let Some((directory, path)) = waiting.pop() {
        for DirectoryEntry { name, node } in
            block_on(ext.read_directory(directory)).expect("a directory that can be read")
        {
            let path = [&path[..], b"/", &name].concat();
            let found = match node.file_type {
                FileType::Directory => {
                    waiting.push((node, path.clone()));
                    Found::Directory
                }
                FileType::Link => Found::Link(block_on(ext.read_link(node)).expect("a link that can be read")),
                FileType::Other => Found::Other,
                FileType::File => content(&block_on(ext.map(node)).expect("a file that can be read"), disk),
            };
            assert!(tree.insert(path, found).is_none(), "a name is there twice");
        }
    }
    tree
}

/// What a file of a file system is.
pub(super) fn content(file: &FileMap, disk: &dyn BlockDevice) -> Found {
    file_found(file.size, |at, len| block_on(file.read(disk, at, len)).expect("bytes that can be read"))
}

/// Walks down a path, every part of which must be there.
pub(super) fn walk(ext: &Ext, path: &str) -> Node {
    path.split('/').filter(|name| !name.is_empty()).fold(ext.root(), |directory, name| {
        let found = block_on(ext.lookup(directory, name.as_bytes())).expect("a directory that can be read");
        found.unwrap_or_else(|| panic!("{name} of {path} is not there"))
    })
}

/// A file with these bytes in it.
pub(super) fn found(bytes: &[u8]) -> Found {
    file_found(bytes.len() as u64, |at, len| bytes[at as usize..][..len].to_vec())
}

/// A file, of which three parts are looked at if it is large.
fn file_found(size: u64, read: impl Fn(u64, usize) -> Vec<u8>) -> Found {
    const PART: u64 = 1 << 20;
    let parts = if size <= PART { vec![0] } else { vec![0, size / 2 - PART / 2, size - PART] };
    let bytes: Vec<_> = parts.into_iter().map(|at| read(at, PART.min(size) as usize)).collect();
    Found::File { size, bytes: bytes.concat().into() }
}

/// How many of some bytes are zeros.
fn zeros(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == 0).count()
}
