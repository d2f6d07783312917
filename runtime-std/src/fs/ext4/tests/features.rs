//! Single features, and the number of reads.

use std::path::Path;

use smol::block_on;
use tempfile::TempDir;

use super::{
    super::super::{Error, FileSystem, Node, Volume, ext4::Ext4},
    image::Image,
    tree::{self, Content},
};

/// Creates the files of a small boot disk.
fn boot_disk() -> TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    tree::create_boot_disk(root.path());
    root
}

fn boot_image(options: &str) -> Image {
    Image::new(options, 8 << 20, boot_disk().path())
}

fn lookup(filesystem: &Ext4, directory: &str, name: &str) -> Result<Option<Node>, Error> {
    block_on(filesystem.lookup(tree::resolve(filesystem, directory), name.as_bytes()))
}

fn open(bytes: Vec<u8>) -> Result<Option<Ext4>, Error> {
    block_on(Ext4::open(Volume::new(std::sync::Arc::new(bytes))))
}

/// Opens an image with an empty cache and maps the kernel through its symbolic link. Returns the number of reads.
fn reads_to_kernel(image: &Image, root: &Path) -> usize {
    let (disk, filesystem) = image.try_open();
    let filesystem = filesystem.expect("a readable file system").expect("an ext file system");
    let link = tree::resolve(&filesystem, "boot/vmlinuz");
    assert_eq!(block_on(filesystem.read_link(link)).as_deref(), Ok(&b"vmlinuz-6.1"[..]));
    let file = block_on(filesystem.map(tree::resolve(&filesystem, "boot/vmlinuz-6.1"))).expect("a file");
    let reads = disk.reads();
    let expected = std::fs::read(root.join("boot/vmlinuz-6.1")).expect("a file of the tree");
    assert!(tree::read_file(&file, disk.as_ref()) == tree::file_with(&expected));
    reads
}

#[test]
fn maps_kernel_with_few_reads() {
    let root = boot_disk();
    let reads = reads_to_kernel(&Image::new("-t ext4 -b 4096", 32 << 20, root.path()), root.path());
    println!("{reads} reads");
    assert!(reads <= 5, "{reads}");
    // The whole descriptor table would be 512 KiB here.
    let large = "-t ext4 -b 4096 -N 262144 -J size=4 -E nodiscard,lazy_itable_init=1";
    let reads = reads_to_kernel(&Image::sparse(large, 1 << 40, root.path()), root.path());
    println!("{reads} reads of 1 TiB");
    assert!(reads <= 6, "{reads}");
}

#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: &T) {}
    let volume = Volume::new(std::sync::Arc::new(vec![0; 10_000]));
    let opened = Ext4::open(volume);
    is_send(&opened);
    let _ = |filesystem: &Ext4| {
        is_send(&filesystem.lookup(filesystem.root(), b"a"));
        is_send(&filesystem.read_directory(filesystem.root()));
        is_send(&filesystem.read_link(filesystem.root()));
        is_send(&filesystem.map(filesystem.root()));
    };
    assert!(matches!(block_on(opened), Ok(None)));
}

#[test]
fn rejects_other_content_and_truncated_images() {
    for len in [0, 1, 1080, 2047, 2048, 1 << 20] {
        assert!(matches!(open(vec![0; len]), Ok(None)), "{len}");
    }
    let mut cut = boot_image("-t ext2 -b 1024").bytes();
    cut.truncate(8 << 19);
    assert!(matches!(open(cut), Err(Error::Corrupt(text)) if text.to_string().contains("its volume only 4194304")));
}

#[test]
fn ignores_case_in_casefolded_directories() {
    let image = boot_image("-t ext4 -b 1024 -O casefold -E encoding=utf8,nodiscard");
    assert_eq!(lookup(&image.open(), "boot", "VMLINUZ-6.1"), Ok(None));
    image.debugfs("set_inode_field /boot flags 0x40080000\n");
    let filesystem = image.open();
    assert_eq!(lookup(&filesystem, "boot", "VMLINUZ-6.1"), Ok(Some(tree::resolve(&filesystem, "boot/vmlinuz-6.1"))));
    assert_eq!(lookup(&filesystem, "boot", "VMLINUZ-6.2"), Ok(None));
    assert!(matches!(lookup(&filesystem, "boot", "vmlinüz"), Err(Error::Unsupported(_))));
    assert_eq!(lookup(&filesystem, "", "Boot"), Ok(None));
}

#[test]
fn rejects_encrypted_content() {
    let image = boot_image("-t ext4 -b 1024 -O encrypt");
    for path in ["/boot/grub", "/boot/vmlinuz-6.1", "/boot/vmlinuz"] {
        image.debugfs(&format!("set_inode_field {path} flags 0x80800\n"));
    }
    let filesystem = image.open();
    let is_encrypted =
        |error: Error| matches!(error, Error::Unsupported(text) if text.to_string().ends_with("encrypted"));
    let directory = tree::resolve(&filesystem, "boot/grub");
    assert!(block_on(filesystem.lookup(directory, b"grub.cfg")).is_err_and(is_encrypted));
    assert!(block_on(filesystem.read_directory(directory)).is_err_and(is_encrypted));
    assert!(block_on(filesystem.map(tree::resolve(&filesystem, "boot/vmlinuz-6.1"))).is_err_and(is_encrypted));
    assert!(block_on(filesystem.read_link(tree::resolve(&filesystem, "boot/vmlinuz"))).is_err_and(is_encrypted));
}

#[test]
fn reports_unsupported_features() {
    let journal = Image::sparse("-O journal_dev -b 1024", 8 << 20, boot_disk().path());
    assert!(matches!(journal.try_open().1, Err(Error::Unsupported(text)) if text.to_string().contains("journal_dev")));
    let other = boot_image("-t ext4 -b 1024");
    other.debugfs("set_super_value feature_incompat 0x801012c2\n");
    let error = other.try_open().1.expect_err("unsupported features");
    assert!(
        matches!(&error, Error::Unsupported(text) if text.to_string().contains("dirdata, ") && text.to_string().contains("0x80000000")),
        "{error}"
    );
}

#[test]
fn detects_mounted_file_systems() {
    let ext2 = boot_image("-t ext2 -b 1024");
    assert!(!ext2.open().is_in_use());
    ext2.debugfs("set_super_value state 0\n");
    assert!(ext2.open().is_in_use());
    let ext4 = boot_image("-t ext4 -b 1024");
    ext4.debugfs("set_super_value state 0\n");
    assert!(!ext4.open().is_in_use(), "with a journal, only needs_recovery counts");
    ext4.debugfs("feature needs_recovery\n");
    assert!(ext4.open().is_in_use());
    let guarded = boot_image("-t ext4 -b 1024 -O mmp");
    assert!(!guarded.open().is_in_use());
}

#[test]
fn rejects_external_journal_that_needs_recovery() {
    let image = boot_image("-t ext4 -b 1024");
    image.debugfs("set_super_value journal_inum 0\n");
    assert!(image.try_open().1.is_ok(), "the journal is not needed");
    image.debugfs("feature needs_recovery\n");
    assert!(
        matches!(image.try_open().1, Err(Error::Unsupported(text)) if text.to_string().contains("on another device"))
    );
}

#[test]
fn identity_changes_with_each_change_of_a_file() {
    let image = boot_image("-t ext4 -b 1024");
    let file = || block_on(image.open().map(tree::resolve(&image.open(), "boot/grub/grub.cfg"))).expect("a file");
    let mut seen = vec![file()];
    assert_eq!(file(), seen[0]);
    for field in ["mtime 1", "mtime_extra 4", "ctime 1", "ctime_extra 4", "generation 77", "version 5", "size 3"] {
        image.debugfs(&format!("set_inode_field /boot/grub/grub.cfg {field}\n"));
        let now = file();
        assert!(!seen.contains(&now), "{field}");
        seen.push(now);
    }
}

#[test]
fn pads_inline_data_with_zeros() {
    let image = boot_image("-t ext4 -b 1024 -O inline_data");
    image.debugfs("set_inode_field /boot/grub/grub.cfg size 100000\n");
    let (disk, filesystem) = image.try_open();
    let filesystem = filesystem.expect("a readable file system").expect("an ext file system");
    let file = block_on(filesystem.map(tree::resolve(&filesystem, "boot/grub/grub.cfg"))).expect("a file");
    assert!(file.patches[0].bytes.len() <= 160);
    let mut expected = b"set timeout=1\n".to_vec();
    expected.resize(100_000, 0);
    assert!(tree::read_file(&file, disk.as_ref()) == tree::file_with(&expected));
    assert!(matches!(tree::file_with(&expected), Content::File { size: 100_000, .. }));
}
