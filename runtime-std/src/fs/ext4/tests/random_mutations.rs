//! Images with random mutations: reading them ends within limits of time and memory.

use std::path::Path;

use super::{image::Image, tree};
use crate::fs::{ext4::DRIVER, testing::mutations};

/// The number of mutated disks of each file system.
const MUTATIONS: u64 = 500;

#[test]
fn reads_mutated_disks_within_limits() {
    let root = tempfile::tempdir().expect("a temporary directory");
    create_tree(root.path());
    let kinds = [
        "-t ext2 -b 1024 -N 64",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum,inline_data",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,meta_bg,^resize_inode",
        "-t ext3 -b 2048 -N 64",
    ];
    for kind in kinds {
        let image = Image::sparse(kind, 4 << 20, root.path());
        image
            .debugfs(&(1..30).fold(String::new(), |all, at| format!("{all}punch /boot/vmlinuz-6.1 {0} {0}\n", at * 2)));
        mutations::check(&DRIVER, kind, image.bytes(), MUTATIONS, 8);
    }
}

/// Creates files of zeros, links, and a directory of several blocks.
fn create_tree(root: &Path) {
    tree::create_boot_disk(root);
    for (name, len) in [("vmlinuz-6.1", 300_000), ("sparse", 500_000), ("short", 100)] {
        std::fs::write(root.join("boot").join(name), vec![0; len]).expect("a file");
    }
    for name in ["a", "b"] {
        std::fs::write(root.join("boot/grub").join(name.repeat(250)), "").expect("a file");
    }
}
