//! What is read must be what is there: on file systems of all kinds, and on none of them does anything go wrong badly.

mod damaged;
mod image;
mod journaled;
mod mutated;
mod single;
mod tree;

use std::{fs, path::Path, thread};

use self::{
    image::Made,
    tree::{Found, Tree},
};
use crate::fs::FileSystem;

/// File systems: what `mke2fs` is asked for, what kind it is, how many MiB it needs, and which tree is in it.
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
    ("-t ext2 -b 1024 -r 0", "ext2", 32, SMALL),
];

/// How many names are in the largest directory of a tree: `mke2fs` is slow with many.
const LARGE: usize = 5000;
const SMALL: usize = 500;

#[test]
fn every_kind_of_file_system_is_read_as_it_was_written() {
    let trees = [LARGE, SMALL].map(|names| {
        let root = tempfile::tempdir().expect("a directory for a tree");
        tree::make(root.path(), names);
        let tree = tree::on_this_machine(root.path());
        (names, root, tree)
    });
    let check = |kinds: &[(&str, &str, usize, usize)]| {
        for (options, name, size, names) in kinds {
            let (_, root, tree) = trees.iter().find(|tree| tree.0 == *names).expect("one of the two");
            let made = Made::new(&format!("{options} -N 6000"), size << 20, root.path());
            check_kind(&made, options, *names, root.path(), tree.clone());
            let ext = made.ext();
            assert_eq!((ext.name(), ext.is_in_use()), (*name, false), "{options}");
        }
    };
    // The large trees are at both ends.
    let (first, second) = KINDS.split_at(KINDS.len() / 2);
    thread::scope(|scope| {
        scope.spawn(|| check(first));
        check(second);
    });
}

/// Reads a file system as it was made, as it is after changes, and after indexes were made.
fn check_kind(made: &Made, options: &str, names: usize, root: &Path, mut expected: Tree) {
    compare(made, &expected, options);
    change(made, names, root, &mut expected);
    compare(made, &expected, options);
    made.check();
    if !options.contains("^dir_index") && !options.contains("-r 0") {
        made.index();
        compare(made, &expected, options);
    }
}

/// Does to a file system what `mke2fs` alone does not.
fn change(made: &Made, names: usize, root: &Path, expected: &mut Tree) {
    let block = made.ext().superblock.block_size as usize;
    let content = fs::read(root.join("sparse/fragmented")).expect("a file of the tree");
    let mut commands = String::new();
    for number in (0..names).step_by(97) {
        let path = tree::many(number);
        commands += &format!("rm /{path}\n");
        expected.remove(format!("/{path}").as_bytes());
    }
    // Every second block goes, and another file takes their place.
    for number in (1..content.len() / block).step_by(2) {
        commands += &format!("punch /sparse/fragmented {number} {number}\n");
    }
    let filling = made.beside("filling");
    fs::write(&filling, &content).expect("room for a file");
    let punched = made.beside("punched");
    commands += &format!("cd /sparse\nwrite {} filling\ndump fragmented {}\n", filling.display(), punched.display());
    commands += &format!("fallocate unwritten 0 {}\n", 999_999 / block);
    commands += "cd /special\nmknod null c 1 3\nmknod disk b 8 0\n";
    made.debugfs(&commands);
    for device in [&b"/special/null"[..], b"/special/disk"] {
        expected.insert(device.to_vec(), Found::Other);
    }
    // In a map of single blocks it punches more than it was told to.
    let punched = fs::read(punched).expect("it was written");
    assert!(punched.len() == content.len() && punched != content);
    expected.insert(b"/sparse/fragmented".to_vec(), tree::found(&punched));
    expected.insert(b"/sparse/filling".to_vec(), tree::found(&content));
}

/// Compares what is read with what should be there.
fn compare(made: &Made, expected: &Tree, options: &str) {
    let (image, ext) = made.open();
    let ext = ext.expect("it can be read").expect("it is an ext file system");
    let found = tree::in_ext(&ext, image.as_ref());
    for (path, found) in &found {
        assert_eq!(Some(found), expected.get(path), "{options}: {}", path.escape_ascii());
    }
    let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).collect();
    assert!(missing.is_empty(), "{options}: {missing:?}");
}
