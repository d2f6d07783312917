//! File systems whose newest changes are only in the journal.

use std::fs;

use super::{image::Image, tree};
use crate::fs::{Error, FileSystem};

/// Creates the image of a boot disk, and returns the blocks of its kernel.
fn made(options: &str) -> (Image, Vec<String>) {
    let root = tempfile::tempdir().expect("a temporary directory");
    tree::create_boot_disk(root.path());
    let image = Image::new(options, 8 << 20, root.path());
    let blocks = image.query("blocks /boot/vmlinuz-6.1").split_whitespace().map(str::to_owned).collect();
    (image, blocks)
}

/// Commits new content of a block to the journal.
fn commit_block(image: &Image, block: &str, content: &[u8]) {
    let file = image.side_file("block");
    fs::write(&file, content).expect("space for a block");
    image.debugfs(&format!("journal_open\njournal_write -b {block} {}\njournal_close\n", file.display()));
}

#[test]
fn reads_file_system_as_after_replay() {
    for options in ["-t ext4 -b 1024", "-t ext3 -b 1024", "-t ext4 -b 1024 -O ^64bit,^metadata_csum"] {
        let (image, blocks) = made(options);
        let before = tree::read_all(&image.open(), &image.bytes());
        commit_block(&image, &blocks[1], &tree::noise(7, 1024));
        // This block starts with the magic number of the journal.
        commit_block(&image, &blocks[20], &[&[0xc0, 0x3b, 0x39, 0x98][..], &tree::noise(8, 1020)].concat());
        let filesystem = image.open();
        assert!(filesystem.is_in_use());
        let recovered = tree::read_all(&filesystem, &image.bytes());
        assert!(recovered != before, "{options}: the journal has no effect");
        image.check();
        let replayed = image.open();
        assert!(!replayed.is_in_use());
        assert!(recovered == tree::read_all(&replayed, &image.bytes()), "{options}");
    }
}

#[test]
fn reads_superblock_from_journal() {
    let (image, _) = made("-t ext4 -b 1024 -O ^metadata_csum");
    let mut superblock = image.bytes()[1024..2048].to_vec();
    superblock[0x38] = 0;
    commit_block(&image, "1", &superblock);
    assert!(
        matches!(image.try_open().1, Err(Error::Corrupt(text)) if text.to_string().contains("superblock of another file system"))
    );
}
