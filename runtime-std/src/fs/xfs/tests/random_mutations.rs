//! Images with random mutations: reading them ends within limits of time and memory.

use std::path::Path;

use super::{image::Image, tree};
use crate::fs::{testing::mutations, xfs::DRIVER};

/// The number of mutated disks of each file system.
const MUTATIONS: u64 = 200;

/// The number of files in the largest directory, which has an index.
const NAMES: usize = 300;

/// Version 4 has no checksums, which would reject nearly all mutations.
#[test]
fn reads_mutated_disks_within_limits() {
    let root = tempfile::tempdir().expect("a temporary directory");
    create_tree(root.path());
    for kind in ["-m crc=0", "-m crc=0 -b size=512 -i size=256", "-m crc=0 -n size=16384,ftype=0", "-m crc=1"] {
        mutations::check(&DRIVER, kind, Image::new(kind, root.path()).bytes(), MUTATIONS, NAMES + 7);
    }
}

/// Creates files of zeros, links, and a directory with an index.
fn create_tree(root: &Path) {
    tree::create_boot_disk(root);
    for (name, len) in [("vmlinuz-6.1", 300_000), ("sparse", 500_000), ("short", 100)] {
        std::fs::write(root.join("boot").join(name), vec![0; len]).expect("a file");
    }
    tree::create_link(&root.join("boot/remote"), 300);
    for number in 0..NAMES {
        std::fs::write(root.join(format!("boot/grub/module-{number}")), "").expect("a file");
    }
}
