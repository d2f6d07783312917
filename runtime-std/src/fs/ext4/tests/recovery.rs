//! File systems whose newest changes are only in the journal.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use smol::block_on;

use super::{super::Ext4, image::Image, tree};
use crate::fs::{BlockDevice, Error, FileSystem, ReadFuture, testing::Disk};

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

#[test]
fn journal_is_found_by_its_inode() {
    // `tune2fs -I` moves the journal and leaves the superblock's copy of its map as it was.
    for (size, options, count, commits) in [
        // The first blocks of the kernel, before its first indirect block.
        (16 << 20, "-t ext3 -b 1024 -I 128 -J size=4", 11, 3),
        // Here only a part of the journal from its block 4,070 on moves, so its old superblock is still valid.
        (96 << 20, "-t ext4 -b 1024 -I 128 -O ^flex_bg,^metadata_csum,^64bit -J size=8,location=28700K", 280, 15),
    ] {
        let root = tempfile::tempdir().expect("a temporary directory");
        tree::create_boot_disk(root.path());
        let image = Image::sparse(options, size, root.path());
        let map = image.query("blocks <8>");
        image.tune2fs(&["-I", "256"]);
        assert_ne!(image.query("blocks <8>"), map, "{options}: the journal has not moved");
        let before = tree::read_all(&image.open(), &image.bytes());
        let kernel = image.query("blocks /boot/vmlinuz-6.1");
        let blocks: Vec<&str> = kernel.split_whitespace().skip(1).take(count).collect();
        for seed in 0..commits {
            commit_block(&image, &blocks.join(","), &tree::noise(seed, count * 1024));
        }
        let filesystem = image.open();
        assert_eq!(filesystem.warning(), None, "{options}");
        let recovered = tree::read_all(&filesystem, &image.bytes());
        assert!(recovered != before, "{options}: the journal has no effect");
        image.check();
        assert!(recovered == tree::read_all(&image.open(), &image.bytes()), "{options}");
    }
}

#[test]
fn copy_of_the_journals_map_is_used_only_if_the_inode_is_unusable() {
    let (image, blocks) = made("-t ext4 -b 1024 -O ^metadata_csum");
    commit_block(&image, &blocks[1], &tree::noise(7, 1024));
    let expected = tree::read_all(&image.open(), &image.bytes());
    image.debugfs("clri <8>\n");
    let filesystem = image.open();
    assert!(expected == tree::read_all(&filesystem, &image.bytes()));
    let warning = filesystem.warning().expect("a warning");
    assert!(warning.contains("inode 8") && warning.contains("newest changes may be missing"), "{warning}");
}

/// A disk whose owner writes the blocks in the journal to their places after some reads.
#[derive(Debug)]
struct Checkpointed {
    images: [Vec<u8>; 2],
    reads_left: AtomicUsize,
}

impl BlockDevice for Checkpointed {
    fn size(&self) -> u64 {
        self.images[0].size()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let left = self.reads_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        self.images[usize::from(left.is_err())].read(offset, len)
    }
}

#[test]
fn uses_nothing_that_was_read_before_the_journal() {
    const KERNEL: &str = "/boot/vmlinuz-6.1";
    let (image, _) = made("-t ext4 -b 1024 -O ^metadata_csum");
    // "Inode 13 is part of block group 0\n\tlocated at block 37, offset 0x0c00"
    let location = image.query(&format!("imap {KERNEL}"));
    let mut words = location.rsplit("block ").next().expect("a place").split(", offset 0x");
    let block: usize = words.next().expect("a block").parse().expect("a number");
    let offset = usize::from_str_radix(words.next().expect("an offset").trim(), 16).expect("a number");
    let mut inodes = image.bytes()[block * 1024..][..1024].to_vec();
    // The lowest byte of its size.
    inodes[offset + 4] ^= 1;
    commit_block(&image, &block.to_string(), &inodes);
    let committed = image.bytes();
    image.check();
    let images = [committed, image.bytes()];
    let size = |reads: usize| {
        let checkpointed = Checkpointed { images: images.clone(), reads_left: AtomicUsize::new(reads) };
        let disk = Disk::new(checkpointed);
        let filesystem = block_on(Ext4::open(disk.volume())).expect("readable").expect("an ext file system");
        let kernel = block_on(filesystem.map(tree::resolve(&filesystem, KERNEL))).expect("a readable file");
        (kernel.size, disk.reads() <= reads)
    };
    let (expected, _) = size(0);
    for reads in 1.. {
        let (size, is_complete) = size(reads);
        assert_eq!(size, expected, "written after {reads} reads");
        if is_complete {
            break;
        }
    }
}
