//! Reads images of `mkfs.xfs`: all forms of metadata, images after a power cut, and random mutations.

mod features;
mod image;
mod log_builder;
mod random_mutations;
mod recovery;

use std::{fs, path::Path};

use self::image::Image;
use crate::fs::{
    FileSystem,
    testing::tree::{self, Content},
};

/// The file systems to test: options of `mkfs.xfs`, and the size of the largest directory.
const KINDS: [(&str, usize); 12] = [
    ("", LARGE),
    ("-m bigtime=0,reflink=0,inobtcount=0 -i sparse=0", SMALL),
    ("-b size=1024 -m rmapbt=1 -i nrext64=1", LARGE),
    ("-b size=16384 -s size=4096 -i size=2048", SMALL),
    ("-b size=65536", SMALL),
    ("-n size=65536", SMALL),
    ("-b size=1024 -n size=8192 -l su=64k", SMALL),
    ("-m crc=0", SMALL),
    ("-m crc=0 -b size=512 -i size=256", LARGE),
    ("-m crc=0 -n ftype=0 -i attr=1,projid32bit=0 -l version=1", SMALL),
    ("-m crc=0 -b size=1024 -n size=4096,ftype=1", SMALL),
    ("-d agcount=1", SMALL),
];

/// The numbers of entries of the largest directory: in the large one, the index is a tree.
const LARGE: usize = 5000;
const SMALL: usize = 300;

#[test]
fn reads_every_file_system_as_written() {
    let trees = [(true, LARGE), (true, SMALL), (false, LARGE), (false, SMALL)].map(|(is_v5, names)| {
        let root = tempfile::tempdir().expect("a temporary directory");
        create_tree(root.path(), names, is_v5);
        let tree = tree::of_directory(root.path());
        (is_v5, names, root, tree)
    });
    for (options, names) in KINDS {
        let is_v5 = !options.contains("crc=0");
        let tree = trees.iter().find(|tree| (tree.0, tree.1) == (is_v5, names)).expect("the tree of this size");
        let (_, _, root, expected) = tree;
        let image = Image::new(options, root.path());
        let (disk, filesystem) = image.try_open();
        let filesystem = filesystem.expect("a readable file system").expect("XFS");
        assert_eq!((filesystem.name(), filesystem.is_in_use()), ("XFS", false), "{options}");
        let found = tree::read_all(&filesystem, disk.as_ref());
        // `mkfs.xfs` 6.13 loses bytes of files with holes that end within a block: Linux reads zeros there as well.
        let may_lose_bytes = ["-b size=16384", "-b size=65536"].iter().any(|size| options.contains(size));
        for (path, found) in &found {
            match (found, expected.get(path)) {
                (Content::File { size, .. }, Some(Content::File { size: expected, .. }))
                    if may_lose_bytes && path.windows(6).any(|part| part == b"sparse") =>
                {
                    assert_eq!(size, expected, "{options}: {}", path.escape_ascii());
                }
                (found, expected) => assert_eq!(Some(found), expected, "{options}: {}", path.escape_ascii()),
            }
            let looked_up = tree::resolve(&filesystem, str::from_utf8(path).expect("UTF-8"));
            assert_eq!(looked_up.file_type, found.file_type(), "{options}: {}", path.escape_ascii());
        }
        let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).collect();
        assert!(missing.is_empty(), "{options}: {missing:?}");
    }
}

/// Creates files, links and directories for the special cases that a description for `mkfs.xfs` can contain.
fn create_tree(root: &Path, names: usize, is_v5: bool) {
    tree::create_boot_disk(root);
    let write = |path: &str, bytes: &[u8]| fs::write(root.join(path), bytes).expect("a new file");
    for directory in ["many", "sizes", "links", "names", "few", "few/empty", "special"] {
        fs::create_dir(root.join(directory)).expect("a new directory");
    }
    for number in 0..names {
        write(&tree::numbered_path(number), if number % 100 == 0 { b"some" } else { b"" });
    }
    for size in [0, 1, 4095, 4096, 4097, 70_000] {
        write(&format!("sizes/{size}"), &tree::noise(size as u64, size));
    }
    // In version 5, some versions of `mkfs.xfs` write long targets without their header.
    let long = if is_v5 { &[330][..] } else { &[330, 900, 1023] };
    for len in [1, 60, 150].into_iter().chain(long.iter().copied()) {
        tree::create_link(&root.join(format!("links/{len}")), len);
    }
    write(&format!("names/{}", "n".repeat(255)), b"long");
    for name in ["M\u{fc}ller", "...", "a"] {
        write(&format!("names/{name}"), name.as_bytes());
    }
    for number in 0..9 {
        write(&format!("few/{number}-of-a-few-names"), b"");
    }
    nix::unistd::mkfifo(&root.join("special/fifo"), nix::sys::stat::Mode::S_IRUSR).expect("a new FIFO");
}
