//! Trees, names and files of undamaged file systems.

use super::*;

#[test]
fn reads_trees_written_by_mtools() {
    let fixture = various();
    let expected = fixture.contents();
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
        fixture.format(options, kib);
        fixture.copy();
        let disk = fixture.disk();
        assert_eq!((open(&disk).name(), open(&disk).is_in_use()), (kind, false), "{options}");
        let found = read(&disk).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert!(found == expected, "{options}: {:?}, not {:?}", found.keys(), expected.keys());
    }
}

#[test]
fn lookup_matches_vfat() {
    let fixture = various();
    fixture.format("-F 16 -s 4", 65_536);
    fixture.copy();
    let fat = open(&fixture.disk());
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
fn reads_a_directory_with_5000_entries() {
    // Created as a file and changed to a directory: mcopy would take minutes for that many files.
    let name = |number: usize| format!("file with the number {number}");
    let records = (0..5000).flat_map(|number| records(&name(number), format!("FILE{number:04}IMG").as_bytes()));
    let fixture = Fixture::new();
    fixture.write("MANY", &records.collect::<Vec<_>>());
    fixture.format("-F 32 -s 1", 40_960);
    fixture.copy();
    let offset = find(&open(&fixture.disk()), "MANY").expect("the file").id as usize;
    let mut image = fixture.bytes();
    image[offset + 11] = 0x10;
    let disk = Disk::new(image);
    let fat = open(&disk);
    let many = find(&fat, "MANY").expect("the directory");
    let found = block_on(fat.read_directory(many)).expect("a valid directory");
    let expected = (0..5000).map(|number| name(number).into_bytes());
    assert!(found.iter().map(|entry| &entry.name).eq(&expected.collect::<Vec<_>>()));
    let reads = disk.reads();
    let last = find(&fat, "many/FILE WITH THE NUMBER 4999");
    assert_eq!(last, found.last().map(|entry| entry.node));
    assert_eq!(find(&fat, "many/file4999.img"), last);
    assert!(disk.reads() - reads <= 24, "{} reads", disk.reads() - reads);
}

#[test]
fn reads_fragmented_files() {
    for (options, kib) in [("-F 12 -s 2", 1440), ("-F 16 -s 1", 8192), ("-F 32 -s 1", 40_960)] {
        let fixture = Fixture::new();
        fixture.format(options, kib);
        // Files fill the image, then every second one is deleted to make room for a larger one.
        let room = kib * 1024 - 200_000 - if kib > 10_000 { 30 << 20 } else { 0 };
        let filler = room / 100;
        for number in 0..100 {
            fixture.write(&format!("FILL{number}"), &bytes(number, filler - 2 * number as usize));
        }
        if kib > 10_000 {
            fixture.write("AREST", &vec![1; 29 << 20]);
        }
        fixture.copy();
        for number in (0..100).step_by(2) {
            fs::remove_file(fixture.tree().join(format!("FILL{number}"))).expect("remove a file");
            fixture.mtools("mdel", &[&format!("::FILL{number}")]);
        }
        let (long, content) = (fixture.tree().join("LONG"), bytes(1000, (room / 2).min(1 << 20) - 60_000));
        fs::write(&long, content).expect("write the file");
        fixture.mtools("mcopy", &[long.to_str().expect("a path in UTF-8"), "::"]);
        let disk = fixture.disk();
        let fat = open(&disk);
        let file = block_on(fat.map(find(&fat, "LONG").expect("the file"))).expect("a valid chain");
        assert!(file.extents.len() > 2, "{options}: {} extents", file.extents.len());
        let mut expected = fixture.contents();
        expected.values_mut().flatten().for_each(|content| content.truncate(1 << 20));
        assert!(read(&disk) == Ok(expected), "{options}");
    }
}

#[test]
fn maps_a_large_file_with_few_reads() {
    let fixture = Fixture::new();
    let mut content = bytes(1, 1 << 20).repeat(64);
    content.chunks_mut(1 << 20).zip(0..).for_each(|(piece, number)| piece[0] = number);
    fixture.write("boot/a kernel", &content);
    fixture.format("-F 32 -s 8", 307_200);
    fixture.copy();
    let disk = fixture.disk();
    let fat = open(&disk);
    let file = block_on(fat.map(find(&fat, "boot/a kernel").expect("the file"))).expect("a valid chain");
    assert!(disk.reads() <= 4, "{} reads", disk.reads());
    assert_eq!((file.size, file.extents.len()), (64 << 20, 1));
    assert!(block_on(file.read(&*disk, 0, 64 << 20)).as_deref() == Ok(&content[..]));
}

#[test]
fn offsets_are_disk_offsets_and_identity_follows_changes() {
    let fixture = various();
    fixture.format("-F 16 -s 2", 16_384);
    fixture.copy();
    let image = fixture.bytes();
    let disk = Disk::new([vec![7; 1_000_000], image.clone()].concat());
    let fat = block_on(Fat::open(disk.volume().slice(1_000_000, u64::MAX))).expect("valid").expect("a FAT");
    let node = find(&fat, "kernel.img").expect("the file");
    let file = block_on(fat.map(node)).expect("a valid chain");
    assert_eq!(block_on(file.read(&*disk, 0, 1 << 20)).as_deref(), Ok(&bytes(1, 70_001)[..]));
    let state = |change: &dyn Fn(&mut [u8])| {
        let mut image = image.clone();
        change(&mut image[node.id as usize..][..32]);
        let disk = Disk::new([vec![7; 1_000_000], image].concat());
        let fat = block_on(Fat::open(disk.volume().slice(1_000_000, u64::MAX))).expect("valid").expect("a FAT");
        block_on(fat.map(node))
    };
    assert_eq!(state(&|_| {}).as_ref(), Ok(&file));
    assert_eq!(state(&|entry| entry[18] ^= 1).as_ref(), Ok(&file), "only the access date changed");
    for at in [13, 14, 16, 22, 24, 28] {
        assert_ne!(state(&|entry| entry[at] ^= 1).as_ref(), Ok(&file), "byte {at}");
    }
    // The entry now belongs to something else.
    for change in [(0, 0xE5), (0, 0), (11, 0x10), (11, 0x08), (11, 0x0F)] {
        let changed = state(&|entry| entry[change.0] = change.1);
        assert!(matches!(changed, Err(Error::Corrupt(_))), "{change:?}: {changed:?}");
    }
}
