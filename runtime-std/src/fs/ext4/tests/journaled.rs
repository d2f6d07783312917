//! What is only in the journal.

use std::fs;

use super::{image::Made, tree};
use crate::fs::{Error, FileSystem};

/// A boot disk, and the blocks of its kernel.
fn made(options: &str) -> (Made, Vec<String>) {
    let root = tempfile::tempdir().expect("a directory for a tree");
    tree::make_small(root.path());
    let made = Made::new(options, 8 << 20, root.path());
    let blocks = made.ask("blocks /boot/vmlinuz-6.1").split_whitespace().map(str::to_owned).collect();
    (made, blocks)
}

/// Commits another content of a block to the journal.
fn commit(made: &Made, block: &str, content: &[u8]) {
    let file = made.beside("block");
    fs::write(&file, content).expect("room for a block");
    made.debugfs(&format!("journal_open\njournal_write -b {block} {}\njournal_close\n", file.display()));
}

#[test]
fn a_file_system_is_read_as_if_its_journal_had_been_replayed() {
    for options in ["-t ext4 -b 1024", "-t ext3 -b 1024", "-t ext4 -b 1024 -O ^64bit,^metadata_csum"] {
        let (made, blocks) = made(options);
        let before = tree::in_ext(&made.ext(), &made.bytes());
        commit(&made, &blocks[1], &tree::noise(7, 1024));
        // It begins as the journal's own blocks do.
        commit(&made, &blocks[20], &[&[0xc0, 0x3b, 0x39, 0x98][..], &tree::noise(8, 1020)].concat());
        let ext = made.ext();
        assert!(ext.is_in_use());
        let found = tree::in_ext(&ext, &made.bytes());
        assert!(found != before, "{options}: something was committed");
        made.check();
        let replayed = made.ext();
        assert!(!replayed.is_in_use());
        assert!(found == tree::in_ext(&replayed, &made.bytes()), "{options}");
    }
}

#[test]
fn the_superblock_is_read_from_the_journal_too() {
    let (made, _) = made("-t ext4 -b 1024 -O ^metadata_csum");
    let mut superblock = made.bytes()[1024..2048].to_vec();
    superblock[0x38] = 0;
    commit(&made, "1", &superblock);
    assert!(
        matches!(made.open().1, Err(Error::Corrupt(text)) if text.to_string().contains("superblock of another file system"))
    );
}
