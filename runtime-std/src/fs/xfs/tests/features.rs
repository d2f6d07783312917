//! Single features, and the number of reads.

use smol::block_on;

use super::image::Image;
use crate::fs::{Error, FileSystem, Volume, testing::tree, xfs::Xfs};

fn boot_image(options: &str) -> Image {
    let root = tempfile::tempdir().expect("a temporary directory");
    tree::create_boot_disk(root.path());
    Image::new(options, root.path())
}

fn open(bytes: Vec<u8>) -> Result<Option<Xfs>, Error> {
    block_on(Xfs::open(Volume::new(std::sync::Arc::new(bytes))))
}

/// Asserts that an image is not supported, and that the message contains `text`.
fn assert_unsupported(image: &Image, text: &str) {
    let error = image.try_open().1.expect_err("not supported");
    assert!(matches!(&error, Error::Unsupported(problem) if problem.to_string().contains(text)), "{error}");
}

#[test]
fn maps_kernel_with_few_reads() {
    let image = boot_image("");
    let (disk, filesystem) = image.try_open();
    let filesystem = filesystem.expect("a readable file system").expect("XFS");
    let opened = disk.reads();
    block_on(filesystem.map(tree::resolve(&filesystem, "boot/vmlinuz-6.1"))).expect("a file");
    println!("{opened} reads to open, {} to map the kernel", disk.reads() - opened);
    assert!(opened <= 24 && disk.reads() - opened <= 4, "{opened}, {}", disk.reads());
}

#[test]
fn rejects_other_content_and_truncated_images() {
    for len in [0, 1, 511, 512, 1 << 20] {
        assert!(matches!(open(vec![0; len]), Ok(None)), "{len}");
    }
    let mut cut = boot_image("").bytes();
    cut.truncate(cut.len() / 2);
    assert!(matches!(open(cut), Err(Error::Corrupt(text)) if text.to_string().contains("its volume only")));
}

#[test]
fn reports_unsupported_features() {
    let image = boot_image("");
    image.xfs_db(&["sb 0", "write -d features_incompat 0x4000000b"]);
    assert_unsupported(&image, "incompatible feature 0x40000000");
    image.xfs_db(&["sb 0", "write -d features_incompat 0x1b"]);
    assert_unsupported(&image, "needsrepair");
    image.xfs_db(&["sb 0", "write -d features_incompat 0xb", "write -d logstart 0"]);
    assert_unsupported(&image, "log: on another device");
}

#[test]
fn rejects_files_on_the_realtime_device() {
    let image = boot_image("");
    let number = tree::resolve(&image.open(), "boot/vmlinuz-6.1").id;
    image.xfs_db(&[&format!("inode {number}"), "write -d core.realtime 1"]);
    let filesystem = image.open();
    let error = block_on(filesystem.map(tree::resolve(&filesystem, "boot/vmlinuz-6.1"))).expect_err("not supported");
    assert!(
        matches!(&error, Error::Unsupported(text) if text.to_string().ends_with("on the realtime device")),
        "{error}"
    );
}

#[test]
fn detects_damaged_metadata_by_its_checksum() {
    let image = boot_image("-m crc=1");
    let number = tree::resolve(&image.open(), "boot/vmlinuz-6.1").id;
    for (place, damage) in
        [(format!("inode {number}"), "write -c core.gen 7777"), ("sb 0".to_owned(), "write -c fname \"other\"")]
    {
        let damaged = boot_image("-m crc=1");
        damaged.xfs_db(&[&place, damage]);
        let read = damaged.try_open().1.and_then(|filesystem| {
            let filesystem = filesystem.expect("XFS");
            block_on(filesystem.map(tree::resolve(&filesystem, "boot/vmlinuz-6.1")))
        });
        assert!(
            matches!(&read, Err(Error::Corrupt(text)) if text.to_string().contains("checksum mismatch")),
            "{read:?}"
        );
    }
}

#[test]
fn identity_changes_with_each_change_of_a_file() {
    let image = boot_image("");
    let number = tree::resolve(&image.open(), "boot/grub/grub.cfg").id;
    let file = || block_on(image.open().map(tree::resolve(&image.open(), "boot/grub/grub.cfg"))).expect("a file");
    let mut seen = vec![file()];
    assert_eq!(file(), seen[0]);
    for field in ["mtime.sec 1", "mtime.nsec 4", "ctime.sec 1", "ctime.nsec 4", "gen 77", "size 3"] {
        image.xfs_db(&[&format!("inode {number}"), &format!("write -d core.{field}")]);
        let now = file();
        assert!(!seen.contains(&now), "{field}");
        seen.push(now);
    }
    image.xfs_db(&[&format!("inode {number}"), "write -d v3.change_count 777"]);
    assert!(!seen.contains(&file()), "change count");
}
