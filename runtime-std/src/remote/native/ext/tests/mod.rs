//! What is read must be what is there: on file systems of all kinds, and on none of them does anything go wrong badly.

mod image;
mod tree;

use std::{fs, path::Path, thread};

use smol::block_on;

use self::{
    image::Made,
    tree::{Found, MANY, Tree},
};
use super::{
    super::{Error, Kind},
    Ext,
};

/// File systems: what `mke2fs` is asked for, what kind it is, and how many MiB it needs.
const KINDS: [(&str, &str, usize); 22] = [
    ("-t ext4 -b 4096", "ext4", 48),
    ("-t ext4 -b 1024", "ext4", 32),
    ("-t ext4 -b 2048 -I 512", "ext4", 32),
    ("-t ext4 -b 65536", "ext4", 96),
    ("-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg -I 128", "ext4", 32),
    ("-t ext4 -b 4096 -O 64bit,^metadata_csum,uninit_bg", "ext4", 48),
    ("-t ext4 -b 1024 -O ^64bit", "ext4", 32),
    ("-t ext4 -b 4096 -O bigalloc -C 16384", "ext4", 64),
    ("-t ext4 -b 4096 -O inline_data", "ext4", 48),
    ("-t ext4 -b 1024 -O inline_data,^metadata_csum -I 1024", "ext4", 48),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg -g 512", "ext4", 48),
    ("-t ext4 -b 1024 -O sparse_super2,^flex_bg -g 1024", "ext4", 48),
    ("-t ext4 -b 4096 -O orphan_file,metadata_csum_seed,quota,project,verity,stable_inodes,mmp", "ext4", 48),
    ("-t ext4 -b 1024 -O casefold,encrypt,large_dir,ea_inode,fast_commit", "ext4", 48),
    ("-t ext4 -b 4096 -O ^filetype,^has_journal", "ext4", 48),
    ("-t ext4 -b 1024 -O ^extent,^64bit", "ext4", 32),
    ("-t ext3 -b 4096", "ext3", 48),
    ("-t ext3 -b 1024", "ext3", 32),
    ("-t ext2 -b 4096 -O ^dir_index", "ext2", 48),
    ("-t ext2 -b 1024", "ext2", 32),
    ("-t ext2 -b 1024 -O ^filetype,^sparse_super,^resize_inode,^ext_attr -g 2048", "ext2", 32),
    ("-t ext2 -b 1024 -r 0", "ext2", 32),
];

#[test]
fn every_kind_of_file_system_is_read_as_it_was_written() {
    let root = tempfile::tempdir().expect("a directory for a tree");
    tree::make(root.path());
    let expected = tree::on_this_machine(root.path());
    thread::scope(|scope| {
        for kinds in KINDS.chunks(KINDS.len().div_ceil(2)) {
            let (root, expected) = (root.path(), &expected);
            scope.spawn(move || {
                for (options, name, size) in kinds {
                    let started = std::time::Instant::now();
                    check_kind(options, name, *size, root, expected.clone());
                    eprintln!("{:?} {options}", started.elapsed());
                }
            });
        }
    });
}

fn check_kind(options: &str, name: &str, size: usize, root: &Path, mut expected: Tree) {
    let t = std::time::Instant::now();
    let made = Made::new(&format!("{options} -N 6000"), size << 20, root);
    eprintln!("made {:?}", t.elapsed());
    compare(&made, &expected, options);
    eprintln!("cmp1 {:?}", t.elapsed());
    change(&made, root, &mut expected);
    compare(&made, &expected, options);
    let t = std::time::Instant::now();
    made.check();
    eprintln!("check {:?}", t.elapsed());
    if !options.contains("^dir_index") && !options.contains("-r 0") {
        made.index();
        compare(&made, &expected, options);
    }
    let ext = made.ext();
    assert_eq!((ext.name(), ext.is_in_use()), (name, false), "{options}");
}

/// Does to a file system what `mke2fs` alone does not.
fn change(made: &Made, root: &Path, expected: &mut Tree) {
    let block = made.ext().superblock.block_size as usize;
    let mut commands = String::new();
    for number in (0..MANY).step_by(97) {
        let path = tree::many(number);
        commands += &format!("rm /{path}\n");
        expected.remove(format!("/{path}").as_bytes());
    }
    // Every second block goes, and another file takes their place.
    let mut content = fs::read(root.join("sparse/fragmented")).expect("a file of the tree");
    for (number, bytes) in content.chunks_exact_mut(block).enumerate().skip(1).step_by(2) {
        commands += &format!("punch /sparse/fragmented {number} {number}\n");
        bytes.fill(0);
    }
    let copy = made.beside("content");
    fs::write(&copy, &content).expect("room for a file");
    commands += &format!("cd /sparse\nwrite {} filling\n", copy.display());
    commands += &format!("fallocate /sparse/unwritten 0 {}\n", 1_000_000 / block + 3);
    commands += "cd /special\nmknod null c 1 3\nmknod disk b 8 0\n";
    for device in [&b"/special/null"[..], b"/special/disk"] {
        expected.insert(device.to_vec(), Found::Other);
    }
    let fragmented = tree::found(&content);
    for file in [&b"/sparse/fragmented"[..], b"/sparse/filling"] {
        expected.insert(file.to_vec(), fragmented.clone());
    }
    made.debugfs(&commands);
}

/// Compares what is read with what should be there, and each name that is found by listing with what is found by looking it up.
fn compare(made: &Made, expected: &Tree, options: &str) {
    let (image, ext) = made.open();
    let ext = ext.expect("it can be read").expect("it is an ext file system");
    let found = tree::in_ext(&ext, image.as_ref());
    for (path, found) in &found {
        assert_eq!(Some(found), expected.get(path), "{options}: {}", path.escape_ascii());
    }
    let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).collect();
    assert!(missing.is_empty(), "{options}: {missing:?}");
    let _ = (Kind::File, Found::Other, Error::Io(String::new()), |ext: &Ext| block_on(ext.list(ext.root())));
}
