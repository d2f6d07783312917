//! Single features, and how much is read.

use std::path::Path;

use smol::block_on;
use tempfile::TempDir;

use super::{
    super::super::{Error, FileSystem, Node, Volume, ext4::Ext},
    image::Made,
    tree::{self, Found},
};

/// The files of a small boot disk.
fn boot_disk() -> TempDir {
    let root = tempfile::tempdir().expect("a directory for a tree");
    tree::make_small(root.path());
    root
}

fn small(options: &str) -> Made {
    Made::new(options, 8 << 20, boot_disk().path())
}

fn lookup(ext: &Ext, directory: &str, name: &str) -> Result<Option<Node>, Error> {
    block_on(ext.lookup(tree::walk(ext, directory), name.as_bytes()))
}

fn open(bytes: Vec<u8>) -> Result<Option<Ext>, Error> {
    block_on(Ext::open(Volume::new(std::sync::Arc::new(bytes))))
}

/// Opens an image cold and finds the kernel through its link; gives how often the disk was read.
fn reads_to_kernel(made: &Made, root: &Path) -> usize {
    let (image, ext) = made.open();
    let ext = ext.expect("it can be read").expect("it is an ext file system");
    let link = tree::walk(&ext, "boot/vmlinuz");
    assert_eq!(block_on(ext.read_link(link)).as_deref(), Ok(&b"vmlinuz-6.1"[..]));
    let file = block_on(ext.map(tree::walk(&ext, "boot/vmlinuz-6.1"))).expect("a file");
    let reads = image.reads();
    let expected = std::fs::read(root.join("boot/vmlinuz-6.1")).expect("a file of the tree");
    assert!(tree::content(&file, image.as_ref()) == tree::found(&expected));
    reads
}

#[test]
fn little_is_read_to_find_a_kernel() {
    let root = boot_disk();
    let reads = reads_to_kernel(&Made::new("-t ext4 -b 4096", 32 << 20, root.path()), root.path());
    println!("{reads} reads");
    assert!(reads <= 5, "{reads}");
    // A whole table of groups would be 512 KiB here.
    let large = "-t ext4 -b 4096 -N 262144 -J size=4 -E nodiscard,lazy_itable_init=1";
    let reads = reads_to_kernel(&Made::sparse(large, 1 << 40, root.path()), root.path());
    println!("{reads} reads of 1 TiB");
    assert!(reads <= 6, "{reads}");
}

#[test]
fn a_future_may_run_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    let volume = Volume::new(std::sync::Arc::new(vec![0; 10_000]));
    let opened = Ext::open(volume);
    is_send(&opened);
    let _ = |ext: &Ext| {
        is_send(&ext.lookup(ext.root(), b"a"));
        is_send(&ext.read_directory(ext.root()));
        is_send(&ext.read_link(ext.root()));
        is_send(&ext.map(ext.root()));
    };
    assert!(matches!(block_on(opened), Ok(None)));
}

#[test]
fn what_is_no_ext_file_system_is_none() {
    for len in [0, 1, 1080, 2047, 2048, 1 << 20] {
        assert!(matches!(open(vec![0; len]), Ok(None)), "{len}");
    }
    let mut cut = small("-t ext2 -b 1024").bytes();
    cut.truncate(8 << 19);
    assert!(matches!(open(cut), Err(Error::Corrupt(text)) if text.to_string().contains("its volume only 4194304")));
}

#[test]
fn letters_of_both_sizes_are_the_same_where_they_should_be() {
    let made = small("-t ext4 -b 1024 -O casefold -E encoding=utf8,nodiscard");
    assert_eq!(lookup(&made.ext(), "boot", "VMLINUZ-6.1"), Ok(None));
    made.debugfs("set_inode_field /boot flags 0x40080000\n");
    let ext = made.ext();
    assert_eq!(lookup(&ext, "boot", "VMLINUZ-6.1"), Ok(Some(tree::walk(&ext, "boot/vmlinuz-6.1"))));
    assert_eq!(lookup(&ext, "boot", "VMLINUZ-6.2"), Ok(None));
    assert!(matches!(lookup(&ext, "boot", "vmlinüz"), Err(Error::Unsupported(_))));
    assert_eq!(lookup(&ext, "", "Boot"), Ok(None));
}

#[test]
fn what_is_encrypted_is_not_served() {
    let made = small("-t ext4 -b 1024 -O encrypt");
    for path in ["/boot/grub", "/boot/vmlinuz-6.1", "/boot/vmlinuz"] {
        made.debugfs(&format!("set_inode_field {path} flags 0x80800\n"));
    }
    let ext = made.ext();
    let is_encrypted =
        |error: Error| matches!(error, Error::Unsupported(text) if text.to_string().ends_with("encrypted"));
    let directory = tree::walk(&ext, "boot/grub");
    assert!(block_on(ext.lookup(directory, b"grub.cfg")).is_err_and(is_encrypted));
    assert!(block_on(ext.read_directory(directory)).is_err_and(is_encrypted));
    assert!(block_on(ext.map(tree::walk(&ext, "boot/vmlinuz-6.1"))).is_err_and(is_encrypted));
    assert!(block_on(ext.read_link(tree::walk(&ext, "boot/vmlinuz"))).is_err_and(is_encrypted));
}

#[test]
fn what_is_not_known_is_named() {
    let journal = Made::sparse("-O journal_dev -b 1024", 8 << 20, boot_disk().path());
    assert!(matches!(journal.open().1, Err(Error::Unsupported(text)) if text.to_string().contains("journal_dev")));
    let other = small("-t ext4 -b 1024");
    other.debugfs("set_super_value feature_incompat 0x801012c2\n");
    let error = other.open().1.expect_err("not known");
    assert!(
        matches!(&error, Error::Unsupported(text) if text.to_string().contains("dirdata, ") && text.to_string().contains("0x80000000")),
        "{error}"
    );
}

#[test]
fn an_owner_who_mounted_it_is_seen() {
    let ext2 = small("-t ext2 -b 1024");
    assert!(!ext2.ext().is_in_use());
    ext2.debugfs("set_super_value state 0\n");
    assert!(ext2.ext().is_in_use());
    let ext4 = small("-t ext4 -b 1024");
    ext4.debugfs("set_super_value state 0\n");
    assert!(!ext4.ext().is_in_use(), "its journal says it");
    ext4.debugfs("feature needs_recovery\n");
    assert!(ext4.ext().is_in_use());
    let guarded = small("-t ext4 -b 1024 -O mmp");
    assert!(!guarded.ext().is_in_use());
}

#[test]
fn a_journal_elsewhere_is_not_replayed() {
    let made = small("-t ext4 -b 1024");
    made.debugfs("set_super_value journal_inum 0\n");
    assert!(made.open().1.is_ok(), "it is not needed");
    made.debugfs("feature needs_recovery\n");
    assert!(matches!(made.open().1, Err(Error::Unsupported(text)) if text.to_string().contains("on another device")));
}

#[test]
fn a_file_has_another_identity_after_each_change() {
    let made = small("-t ext4 -b 1024");
    let file = || block_on(made.ext().map(tree::walk(&made.ext(), "boot/grub/grub.cfg"))).expect("a file");
    let mut seen = vec![file()];
    assert_eq!(file(), seen[0]);
    for field in ["mtime 1", "mtime_extra 4", "ctime 1", "ctime_extra 4", "generation 77", "version 5", "size 3"] {
        made.debugfs(&format!("set_inode_field /boot/grub/grub.cfg {field}\n"));
        let now = file();
        assert!(!seen.contains(&now), "{field}");
        seen.push(now);
    }
}

#[test]
fn content_in_an_inode_may_be_longer_than_it_is() {
    let made = small("-t ext4 -b 1024 -O inline_data");
    made.debugfs("set_inode_field /boot/grub/grub.cfg size 100000\n");
    let (image, ext) = made.open();
    let ext = ext.expect("it can be read").expect("it is an ext file system");
    let file = block_on(ext.map(tree::walk(&ext, "boot/grub/grub.cfg"))).expect("a file");
    assert!(file.patches[0].bytes.len() <= 160);
    let mut expected = b"set timeout=1\n".to_vec();
    expected.resize(100_000, 0);
    assert!(tree::content(&file, image.as_ref()) == tree::found(&expected));
    assert!(matches!(tree::found(&expected), Found::File { size: 100_000, .. }));
}
