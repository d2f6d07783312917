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

/// What is in a tree: directories, and files with what is in them.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A directory to put into an image, and the image.
struct Made {
    directory: TempDir,
}

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
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

    /// Makes an empty image of so many KiB.
    fn format(&self, options: &str, kib: usize) {
        let image = self.image();
        let _ = fs::remove_file(&image);
        let options = options.split_ascii_whitespace().map(OsStr::new);
        let kib = kib.to_string();
        run("mkfs.vfat", options.chain(["-n", "A LABEL", "-C"].map(OsStr::new)).chain([image.as_ref(), kib.as_ref()]));
    }

    /// Copies what is in the tree into the image.
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
    for entry in fs::read_dir(directory).expect("a directory") {
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
    block_on(Fat::open(disk.volume())).expect("a sound file system").expect("a FAT file system")
}

/// Reads everything; the way to a directory that contains itself ends somewhere.
fn walk(disk: &Disk, fat: &Fat, directory: Node, prefix: &str, tree: &mut Tree) -> Result<(), Error> {
    for DirectoryEntry { name, node } in block_on(fat.read_directory(directory))? {
        let name = format!("{prefix}{}", String::from_utf8(name).expect("UTF-8"));
        if node.file_type == FileType::Directory && prefix.len() < 1000 && tree.len() < 2000 {
            walk(disk, fat, node, &format!("{name}/"), tree)?;
            tree.insert(name, None);
        } else if node.file_type == FileType::File {
            let file = block_on(fat.map(node))?;
            tree.insert(name, Some(block_on(file.read(disk, 0, 1 << 20))?));
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
        .try_fold(fat.root(), |node, name| block_on(fat.lookup(node, name.as_bytes())).expect("a sound directory"))
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.byte()).collect()
}

/// Names of all kinds, files of all lengths near those of clusters.
fn various() -> Made {
    let made = Made::new();
    made.write("EMPTY", b"");
    made.write("KERNEL.IMG", &bytes(1, 70_001));
    made.write("config.txt", b"arm_64bit=1\n");
    made.write("vmlinuz-6.1.0-56-amd64", &bytes(2, 65_536));
    made.write("kernel with a name.image", &bytes(3, 512));
    made.write("Mixed.Txt", b"mixed");
    made.write("no extension", b"x");
    made.write("a.b.c.d", b"dots");
    made.write(".hidden", b"hidden");
    made.write("näme mit ümläut.txt", b"latin");
    made.write("日本語のカーネル.img", b"kanji");
    made.write(&"l".repeat(255), b"255");
    made.write(&format!("{}.x", "thirteen long".repeat(4)), b"whole pieces");
    made.write("overlays/README", b"readme");
    made.write("overlays/deep/er/and/deeper/file.dtbo", &bytes(4, 40_000));
    for len in [1, 511, 513, 2047, 2048, 2049, 4096, 32_767, 32_769] {
        made.write(&format!("lengths/of {len} bytes"), &bytes(len as u64, len));
    }
    fs::create_dir(made.tree().join("nothing")).expect("make a directory");
    made
}

#[test]
fn trees_are_as_they_were_written() {
    let made = various();
    let expected = made.contents();
    for (options, kib, kind) in [
        ("-F 12 -s 1", 1440, "FAT12"),
        ("-F 12 -s 8", 8192, "FAT12"),
        ("-F 12 -s 128", 65_536, "FAT12"),
        ("-F 16 -s 1", 8192, "FAT16"),
        ("-F 16 -s 4", 65_536, "FAT16"),
        ("-F 16 -s 128", 524_288, "FAT16"),
        ("-F 16 -S 4096 -s 1", 65_536, "FAT16"),
        ("-F 32 -s 2", 81_920, "FAT32"),
        ("-F 32 -s 8", 307_200, "FAT32"),
        ("-F 32 -s 128", 8_388_608, "FAT32"),
        ("-F 32 -S 2048 -s 4", 1_048_576, "FAT32"),
        ("-F 32 -s 2 -f 1 -R 8", 81_920, "FAT32"),
    ] {
        made.format(options, kib);
        made.copy();
        let disk = made.disk();
        assert_eq!((open(&disk).name(), open(&disk).is_in_use()), (kind, false), "{options}");
        let found = read(&disk).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert!(found == expected, "{options}: {:?}, not {:?}", found.keys(), expected.keys());
    }
}

#[test]
fn names_are_found_as_vfat_finds_them() {
    let made = various();
    made.format("-F 16 -s 4", 65_536);
    made.copy();
    let fat = open(&made.disk());
    let long = "L".repeat(255);
    for (name, same) in [
        ("KERNEL.IMG", "kernel.img"),
        ("KERNEL.IMG", "Kernel.Img..."),
        ("config.txt", "CONFIG.TXT."),
        ("vmlinuz-6.1.0-56-amd64", "VMLINUZ-6.1.0-56-AMD64"),
        ("vmlinuz-6.1.0-56-amd64", "vmlinu~1.0-5"),
        ("kernel with a name.image", "KERNEL~1.IMA"),
        ("kernel with a name.image", "kernel~1.ima."),
        ("näme mit ümläut.txt", "NÄME MIT ÜMLÄUT.TXT"),
        ("a.b.c.d", "A.B.C.D"),
        (&"l".repeat(255), &long),
        ("overlays", "OVERLAYS."),
        ("overlays/deep/er", "Overlays../DEEP/Er"),
        ("overlays/deep/er/and/deeper/file.dtbo", "OVERLAYS/DEEP/ER/AND/DEEPER/FILE~1.DTB"),
    ] {
        let found = find(&fat, name);
        assert!(found.is_some(), "{name}");
        assert_eq!(find(&fat, same), found, "{same}");
    }
    for name in
        ["KERNEL", "KERNEL.IM", "KERNEL.IMG ", "A LABEL", "kernel~2.ima", "config", "config..txt", "", ".", "..", "..."]
    {
        assert_eq!(find(&fat, name), None, "{name}");
    }
    for name in ["overlays/.", "overlays/..", "nothing/x", "overlays/readme/x"]
        .map(|path| path.rsplit_once('/').expect("a path"))
    {
        let directory = find(&fat, name.0).expect("the directory");
        match block_on(fat.lookup(directory, name.1.as_bytes())) {
            Ok(None) => assert_eq!(directory.file_type, FileType::Directory),
            Err(Error::Corrupt(_)) => assert_eq!(directory.file_type, FileType::File),
            other => panic!("{name:?}: {other:?}"),
        }
    }
    assert_eq!(block_on(fat.lookup(fat.root(), b"\xFF\xFE")), Ok(None));
}

#[test]
fn a_directory_of_5000_names_is_read() {
    // It is written as a file, which then becomes a directory: mcopy would take minutes for so many.
    let name = |number: usize| format!("file with the number {number}");
    let records = (0..5000).flat_map(|number| records(&name(number), format!("FILE{number:04}IMG").as_bytes()));
    let made = Made::new();
    made.write("MANY", &records.collect::<Vec<_>>());
    made.format("-F 32 -s 1", 40_960);
    made.copy();
    let place = find(&open(&made.disk()), "MANY").expect("the file").id as usize;
    let mut image = made.bytes();
    image[place + 11] = 0x10;
    let disk = Disk::new(image);
    let fat = open(&disk);
    let many = find(&fat, "MANY").expect("the directory");
    let found = block_on(fat.read_directory(many)).expect("a sound directory");
    let expected = (0..5000).map(|number| name(number).into_bytes());
    assert!(found.iter().map(|entry| &entry.name).eq(&expected.collect::<Vec<_>>()));
    let reads = disk.reads();
    let last = find(&fat, "many/FILE WITH THE NUMBER 4999");
    assert_eq!(last, found.last().map(|entry| entry.node));
    assert_eq!(find(&fat, "many/file4999.img"), last);
    assert!(disk.reads() - reads <= 24, "{} reads", disk.reads() - reads);
}

#[test]
fn fragmented_files_come_together() {
    for (options, kib) in [("-F 12 -s 2", 1440), ("-F 16 -s 1", 8192), ("-F 32 -s 1", 40_960)] {
        let made = Made::new();
        made.format(options, kib);
        // Files fill the image, and every second of them makes room for one that is longer.
        let room = kib * 1024 - 200_000 - if kib > 10_000 { 30 << 20 } else { 0 };
        let filler = room / 100;
        for number in 0..100 {
            made.write(&format!("FILL{number}"), &bytes(number, filler - 2 * number as usize));
        }
        if kib > 10_000 {
            made.write("AREST", &vec![1; 29 << 20]);
        }
        made.copy();
        for number in (0..100).step_by(2) {
            fs::remove_file(made.tree().join(format!("FILL{number}"))).expect("remove a file");
            made.mtools("mdel", &[&format!("::FILL{number}")]);
        }
        let (long, content) = (made.tree().join("LONG"), bytes(1000, (room / 2).min(1 << 20) - 60_000));
        fs::write(&long, content).expect("write the file");
        made.mtools("mcopy", &[long.to_str().expect("a path in UTF-8"), "::"]);
        let disk = made.disk();
        let fat = open(&disk);
        let file = block_on(fat.map(find(&fat, "LONG").expect("the file"))).expect("a sound chain");
        assert!(file.extents.len() > 2, "{options}: {} pieces", file.extents.len());
        let mut expected = made.contents();
        expected.values_mut().flatten().for_each(|content| content.truncate(1 << 20));
        assert!(read(&disk) == Ok(expected), "{options}");
    }
}

#[test]
fn a_long_file_takes_few_reads() {
    let made = Made::new();
    let mut content = bytes(1, 1 << 20).repeat(64);
    content.chunks_mut(1 << 20).zip(0..).for_each(|(piece, number)| piece[0] = number);
    made.write("boot/a kernel", &content);
    made.format("-F 32 -s 8", 307_200);
    made.copy();
    let disk = made.disk();
    let fat = open(&disk);
    let file = block_on(fat.map(find(&fat, "boot/a kernel").expect("the file"))).expect("a sound chain");
    assert!(disk.reads() <= 4, "{} reads", disk.reads());
    assert_eq!((file.size, file.extents.len()), (64 << 20, 1));
    assert!(block_on(file.read(&*disk, 0, 64 << 20)) == Ok(content));
}

#[test]
fn places_are_those_of_the_disk_and_identities_those_of_the_file() {
    let made = various();
    made.format("-F 16 -s 2", 16_384);
    made.copy();
    let image = made.bytes();
    let disk = Disk::new([vec![7; 1_000_000], image.clone()].concat());
    let fat = block_on(Fat::open(disk.volume().slice(1_000_000, u64::MAX))).expect("sound").expect("a FAT");
    let node = find(&fat, "kernel.img").expect("the file");
    let file = block_on(fat.map(node)).expect("a sound chain");
    assert_eq!(block_on(file.read(&*disk, 0, 1 << 20)), Ok(bytes(1, 70_001)));
    let state = |change: &dyn Fn(&mut [u8])| {
        let mut image = image.clone();
        change(&mut image[node.id as usize..][..32]);
        let disk = Disk::new([vec![7; 1_000_000], image].concat());
        let fat = block_on(Fat::open(disk.volume().slice(1_000_000, u64::MAX))).expect("sound").expect("a FAT");
        block_on(fat.map(node))
    };
    assert_eq!(state(&|_| {}).as_ref(), Ok(&file));
    assert_eq!(state(&|entry| entry[18] ^= 1).as_ref(), Ok(&file), "it was only read");
    for at in [13, 14, 16, 22, 24, 28] {
        assert_ne!(state(&|entry| entry[at] ^= 1).as_ref(), Ok(&file), "byte {at}");
    }
    // The entry of something else is in its place.
    for change in [(0, 0xE5), (0, 0), (11, 0x10), (11, 0x08), (11, 0x0F)] {
        let changed = state(&|entry| entry[change.0] = change.1);
        assert!(matches!(changed, Err(Error::Corrupt(_))), "{change:?}: {changed:?}");
    }
}

#[test]
fn other_boot_sectors_are_not_taken() {
    let made = Made::new();
    made.format("-F 16 -s 4", 65_536);
    let mut image = made.bytes();
    image.truncate(1 << 20);
    let opened = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = image.clone();
        change(&mut image);
        block_on(Fat::open(Disk::new(image).volume())).map(|fat| fat.map(|fat| fat.name()))
    };
    assert_eq!(opened(&|_| {}), Ok(Some("FAT16")));
    assert_eq!(opened(&|image| image[510..512].fill(0)), Ok(Some("FAT16")), "Linux does not look");
    for (at, bytes) in [
        (11, &[0, 0][..]),
        (11, &[0, 1]),
        (11, &[0, 3]),
        (11, &[0, 32]),
        (13, &[0]),
        (13, &[3]),
        (14, &[0, 0]),
        (16, &[0]),
        (21, &[0xF1]),
    ] {
        assert_eq!(opened(&|image| image[at..at + bytes.len()].copy_from_slice(bytes)), Ok(None), "{at}: {bytes:?}");
    }
    // Those of exFAT and NTFS have zeros instead.
    assert_eq!(opened(&|image| image[3..64].copy_from_slice(&[b"EXFAT   ".as_slice(), &[0; 53]].concat())), Ok(None));
    assert_eq!(opened(&|image| image[14..17].fill(0)), Ok(None));
    assert_eq!(opened(&|image| image.truncate(511)), Ok(None));
    // A FAT32, but for the length of the FAT.
    assert_eq!(opened(&|image| [22, 23, 36, 37, 38, 39].into_iter().for_each(|at| image[at] = 0)), Ok(None));
    for (changes, expected) in [
        (&[(17, 1), (18, 2)][..], "the root directory does not end at a sector boundary"),
        (&[(19, 100)], "the first cluster is in sector 292 of 100"),
        (&[(13, 1), (22, 44), (23, 1)], "76798 clusters, which exceeds the maximum of FAT16"),
    ] {
        let result = opened(&|image| changes.iter().for_each(|(at, byte)| image[*at] = *byte));
        assert_eq!(result, Err(Error::corrupt("boot sector", expected)));
    }
}

#[test]
fn the_kind_is_what_linux_takes_it_for() {
    let made = Made::new();
    for (options, kib, kind) in [
        ("-F 12 -s 1 -f 1 -R 1 -r 16", 2050, "FAT12"),
        ("-F 16 -s 1", 8192, "FAT16"),
        // Too short for a FAT32 by the number of its clusters.
        ("-F 32 -s 1", 4096, "FAT32"),
    ] {
        made.format(options, kib);
        let fat = open(&made.disk());
        assert_eq!((fat.name(), block_on(fat.read_directory(fat.root()))), (kind, Ok(vec![])), "{options}");
    }
}

#[test]
fn a_mounted_file_system_is_known() {
    for (options, kib, state, clean) in [
        ("-F 12 -s 1", 1440, 0x25, None),
        ("-F 16 -s 4", 65_536, 0x25, Some((3, 0x80))),
        ("-F 32 -s 1", 40_960, 0x41, Some((7, 0x08))),
    ] {
        let made = Made::new();
        made.format(options, kib);
        let mut image = made.bytes();
        image.truncate(1 << 20);
        let is_in_use = |at: usize, bit: u8| {
            let mut image = image.clone();
            image[at] ^= bit;
            open(&Disk::new(image)).is_in_use()
        };
        assert!(!is_in_use(3, 1), "{options}");
        assert!(is_in_use(state, 1), "{options}");
        assert!(!is_in_use(state, 2), "{options}");
        if let Some((at, bit)) = clean {
            assert!(is_in_use(open(&Disk::new(image.clone())).layout.fat_offset as usize + at, bit), "{options}");
        }
    }
}

/// An image with a file of ten clusters, and what its chain looks like.
struct Chained {
    image: Vec<u8>,
    layout: Layout,
    file: Node,
    first: u32,
}

fn chained(options: &str, kib: usize) -> Chained {
    let made = Made::new();
    made.write("dir/FILE", &bytes(1, 5120));
    made.format(options, kib);
    made.copy();
    let disk = made.disk();
    let fat = open(&disk);
    let file = find(&fat, "dir/FILE").expect("the file");
    let first = block_on(fat.map(file)).expect("a sound chain").identity.generation as u32;
    Chained { image: made.bytes(), layout: fat.layout, file, first }
}

impl Chained {
    /// What the file is when links of its chain are others.
    fn with(&self, links: &[(u32, u32)]) -> Result<FileMap, Error> {
        let mut image = self.image.clone();
        for (cluster, next) in links {
            let table = &mut image[self.layout.fat_offset as usize..];
            let cluster = *cluster as usize;
            match self.layout.width {
                Width::Fat12 => {
                    let pair = &mut table[cluster * 3 / 2..][..2];
                    let old = u16::from_le_bytes([pair[0], pair[1]]);
                    let next = *next as u16;
                    let new = if cluster % 2 == 1 { old & 0xF | next << 4 } else { old & 0xF000 | next & 0xFFF };
                    pair.copy_from_slice(&new.to_le_bytes());
                }
                Width::Fat16 => table[cluster * 2..][..2].copy_from_slice(&(*next as u16).to_le_bytes()),
                Width::Fat32 => table[cluster * 4..][..4].copy_from_slice(&next.to_le_bytes()),
            }
        }
        let fat = open(&Disk::new(image));
        block_on(fat.map(self.file))
    }
}

#[test]
fn broken_chains_are_refused() {
    for (options, kib, end) in
        [("-F 12 -s 1", 1440, 0xFFF), ("-F 16 -s 1", 8192, 0xFFFF), ("-F 32 -s 1", 40_960, 0xFFF_FFFF)]
    {
        let chained = chained(options, kib);
        let first = chained.first;
        let whole = chained.with(&[]).expect("a sound chain");
        // Longer than needed is fine, whatever comes after; so are the four bits that FAT32 does not use.
        assert_eq!(chained.with(&[(first + 9, 0)]).as_ref(), Ok(&whole), "{options}");
        assert_eq!(chained.with(&[(first + 9, first)]).as_ref(), Ok(&whole), "{options}");
        if options.contains("32") {
            assert_eq!(chained.with(&[(first, (first + 1) | 0xF000_0000)]).as_ref(), Ok(&whole));
        }
        // Another way is another file.
        let moved = chained.with(&[(first + 4, first + 100), (first + 100, first + 6)]).expect("a sound chain");
        assert_eq!((moved.size, moved.extents.len()), (whole.size, 3), "{options}");
        for last in [end, end - 7] {
            let short = chained.with(&[(first + 8, last)]);
            let expected = "a file of 5120 bytes has clusters for 4608, or is being written";
            assert_eq!(short, Err(Error::corrupt(("directory entry at", chained.file.id), expected)), "{options}");
        }
        let looped = Error::corrupt(("chain of cluster", first), "loops, or is being written");
        for back in [first, first + 3, first + 8] {
            assert_eq!(chained.with(&[(first + 8, back)]), Err(looped.clone()), "{options}");
        }
        let beyond = 2 + chained.layout.clusters;
        for next in [0, 1, end - 8, beyond, beyond + 1] {
            let broken = chained.with(&[(first + 8, next)]);
            assert!(
                matches!(&broken, Err(Error::Corrupt(reason)) if reason.what.contains("broken")),
                "{options}: {next:#x}: {broken:?}"
            );
        }
    }
}

#[test]
fn sizes_and_starts_that_do_not_fit_are_refused() {
    let mut chained = chained("-F 16 -s 1", 8192);
    let place = chained.file.id as usize;
    let mut with = |at: usize, bytes: &[u8]| {
        let before = chained.image.clone();
        chained.image[place + at..][..bytes.len()].copy_from_slice(bytes);
        let result = chained.with(&[]);
        chained.image = before;
        result
    };
    assert_eq!(with(28, &0u32.to_le_bytes()).map(|file| (file.size, file.extents)), Ok((0, vec![])));
    assert_eq!(with(28, &1u32.to_le_bytes()).map(|file| (file.size, file.extents[0].len)), Ok((1, 512)));
    // The upper half of the first cluster is not FAT16's.
    assert_eq!(with(20, &[9, 9]).map(|file| file.size), Ok(5120));
    for (at, bytes) in [(28, 5121u32), (28, u32::MAX), (26, 0), (26, 0xFFFF)] {
        let bytes = if at == 26 { &bytes.to_le_bytes()[..2] } else { &bytes.to_le_bytes() };
        let result = with(at, bytes);
        assert!(matches!(result, Err(Error::Corrupt(_))), "{at}: {result:?}");
    }
}

#[test]
fn a_file_in_too_many_pieces_is_named() {
    let mut chained = chained("-F 32 -s 1", 73_728);
    let size = (70_000u32 * 512).to_le_bytes();
    chained.image[chained.file.id as usize + 28..][..4].copy_from_slice(&size);
    let first = chained.first;
    let links: Vec<_> = (0..70_000).map(|link| (first + 2 * link, first + 2 * link + 2)).collect();
    assert_eq!(chained.with(&links), Err(Error::unsupported(("chain of cluster", first), "more than 65536 fragments")));
    let size = (65_536u32 * 512).to_le_bytes();
    chained.image[chained.file.id as usize + 28..][..4].copy_from_slice(&size);
    assert_eq!(chained.with(&links).map(|file| file.extents.len()), Ok(65_536));
}

#[test]
fn directories_without_end_are_refused() {
    let made = various();
    made.format("-F 32 -s 2", 81_920);
    made.copy();
    let image = made.bytes();
    let fat = open(&made.disk());
    let node = find(&fat, "lengths").expect("the directory");
    let first = block_on(fat.record(node.id, FileType::Directory)).expect("an entry").first_cluster(Width::Fat32);
    let with = |links: &mut dyn Iterator<Item = (u32, u32)>| {
        let mut image = image.clone();
        for (cluster, next) in links {
            image[fat.layout.fat_offset as usize + cluster as usize * 4..][..4].copy_from_slice(&next.to_le_bytes());
        }
        let fat = open(&Disk::new(image));
        block_on(fat.read_directory(node)).map(|found| found.len())
    };
    assert!(matches!(with(&mut std::iter::empty()), Ok(9)));
    assert!(
        matches!(with(&mut [(first, first)].into_iter()), Err(Error::Corrupt(reason)) if reason.what.contains("loops"))
    );
    assert!(
        matches!(with(&mut [(first, 0)].into_iter()), Err(Error::Corrupt(reason)) if reason.what.contains("broken"))
    );
    let row = |last: u32| with(&mut (first..last).map(|at| (at, if at + 1 == last { 0xFFF_FFFF } else { at + 1 })));
    assert!(row(first + 2048).is_ok());
    assert!(matches!(row(first + 2049), Err(Error::Corrupt(reason)) if reason.what.contains("2 MiB")));
}

#[test]
fn damaged_file_systems_are_read_in_bounded_steps() {
    let made = Made::new();
    for number in 0..12 {
        made.write(&format!("dir/a long name {number}"), &bytes(number, 2000 * number as usize));
        made.write(&format!("FILE{number}"), &bytes(number, 700 * number as usize));
        made.write(&format!("dir/{number}/deep/file"), b"deep");
    }
    let images = [("-F 12 -s 1", 720), ("-F 16 -s 1", 2600), ("-F 32 -s 1 -f 1 -R 8", 40_960)].map(|(options, kib)| {
        made.format(options, kib);
        made.copy();
        let mut image = made.bytes();
        // What means something: the boot sector, the used beginning of the FAT, and what is in use behind it.
        let layout = open(&Disk::new(image.clone())).layout;
        let data = match layout.root {
            Root::Fixed { offset, .. } => offset as usize,
            Root::Chain(_) => layout.clusters_at(&(2..3)).0 as usize,
        };
        image.truncate(data + 300_000);
        assert!(read(&Disk::new(image.clone())) == Ok(made.contents()), "{options}");
        (image, [(0, 96), (layout.fat_offset as usize, 600), (data, 120_000)])
    });
    let started = Instant::now();
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let (image, parts) = &images[random.below(3)];
        let mut image = image.clone();
        for _ in 0..=random.below(8) {
            // File contents do not matter: most of the time a byte of what is not.
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
    assert!(started.elapsed().as_secs() < 60, "took {:?}", started.elapsed());
}
