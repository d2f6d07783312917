//! Reads images of `mke2fs`: all features, corrupt structures, and random mutations.

mod corruption;
mod features;
mod image;
mod random_mutations;
mod recovery;

use std::{fs, path::Path, thread};

use self::image::Image;
use crate::fs::{
    FileSystem,
    testing::tree::{self, Content, Tree},
};

/// The file systems to test: options of `mke2fs`, type, size in MiB, and the size of the largest directory.
const KINDS: [(&str, &str, usize, usize); 22] = [
    ("-t ext4 -b 4096", "ext4", 48, LARGE),
    ("-t ext4 -b 1024", "ext4", 32, LARGE),
    ("-t ext4 -b 2048 -I 512", "ext4", 32, SMALL),
    ("-t ext4 -b 65536", "ext4", 96, SMALL),
    ("-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg -I 128", "ext4", 32, SMALL),
    ("-t ext4 -b 4096 -O 64bit,^metadata_csum,uninit_bg", "ext4", 32, SMALL),
    ("-t ext4 -b 1024 -O ^64bit", "ext4", 32, SMALL),
    ("-t ext4 -b 4096 -O bigalloc -C 16384", "ext4", 48, SMALL),
    ("-t ext4 -b 4096 -O inline_data", "ext4", 32, SMALL),
    ("-t ext4 -b 1024 -O inline_data,^metadata_csum -I 1024", "ext4", 32, SMALL),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg -g 512", "ext4", 32, SMALL),
    ("-t ext4 -b 1024 -O sparse_super2,^flex_bg -g 1024", "ext4", 32, SMALL),
    ("-t ext4 -b 4096 -O orphan_file,metadata_csum_seed,quota,project,verity,stable_inodes", "ext4", 32, SMALL),
    ("-t ext4 -b 1024 -O casefold,encrypt,large_dir,ea_inode,fast_commit", "ext4", 32, SMALL),
    ("-t ext4 -b 4096 -O ^filetype,^has_journal", "ext4", 32, SMALL),
    ("-t ext4 -b 1024 -O ^extent,^64bit", "ext4", 32, SMALL),
    ("-t ext3 -b 4096", "ext3", 32, SMALL),
    ("-t ext3 -b 1024", "ext3", 32, SMALL),
    ("-t ext2 -b 4096 -O ^dir_index", "ext2", 32, LARGE),
    ("-t ext2 -b 1024", "ext2", 32, SMALL),
    ("-t ext2 -b 1024 -O ^filetype,^sparse_super,^resize_inode,^ext_attr -g 2048", "ext2", 32, SMALL),
    (REVISION_0, "ext2", 32, SMALL),
];

/// The options for a file system that becomes one of revision 0, which not every version of `mke2fs` can create.
const REVISION_0: &str = "-t ext2 -b 1024 -O none -I 128";

/// The numbers of entries of the largest directory. Few file systems have the large one, because `mke2fs` is slow with it.
const LARGE: usize = 5000;
const SMALL: usize = 500;

#[test]
fn reads_every_file_system_as_written() {
    let trees = [LARGE, SMALL].map(|names| {
        let root = tempfile::tempdir().expect("a temporary directory");
        tree::create(root.path(), names);
        let mut tree = tree::of_directory(root.path());
        // Created by `mke2fs`.
        tree.insert(b"/lost+found".to_vec(), Content::Directory);
        (names, root, tree)
    });
    let check = |kinds: &[(&str, &str, usize, usize)]| {
        for (options, name, size, names) in kinds {
            let (_, root, tree) = trees.iter().find(|tree| tree.0 == *names).expect("the tree of this size");
            let image = Image::new(&format!("{options} -N 6000"), size << 20, root.path());
            if *options == REVISION_0 {
                image.debugfs("set_super_value rev_level 0\n");
            }
            check_image(&image, options, *names, root.path(), tree.clone());
            let filesystem = image.open();
            assert_eq!((filesystem.name(), filesystem.is_in_use()), (*name, false), "{options}");
        }
    };
    // Both halves have large trees.
    let (first, second) = KINDS.split_at(KINDS.len() / 2);
    thread::scope(|scope| {
        scope.spawn(|| check(first));
        check(second);
    });
}

/// Compares a file system as created, after changes, and with hash indexes.
fn check_image(image: &Image, options: &str, names: usize, root: &Path, mut expected: Tree) {
    compare(image, &expected, options);
    change(image, names, root, &mut expected);
    compare(image, &expected, options);
    image.check();
    if !options.contains("^dir_index") && options != REVISION_0 {
        image.index_directories();
        compare(image, &expected, options);
    }
}

/// Makes changes that `mke2fs` alone cannot: deletes and fragments files, creates unwritten extents and devices.
fn change(image: &Image, names: usize, root: &Path, expected: &mut Tree) {
    let block = image.open().superblock.block_size as usize;
    let content = fs::read(root.join("sparse/fragmented")).expect("a file of the tree");
    let mut commands = String::new();
    for number in (0..names).step_by(97) {
        let path = tree::numbered_path(number);
        commands += &format!("rm /{path}\n");
        expected.remove(format!("/{path}").as_bytes());
    }
    // Every second block is freed, then allocated for another file.
    for number in (1..content.len() / block).step_by(2) {
        commands += &format!("punch /sparse/fragmented {number} {number}\n");
    }
    let filling = image.side_file("filling");
    fs::write(&filling, &content).expect("space for a file");
    let punched = image.side_file("punched");
    commands += &format!("cd /sparse\nwrite {} filling\ndump fragmented {}\n", filling.display(), punched.display());
    commands += &format!("fallocate unwritten 0 {}\n", 999_999 / block);
    commands += "cd /special\nmknod null c 1 3\nmknod disk b 8 0\n";
    image.debugfs(&commands);
    for device in [&b"/special/null"[..], b"/special/disk"] {
        expected.insert(device.to_vec(), Content::Other);
    }
    // In indirect blocks, debugfs punches more than the given blocks.
    let punched = fs::read(punched).expect("the dumped file");
    assert!(punched.len() == content.len() && punched != content);
    expected.insert(b"/sparse/fragmented".to_vec(), tree::file_with(&punched));
    expected.insert(b"/sparse/filling".to_vec(), tree::file_with(&content));
}

/// Compares the file system with the expected tree.
fn compare(image: &Image, expected: &Tree, options: &str) {
    let (disk, filesystem) = image.try_open();
    let filesystem = filesystem.expect("a readable file system").expect("an ext file system");
    let found = tree::read_all(&filesystem, disk.as_ref());
    for (path, found) in &found {
        assert_eq!(Some(found), expected.get(path), "{options}: {}", path.escape_ascii());
    }
    let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).collect();
    assert!(missing.is_empty(), "{options}: {missing:?}");
}
