mod boot;
mod chains;
mod reading;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use smol::block_on;
use tempfile::TempDir;

use super::{boot::Width, directory::tests::records, *};
use crate::fs::testing::{Disk, Random, run};

/// A tree by path: the contents of files, `None` for directories.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// An image of a FAT file system and the directory with its contents.
struct Fixture {
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("create a directory");
        fs::create_dir(directory.path().join("tree")).expect("make the tree");
        Self { directory }
    }

    fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().expect("below the tree")).expect("make a directory");
        fs::write(path, content).expect("write a file");
    }

    /// Creates an image of `kib` KiB with an empty file system.
    fn format(&self, options: &str, kib: usize) {
        let image = self.image();
        let _ = fs::remove_file(&image);
        let options = options.split_ascii_whitespace().map(OsStr::new);
        let kib = kib.to_string();
        run("mkfs.vfat", options.chain(["-n", "A LABEL", "-C"].map(OsStr::new)).chain([image.as_ref(), kib.as_ref()]));
    }

    /// Copies the contents of the directory into the image.
    fn copy(&self) {
        let mut paths: Vec<_> =
            fs::read_dir(self.tree()).expect("the tree").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        let paths = paths.iter().map(|path| path.to_str().expect("a path in UTF-8"));
        self.mtools("mcopy", &["-s", "-Q"].into_iter().chain(paths).chain(["::"]).collect::<Vec<_>>());
    }

    fn mtools(&self, program: &str, args: &[&str]) {
        let image = self.image();
        let image = image.to_str().expect("a path in UTF-8");
        run(program, ["-i", image].iter().chain(args));
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.image()).expect("read the image")
    }

    fn disk(&self) -> Arc<Disk> {
        Disk::new(fs::File::open(self.image()).expect("open the image"))
    }

    fn contents(&self) -> Tree {
        let mut tree = Tree::new();
        collect(&self.tree(), "", &mut tree);
        tree
    }
}

fn collect(directory: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(directory).expect("create a directory") {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().and_then(OsStr::to_str).expect("a name in UTF-8"));
        if path.is_dir() {
            collect(&path, &format!("{name}/"), tree);
            tree.insert(name, None);
        } else {
            tree.insert(name, Some(fs::read(&path).expect("read a file")));
        }
    }
}

fn open(disk: &Arc<Disk>) -> Fat {
    block_on(Fat::open(disk.volume())).expect("a valid file system").expect("a FAT file system")
}

/// Reads everything below a directory, within limits in case it contains itself.
fn walk(disk: &Disk, fat: &Fat, directory: Node, prefix: &str, tree: &mut Tree) -> Result<(), Error> {
    for DirectoryEntry { name, node } in block_on(fat.read_directory(directory))? {
        let name = format!("{prefix}{}", String::from_utf8(name).expect("UTF-8"));
        if node.file_type == FileType::Directory && prefix.len() < 1000 && tree.len() < 2000 {
            walk(disk, fat, node, &format!("{name}/"), tree)?;
            tree.insert(name, None);
        } else if node.file_type == FileType::File {
            let file = block_on(fat.map(node))?;
            tree.insert(name, Some(block_on(file.read(disk, 0, 1 << 20))?.into_vec()));
        }
    }
    Ok(())
}

fn read(disk: &Arc<Disk>) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    let fat = open(disk);
    walk(disk, &fat, fat.root(), "", &mut tree).map(|()| tree)
}

fn find(fat: &Fat, path: &str) -> Option<Node> {
    path.split('/')
        .try_fold(fat.root(), |node, name| block_on(fat.lookup(node, name.as_bytes())).expect("a valid directory"))
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.byte()).collect()
}

/// Returns contents with names of all kinds and sizes around those of clusters.
fn various() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("EMPTY", b"");
    fixture.write("KERNEL.IMG", &bytes(1, 70_001));
    fixture.write("config.txt", b"arm_64bit=1\n");
    fixture.write("vmlinuz-6.1.0-56-amd64", &bytes(2, 65_536));
    fixture.write("kernel with a name.image", &bytes(3, 512));
    fixture.write("Mixed.Txt", b"mixed");
    fixture.write("no extension", b"x");
    fixture.write("a.b.c.d", b"dots");
    fixture.write(".hidden", b"hidden");
    fixture.write("näme mit ümläut.txt", b"latin");
    fixture.write("日本語のカーネル.img", b"kanji");
    fixture.write(&"l".repeat(255), b"255");
    fixture.write(&format!("{}.x", "thirteen long".repeat(4)), b"whole parts");
    fixture.write("overlays/README", b"readme");
    fixture.write("overlays/deep/er/and/deeper/file.dtbo", &bytes(4, 40_000));
    for len in [1, 511, 513, 2047, 2048, 2049, 4096, 32_767, 32_769] {
        fixture.write(&format!("lengths/of {len} bytes"), &bytes(len as u64, len));
    }
    fs::create_dir(fixture.tree().join("nothing")).expect("make a directory");
    fixture
}

#[test]
fn damaged_file_systems_take_bounded_time() {
    let fixture = Fixture::new();
    for number in 0..12 {
        fixture.write(&format!("dir/a long name {number}"), &bytes(number, 2000 * number as usize));
        fixture.write(&format!("FILE{number}"), &bytes(number, 700 * number as usize));
        fixture.write(&format!("dir/{number}/deep/file"), b"deep");
    }
    let images = [("-F 12 -s 1", 720), ("-F 16 -s 1", 2600), ("-F 32 -s 1 -f 1 -R 8", 40_960)].map(|(options, kib)| {
        fixture.format(options, kib);
        fixture.copy();
        let mut image = fixture.bytes();
        // Damage hits the boot sector, the used part of the FAT, and the used clusters.
        let layout = open(&Disk::new(image.clone())).layout;
        let data = match layout.root {
            Root::Fixed { offset, .. } => offset as usize,
            Root::Chain(_) => layout.clusters_at(&(2..3)).0 as usize,
        };
        image.truncate(data + 300_000);
        assert!(read(&Disk::new(image.clone())) == Ok(fixture.contents()), "{options}");
        (image, [(0, 96), (layout.fat_offset as usize, 600), (data, 120_000)])
    });
    let started = Instant::now();
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let (image, parts) = &images[random.below(3)];
        let mut image = image.clone();
        for _ in 0..=random.below(8) {
            // Contents of files do not matter; prefer fields of directory entries.
            let (start, len) = parts[random.below(3)];
            let at = start + random.below(len);
            let at = if start > 512 && len > 600 {
                at / 32 * 32 + [0, 11, 12, 13, 20, 26, 27, 28, 30][random.below(9)]
            } else {
                at
            };
            image[at] = random.byte();
        }
        let disk = Disk::new(image);
        let Ok(Some(fat)) = block_on(Fat::open(disk.volume())) else { continue };
        let mut tree = Tree::new();
        let before = Instant::now();
        let _ = walk(&disk, &fat, fat.root(), "", &mut tree);
        let _ = block_on(fat.lookup(fat.root(), b"file1")).map(|file| file.map(|file| block_on(fat.map(file))));
        assert!(tree.len() < 20_000 && before.elapsed().as_secs() < 10, "seed {seed}: {:?}", before.elapsed());
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
