//! Boot sectors.

use super::*;

#[test]
fn other_boot_sectors_are_not_fat() {
    let fixture = Fixture::new();
    fixture.format("-F 16 -s 4", 65_536);
    let mut image = fixture.bytes();
    image.truncate(1 << 20);
    let opened = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = image.clone();
        change(&mut image);
        block_on(Fat::open(Disk::new(image).volume())).map(|fat| fat.map(|fat| fat.name()))
    };
    assert_eq!(opened(&|_| {}), Ok(Some("FAT16")));
    assert_eq!(opened(&|image| image[510..512].fill(0)), Ok(Some("FAT16")), "Linux ignores the signature");
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
    // exFAT and NTFS have zeros in place of the number of FATs.
    assert_eq!(opened(&|image| image[3..64].copy_from_slice(&[b"EXFAT   ".as_slice(), &[0; 53]].concat())), Ok(None));
    assert_eq!(opened(&|image| image[14..17].fill(0)), Ok(None));
    assert_eq!(opened(&|image| image.truncate(511)), Ok(None));
    // FAT32, but with a FAT of length 0.
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
fn width_is_determined_like_linux() {
    let fixture = Fixture::new();
    for (options, kib, kind) in [
        ("-F 12 -s 1 -f 1 -R 1 -r 16", 2050, "FAT12"),
        ("-F 16 -s 1", 8192, "FAT16"),
        // By the number of clusters it would be FAT12.
        ("-F 32 -s 1", 4096, "FAT32"),
    ] {
        fixture.format(options, kib);
        let fat = open(&fixture.disk());
        assert_eq!((fat.name(), block_on(fat.read_directory(fat.root()))), (kind, Ok(vec![])), "{options}");
    }
}

#[test]
fn dirty_flags_are_detected() {
    for (options, kib, state, clean) in [
        ("-F 12 -s 1", 1440, 0x25, None),
        ("-F 16 -s 4", 65_536, 0x25, Some((3, 0x80))),
        ("-F 32 -s 1", 40_960, 0x41, Some((7, 0x08))),
    ] {
        let fixture = Fixture::new();
        fixture.format(options, kib);
        let mut image = fixture.bytes();
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
