//! Compares what rtftp reads from images of all kinds with what the kernel reads: names, sizes and contents. Without the right to
//! mount, or without the kernel's driver, the other reader is debugfs or mtools.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Instant};

use rtftp_tests::{Content, KernelMount, Tree, noise, not_tested, read_directory, read_image};

/// Options of `mke2fs` for an image of 16 MiB, commands that change it afterwards (`$0` is the image).
const EXT: [(&str, &str); 48] = [
    ("-t ext2", ""),
    ("-t ext2 -b 1024", ""),
    ("-t ext2 -b 2048", ""),
    (
        "-t ext2 -I 128 -O ^filetype,^sparse_super,^large_file,^resize_inode,^ext_attr,^dir_index",
        "debugfs -w -R 'ssv rev_level 0' $0",
    ),
    ("-t ext2 -O ^dir_index", ""),
    ("-t ext2 -O ^sparse_super,^resize_inode", ""),
    ("-t ext2 -b 1024 -g 2048", ""),
    ("-t ext2", "tune2fs -j $0"),
    ("-t ext2", "tune2fs -O extents,uninit_bg,dir_index $0"),
    ("-t ext3", ""),
    ("-t ext3 -b 1024", ""),
    ("-t ext3 -I 128", ""),
    ("-t ext3 -b 1024 -I 128 -J size=4", "tune2fs -I 256 $0"),
    ("-t ext3 -b 1024", "tune2fs -O extents,uninit_bg $0"),
    ("-t ext3", "tune2fs -O ^has_journal $0"),
    ("-t ext3", "tune2fs -O ^has_journal $0 && tune2fs -j -J size=4 $0"),
    ("-t ext3 -b 1024", "e2fsck -fyD $0"),
    ("-t ext4", ""),
    ("-t ext4 -b 1024", ""),
    ("-t ext4 -b 2048", ""),
    ("-t ext4 -I 128", ""),
    ("-t ext4 -I 512", ""),
    ("-t ext4 -I 1024", ""),
    ("-t ext4 -O ^64bit", ""),
    ("-t ext4 -O ^metadata_csum", ""),
    ("-t ext4 -O ^metadata_csum,uninit_bg", ""),
    ("-t ext4 -O ^metadata_csum,^64bit", ""),
    ("-t ext4 -O ^flex_bg -b 1024", ""),
    ("-t ext4 -O ^extents,^64bit", ""),
    ("-t ext4 -O ^resize_inode,meta_bg -b 1024", ""),
    ("-t ext4 -O sparse_super2 -b 1024", ""),
    ("-t ext4 -O bigalloc -C 16384", ""),
    ("-t ext4 -O inline_data", ""),
    ("-t ext4 -O inline_data -I 1024", ""),
    ("-t ext4 -O large_dir,ea_inode", ""),
    ("-t ext4 -O metadata_csum_seed", "tune2fs -U random $0"),
    ("-t ext4 -O quota,project", ""),
    ("-t ext4 -O ^has_journal", ""),
    ("-t ext4 -b 1024 -G 4 -g 2048", ""),
    ("-t ext4 -E packed_meta_blocks=1", ""),
    ("-t ext4 -N 2000", "resize2fs $0 24M"),
    ("-t ext4 -b 1024", "resize2fs $0 40M"),
    ("-t ext4 -b 1024", "e2fsck -fy $0; resize2fs -M $0"),
    ("-t ext4 -O ^64bit", "e2fsck -fy $0; resize2fs -b $0"),
    ("-t ext4", "e2fsck -fy $0; resize2fs -s $0"),
    ("-t ext4 -O ^metadata_csum", "e2fsck -fy $0; tune2fs -O metadata_csum $0"),
    ("-t ext4", "e2fsck -fy $0; tune2fs -O ^metadata_csum $0"),
    ("-t ext4 -b 1024 -O ^flex_bg,^metadata_csum,^64bit -I 128 -J size=4", "tune2fs -I 256 $0"),
];

/// Options of `mkfs.vfat` and the size in KiB.
const FAT: [(&str, u32); 14] = [
    ("-F 12", 2048),
    ("-F 12 -f 1", 1440),
    ("-F 12 -s 8", 8192),
    ("-F 12 -r 512", 4096),
    ("-F 12 -R 8", 4096),
    ("-F 16", 16384),
    ("-F 16 -s 1", 8192),
    ("-F 16 -S 1024", 16384),
    ("-F 16 -S 4096 -s 1", 32768),
    ("-F 16 -a -f 1", 16384),
    ("-F 32 -s 1", 40960),
    ("-F 32 -R 64", 40960),
    ("-F 32 -f 1 -S 512", 40960),
    ("-F 32 -i 12345678 -n LABEL", 40960),
];

/// Runs a shell command with the image as `$0` and another path as `$1`.
fn shell(command: &str, image: &Path, other: &Path) -> bool {
    let script = format!("export PATH=$PATH:/sbin:/usr/sbin MTOOLS_SKIP_CHECK=1; exec >/dev/null 2>&1; {command}");
    let status = Command::new("sh").args(["-c", &script]).args([image, other]).status();
    status.expect("a shell").success()
}

/// Returns what the kernel, or else a program, reads from a copy of an image, and the reader.
fn read_by_others(image: &Path, fallback: &str) -> (BTreeMap<String, Content>, &'static str) {
    let directory = tempfile::tempdir().expect("a directory");
    let (copy, mounted) = (directory.path().join("copy"), directory.path().join("mounted"));
    fs::copy(image, &copy).expect("space for a copy");
    fs::create_dir(&mounted).expect("a directory");
    if let Ok(mounted) = KernelMount::new(&copy, &[]) {
        return (read_directory(mounted.path()).expect("all files"), "the kernel");
    }
    assert!(shell(fallback, &copy, &mounted), "{fallback}");
    (read_directory(&mounted).expect("all files"), "a program")
}

#[track_caller]
fn compare(recipe: &str, image: &Path, fallback: &str, counts: &mut BTreeMap<&'static str, u32>) {
    let ours = read_image(fs::read(image).expect("an image"));
    let (theirs, reader) = read_by_others(image, fallback);
    let names = |tree: &BTreeMap<String, Content>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{recipe}: the names of {reader}");
    // debugfs 1.47.2 writes 60 bytes of each file that is in its inode.
    if reader == "a program" && recipe.contains("inline_data") {
        not_tested(format_args!("{recipe}: contents: no permission to mount it"));
    } else {
        for (path, content) in &ours {
            assert!(theirs.get(path) == Some(content), "{recipe}: {path} differs from {reader}'s");
        }
    }
    assert!(ours.len() > 100, "{recipe}: only {} names", ours.len());
    *counts.entry(reader).or_default() += 1;
}

/// Returns files of different sizes and kinds.
fn tree() -> Tree {
    let tree = Tree::new().file("boot/kernel", noise(300_000, 1)).file("empty", "").file("one", "1");
    let tree = tree.file("a rather long name that needs several entries of a FAT directory.text", noise(5000, 2));
    (0..150).fold(tree, |tree, number| tree.file(&format!("many/name {number:03}"), noise(number, number as u64)))
}

#[test]
fn reads_what_the_kernel_reads_from_ext() {
    let started = Instant::now();
    let (tree, mut counts, mut dirty) =
        (tree().link("boot/current", "kernel").link("far", &"x/".repeat(90)), BTreeMap::new(), 0);
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    let rdump = "e2fsck -fy \"$0\"; debugfs -R \"rdump / $1\" \"$0\"";
    for (options, change) in EXT {
        let recipe = format!("mke2fs {options}; {change}");
        let _ = fs::remove_file(&image);
        let make = format!(
            "mke2fs -q -F {options} -d \"$1\" \"$0\" 16M && {{ {} }}",
            if change.is_empty() { "true;".into() } else { format!("{change};") }
        );
        shell(&make, &image, tree.path());
        assert!(image.exists(), "{recipe}: no image");
        compare(&recipe, &image, rdump, &mut counts);
        // The newest content of two blocks of the kernel is only in the journal.
        let commit = "set -- $(debugfs -R 'blocks /boot/kernel' \"$0\" 2>/dev/null) && head -c 8192 /dev/urandom >\"$0.new\" && \
            printf 'journal_open\njournal_write -b %s,%s %s\njournal_close\n' $2 $3 \"$0.new\" | debugfs -w -f - \"$0\"; \
            dumpe2fs -h \"$0\" | grep -q needs_recovery";
        if shell(commit, &image, tree.path()) {
            compare(&format!("{recipe}, dirty"), &image, rdump, &mut counts);
            dirty += 1;
        }
    }
    assert!(dirty > 20, "only {dirty} dirty images");
    println!("{counts:?}, {dirty} of them dirty, in {:?}", started.elapsed());
}

#[test]
fn reads_what_the_kernel_reads_from_fat() {
    let (tree, mut counts) = (tree(), BTreeMap::new());
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    for (options, size) in FAT {
        let _ = fs::remove_file(&image);
        let make = format!("mkfs.vfat {options} -C \"$0\" {size} && mcopy -s -i \"$0\" \"$1\"/* ::");
        assert!(shell(&make, &image, tree.path()), "{make}");
        compare(options, &image, "mcopy -s -n -i \"$0\" '::*' \"$1\"", &mut counts);
        let mut bytes = fs::read(&image).expect("an image");
        // The flag that Linux sets while the file system is mounted.
        bytes[if options.contains("32") { 0x41 } else { 0x25 }] |= 1;
        fs::write(&image, bytes).expect("an image");
        compare(&format!("{options}, dirty"), &image, "mcopy -s -n -i \"$0\" '::*' \"$1\"", &mut counts);
    }
    println!("{counts:?}");
}
