//! Reads images of `mkfs.btrfs`: trees of files, and random mutations.

mod damage;
mod images;

use std::{fs::File, path::Path, sync::Arc};

use smol::block_on;

use super::{Btrfs, DRIVER};
use crate::fs::{
    Error, FileSystem,
    testing::{Disk, mutations, run, tree},
};

/// The options of `mkfs.btrfs` to test, and the size of the largest directory.
const KINDS: [(&str, usize); 9] = [
    ("", 5000),
    ("-m single", 300),
    ("--csum xxhash", 300),
    ("--csum sha256", 300),
    ("--csum blake2", 300),
    ("--mixed", 300),
    ("-n 65536 -m dup -d dup", 300),
    ("-n 4096 -O ^no-holes", 5000),
    ("-O ^skinny-metadata,^extref -R free-space-tree", 300),
];
/// The size of an image in bytes.
const SIZE: u64 = 256 << 20;

/// Creates an image with `mkfs.btrfs`, its options and a copy of a directory.
fn image(options: &str, root: &Path) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().expect("a file for an image");
    image.as_file().set_len(SIZE).expect("space for an image");
    let (root, path) = (root.to_str().expect("UTF-8"), image.path().to_str().expect("UTF-8"));
    run("mkfs.btrfs", ["-q", "--rootdir", root].into_iter().chain(options.split_whitespace()).chain([path]));
    image
}

fn open(image: &Path) -> (Arc<Disk>, Result<Option<Btrfs>, Error>) {
    let disk = Disk::new(File::open(image).expect("an image"));
    let filesystem = block_on(Btrfs::open(disk.volume()));
    (disk, filesystem)
}

#[test]
fn reads_every_file_system_as_written() {
    for (options, names) in KINDS {
        let root = tempfile::tempdir().expect("a directory");
        tree::create(root.path(), names);
        // `mkfs.btrfs` would write all of it.
        std::fs::remove_file(root.path().join("sparse/huge")).expect("a file");
        let expected = tree::of_directory(root.path());
        let image = image(options, root.path());
        let (disk, filesystem) = open(image.path());
        let filesystem = filesystem.expect("a readable file system").expect("btrfs");
        assert_eq!((filesystem.name(), filesystem.is_in_use()), ("btrfs", false), "{options}");
        let found = tree::read_all(&filesystem, disk.as_ref());
        for (path, found) in &found {
            assert_eq!(Some(found), expected.get(path), "{options}: {}", path.escape_ascii());
        }
        assert_eq!(found.len(), expected.len(), "{options}");
        for path in found.keys().filter_map(|path| str::from_utf8(path).ok()) {
            assert_eq!(tree::resolve(&filesystem, path).file_type, found[path.as_bytes()].file_type(), "{path}");
        }
        let root = filesystem.root();
        assert_eq!(block_on(filesystem.lookup(root, b"missing")), Ok(None));
    }
}

/// Returns the CRC-32C of a structure from its 33rd byte on, as its first bytes.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(&bytes[32..]).to_le_bytes()
}

#[test]
fn any_mutation_is_read_within_limits() {
    let root = tempfile::tempdir().expect("a directory");
    tree::create_boot_disk(root.path());
    let image = image("--mixed -n 4096", root.path());
    let disk = std::fs::read(image.path()).expect("an image");
    let nodes: Vec<u64> = (0..disk.len() as u64)
        .step_by(4096)
        .filter(|at| disk[*at as usize..][..4] == checksum(&disk[*at as usize..][..4096]))
        .filter(|at| disk[*at as usize..][..4096].iter().any(|byte| *byte != 0))
        .collect();
    assert!(nodes.len() > 5, "{} nodes", nodes.len());
    // With valid checksums, the structures themselves are tested.
    let repair = |disk: &[u8], mut changed: Vec<(u64, u8)>| {
        let touched: std::collections::BTreeSet<u64> = changed.iter().map(|(at, _)| at - at % 4096).collect();
        for at in touched.into_iter().filter(|at| nodes.binary_search(at).is_ok()) {
            let mut bytes = disk[at as usize..][..4096].to_vec();
            for (byte, value) in &changed {
                if (at..at + 4096).contains(byte) {
                    bytes[(byte - at) as usize] = *value;
                }
            }
            changed.extend((at..).zip(checksum(&bytes)));
        }
        changed
    };
    let only_nodes: Vec<u8> = disk.clone();
    mutations::check(&DRIVER, "btrfs", disk, 200, 5);
    mutations::check_repaired(&DRIVER, "btrfs with checksums", only_nodes, 2000, 5, repair);
}
