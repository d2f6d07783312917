//! Directory trees: creates test files, and reads trees from directories and from images.

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

use super::Random;
use crate::fs::{BlockDevice, DirectoryEntry, FileMap, FileSystem, FileType, Node};

/// The content of a path.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::fs) enum Content {
    /// A file with its first, middle and last bytes; with all bytes if it is small.
    File {
        size: u64,
        bytes: Arc<[u8]>,
    },
    Directory,
    Link(Vec<u8>),
    Other,
}

impl Content {
    /// Returns the type.
    pub(in crate::fs) fn file_type(&self) -> FileType {
        match self {
            Self::File { .. } => FileType::File,
            Self::Directory => FileType::Directory,
            Self::Link(_) => FileType::Link,
            Self::Other => FileType::Other,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { size, bytes } => write!(f, "a file of {size} bytes, {} of them zeros", zeros(bytes)),
            Self::Directory => write!(f, "a directory"),
            Self::Link(target) => write!(f, "a link to {}", target.escape_ascii()),
            Self::Other => write!(f, "a device"),
        }
    }
}

/// The contents of all paths, which start with `/`.
pub(in crate::fs) type Tree = BTreeMap<Vec<u8>, Content>;

/// Returns pseudo-random bytes without zeros, different for each seed.
pub(in crate::fs) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| (random.next() >> 32) as u8 | 1).collect()
}

/// Creates the files of a small boot disk.
pub(in crate::fs) fn create_boot_disk(root: &Path) {
    fs::create_dir_all(root.join("boot/grub")).expect("a new directory");
    fs::write(root.join("boot/vmlinuz-6.1"), noise(1, 300_000)).expect("a new file");
    fs::write(root.join("boot/grub/grub.cfg"), "set timeout=1\n").expect("a new file");
    symlink("vmlinuz-6.1", root.join("boot/vmlinuz")).expect("a new link");
    symlink("/".repeat(200), root.join("boot/long")).expect("a new link");
    let sparse = OpenFile::create(root.join("boot/sparse")).expect("a new file");
    for at in [0, 20, 300] {
        sparse.write_all_at(b"data", at * 1024).expect("space for it");
    }
}

/// Creates files, links and directories for every special case; the largest directory has `names` entries.
pub(in crate::fs) fn create(root: &Path, names: usize) {
    create_boot_disk(root);
    let write = |path: &str, bytes: &[u8]| fs::write(root.join(path), bytes).expect("a new file");
    for directory in ["many", "sizes", "sparse", "links", "names", "few", "few/empty", "few/one", "special"] {
        fs::create_dir(root.join(directory)).expect("a new directory");
    }
    for number in 0..names {
        write(&numbered_path(number), if number % 100 == 0 { b"some" } else { b"" });
    }
    for size in [0, 1, 59, 60, 61, 100, 130, 150, 160, 1023, 1024, 1025, 4095, 4096, 4097, 70_000, 1_000_000] {
        write(&format!("sizes/{size}"), &noise(size as u64, size));
    }
    for (name, len) in [("holes", 3_000_000), ("unwritten", 1_000_000), ("huge", 4_300_000_000)] {
        let sparse = OpenFile::create(root.join("sparse").join(name)).expect("a new file");
        sparse.set_len(len).expect("a file system with support for sparse files");
        for at in [0, len / 2, len - 4000] {
            sparse.write_all_at(&noise(at, 4000), at).expect("space for it");
        }
    }
    write("sparse/fragmented", &noise(3, 1_600 * 1024));
    for len in [1, 58, 59, 60, 61, 100, 150, 900] {
        create_link(&root.join(format!("links/{len}")), len);
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

/// Creates a symbolic link with a target of `len` bytes.
pub(in crate::fs) fn create_link(path: &Path, len: usize) {
    let target = String::from_utf8(vec![b'a' + (len % 26) as u8; len]).expect("ASCII");
    symlink(target, path).expect("a new link");
}

/// Returns the path of a file in the largest directory.
pub(in crate::fs) fn numbered_path(number: usize) -> String {
    format!("many/one-of-many-names-{number:05}")
}

/// Reads the tree of a local directory.
pub(in crate::fs) fn of_directory(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(root.to_owned(), Vec::new())];
    while let Some((directory, path)) = pending.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = [&path[..], b"/", &entry.file_name().into_vec()].concat();
            let kind = entry.file_type().expect("its type");
            let found = if kind.is_dir() {
                pending.push((entry.path(), path.clone()));
                Content::Directory
            } else if kind.is_symlink() {
                Content::Link(fs::read_link(entry.path()).expect("a link").into_os_string().into_vec())
            } else if kind.is_fifo() {
                Content::Other
            } else {
                let file = OpenFile::open(entry.path()).expect("a file");
                file_content(file.metadata().expect("its size").len(), |at, len| {
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, at).expect("its bytes");
                    bytes
                })
            };
            tree.insert(path, found);
        }
    }
    tree
}

/// Reads the tree of a file system.
pub(in crate::fs) fn read_all(filesystem: &dyn FileSystem, disk: &dyn BlockDevice) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(filesystem.root(), Vec::new())];
    while let Some((directory, path)) = pending.pop() {
        for DirectoryEntry { name, node } in
            block_on(filesystem.read_directory(directory)).expect("a readable directory")
        {
            let path = [&path[..], b"/", &name].concat();
            let found = match node.file_type {
                FileType::Directory => {
                    pending.push((node, path.clone()));
                    Content::Directory
                }
                FileType::Link => Content::Link(block_on(filesystem.read_link(node)).expect("a readable link")),
                FileType::Other => Content::Other,
                FileType::File => read_file(&block_on(filesystem.map(node)).expect("a readable file"), disk),
            };
            assert!(tree.insert(path, found).is_none(), "duplicate name");
        }
    }
    tree
}

/// Reads a file of a file system.
pub(in crate::fs) fn read_file(file: &FileMap, disk: &dyn BlockDevice) -> Content {
    file_content(file.size, |at, len| block_on(file.read(disk, at, len)).expect("readable bytes").into_vec())
}

/// Looks up a path, which must exist.
pub(in crate::fs) fn resolve(filesystem: &dyn FileSystem, path: &str) -> Node {
    path.split('/').filter(|name| !name.is_empty()).fold(filesystem.root(), |directory, name| {
        let found = block_on(filesystem.lookup(directory, name.as_bytes())).expect("a readable directory");
        found.unwrap_or_else(|| panic!("{name} of {path} not found"))
    })
}

/// Returns the content of a file with `bytes`.
pub(in crate::fs) fn file_with(bytes: &[u8]) -> Content {
    file_content(bytes.len() as u64, |at, len| bytes[at as usize..][..len].to_vec())
}

/// Reads a file: all of it, or three parts if it is large.
fn file_content(size: u64, read: impl Fn(u64, usize) -> Vec<u8>) -> Content {
    const PART: u64 = 1 << 20;
    let parts = if size <= PART { vec![0] } else { vec![0, size / 2 - PART / 2, size - PART] };
    let bytes: Vec<_> = parts.into_iter().map(|at| read(at, PART.min(size) as usize)).collect();
    Content::File { size, bytes: bytes.concat().into() }
}

/// Counts the zeros in `bytes`.
fn zeros(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == 0).count()
}
