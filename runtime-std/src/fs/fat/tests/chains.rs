//! Cluster chains.

use super::*;

/// An image with a file of ten clusters.
struct Chained {
    image: Vec<u8>,
    layout: Layout,
    file: Node,
    first: u32,
}

fn chained(options: &str, kib: usize) -> Chained {
    let fixture = Fixture::new();
    fixture.write("dir/FILE", &bytes(1, 5120));
    fixture.format(options, kib);
    fixture.copy();
    let disk = fixture.disk();
    let fat = open(&disk);
    let file = find(&fat, "dir/FILE").expect("the file");
    let first = block_on(fat.map(file)).expect("a valid chain").identity.generation as u32;
    Chained { image: fixture.bytes(), layout: fat.layout, file, first }
}

impl Chained {
    /// Maps the file after changing entries of the FAT.
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
fn broken_chains_are_corrupt() {
    for (options, kib, end) in
        [("-F 12 -s 1", 1440, 0xFFF), ("-F 16 -s 1", 8192, 0xFFFF), ("-F 32 -s 1", 40_960, 0xFFF_FFFF)]
    {
        let chained = chained(options, kib);
        let first = chained.first;
        let whole = chained.with(&[]).expect("a valid chain");
        // The chain may be longer than the file, and broken after it. FAT32 ignores the high four bits.
        assert_eq!(chained.with(&[(first + 9, 0)]).as_ref(), Ok(&whole), "{options}");
        assert_eq!(chained.with(&[(first + 9, first)]).as_ref(), Ok(&whole), "{options}");
        if options.contains("32") {
            assert_eq!(chained.with(&[(first, (first + 1) | 0xF000_0000)]).as_ref(), Ok(&whole));
        }
        // A chain with other clusters yields another map.
        let moved = chained.with(&[(first + 4, first + 100), (first + 100, first + 6)]).expect("a valid chain");
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
fn sizes_and_first_clusters_must_match_the_chain() {
    let mut chained = chained("-F 16 -s 1", 8192);
    let offset = chained.file.id as usize;
    let mut with = |at: usize, bytes: &[u8]| {
        let before = chained.image.clone();
        chained.image[offset + at..][..bytes.len()].copy_from_slice(bytes);
        let result = chained.with(&[]);
        chained.image = before;
        result
    };
    assert_eq!(with(28, &0u32.to_le_bytes()).map(|file| (file.size, file.extents)), Ok((0, vec![])));
    assert_eq!(with(28, &1u32.to_le_bytes()).map(|file| (file.size, file.extents[0].len)), Ok((1, 512)));
    // FAT16 ignores the high half of the first cluster.
    assert_eq!(with(20, &[9, 9]).map(|file| file.size), Ok(5120));
    for (at, bytes) in [(28, 5121u32), (28, u32::MAX), (26, 0), (26, 0xFFFF)] {
        let bytes = if at == 26 { &bytes.to_le_bytes()[..2] } else { &bytes.to_le_bytes() };
        let result = with(at, bytes);
        assert!(matches!(result, Err(Error::Corrupt(_))), "{at}: {result:?}");
    }
}

#[test]
fn files_with_too_many_fragments_are_unsupported() {
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
fn endless_directories_are_corrupt() {
    let fixture = various();
    fixture.format("-F 32 -s 2", 81_920);
    fixture.copy();
    let image = fixture.bytes();
    let fat = open(&fixture.disk());
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
    let chain_to =
        |last: u32| with(&mut (first..last).map(|at| (at, if at + 1 == last { 0xFFF_FFFF } else { at + 1 })));
    assert!(chain_to(first + 2048).is_ok());
    assert!(matches!(chain_to(first + 2049), Err(Error::Corrupt(reason)) if reason.what.contains("2 MiB")));
}
