//! Damaged disks: what has two copies is read from the other one.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt as _};

use smol::block_on;
use tempfile::NamedTempFile;

use super::{Btrfs, checksum, image, open};
use crate::fs::{
    Error, FileMap, FileSystem,
    testing::tree::{self, Tree},
};

/// The size of nodes, and of blocks of contents, in bytes.
const NODE: usize = 16 << 10;
const BLOCK: usize = 4096;
const KERNEL: &str = "boot/vmlinuz-6.1";

/// Returns an image with two copies of everything, and what is in it.
fn image_with_copies(options: &str) -> (NamedTempFile, Tree) {
    let root = tempfile::tempdir().expect("a directory");
    tree::create_boot_disk(root.path());
    let image = image(&format!("-m dup -d dup {options}"), root.path());
    (image, tree::of_directory(root.path()))
}

/// Changes a byte of an image. A second time, it becomes what it was.
fn flip(image: &NamedTempFile, at: usize) {
    let mut byte = [0];
    image.as_file().read_exact_at(&mut byte, at as u64).expect("a byte");
    image.as_file().write_all_at(&[byte[0] ^ 1], at as u64).expect("a byte");
}

/// Returns the places of the nodes that have two copies.
fn copies(disk: &[u8]) -> Vec<[usize; 2]> {
    let uuid = &disk[0x1_0020..0x1_0030];
    let mut nodes = BTreeMap::<[u8; 8], Vec<usize>>::new();
    for at in (0..=disk.len() - NODE).step_by(BLOCK) {
        let node = &disk[at..at + NODE];
        if &node[32..48] == uuid && node[..4] == checksum(node) {
            nodes.entry(node[48..56].try_into().expect("an address")).or_default().push(at);
        }
    }
    nodes.into_values().filter_map(|places| places.try_into().ok()).collect()
}

#[test]
fn damaged_metadata_is_read_from_the_other_copy() {
    let (image, expected) = image_with_copies("");
    let nodes = copies(&fs::read(image.path()).expect("an image"));
    assert!(nodes.len() > 5, "{nodes:?}");
    for copy in 0..2 {
        nodes.iter().for_each(|node| flip(&image, node[copy] + 200));
        let (disk, filesystem) = open(image.path());
        let filesystem: Btrfs = filesystem.expect("a readable file system").expect("btrfs");
        assert_eq!(tree::read_all(&filesystem, disk.as_ref()), expected, "copy {copy}");
        nodes.iter().for_each(|node| flip(&image, node[copy] + 200));
    }
    nodes.iter().flatten().for_each(|at| flip(&image, at + 200));
    assert!(matches!(open(image.path()).1, Err(Error::Corrupt(_))), "both copies are damaged");
}

/// Maps the kernel, and reads it.
fn read_kernel(image: &NamedTempFile) -> (FileMap, Result<Vec<u8>, Error>) {
    let (disk, filesystem) = open(image.path());
    let filesystem = filesystem.expect("a readable file system").expect("btrfs");
    let map = block_on(filesystem.map(tree::resolve(&filesystem, KERNEL))).expect("a readable file");
    let read = block_on(map.read(disk.as_ref(), 0, map.size as usize)).map(|bytes| bytes.into_vec());
    (map, read)
}

#[test]
fn damaged_contents_are_read_from_the_other_copy() {
    for options in ["", "--csum xxhash", "--csum sha256", "--csum blake2"] {
        let (image, _) = image_with_copies(options);
        let disk = fs::read(image.path()).expect("an image");
        let (map, intact) = read_kernel(&image);
        let intact = intact.expect("a readable file");
        assert_eq!(intact.len(), 300_000);
        let starts = map.extents.iter().flat_map(|extent| {
            (extent.disk_offset..extent.disk_offset + extent.len).step_by(BLOCK).map(|at| at as usize)
        });
        let blocks: Vec<usize> = starts.collect();
        blocks.iter().for_each(|at| flip(&image, at + 17));
        assert_eq!(read_kernel(&image).1.as_deref(), Ok(&intact[..]), "{options}");
        // The other copy of the block in the middle.
        let middle = blocks[blocks.len() / 2];
        let is_copy = |at: &usize| *at != middle && disk[*at..at + BLOCK] == disk[middle..middle + BLOCK];
        let other = (0..disk.len()).step_by(BLOCK).find(is_copy).expect("the other copy");
        flip(&image, other);
        let error = read_kernel(&image).1.expect_err("both copies are damaged").to_string();
        assert_eq!(error, "file: checksum mismatch: damaged, or being written", "{options}");
    }
}
