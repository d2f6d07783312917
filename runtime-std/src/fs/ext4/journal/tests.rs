//! The replay against e2fsck's, and against logs that are torn, damaged or hostile.

mod builder;
mod hostile;
mod image;
mod torn;

use self::{
    builder::{Builder, MAGIC, Sums},
    image::{Image, LOG},
};
use crate::fs::Error;

/// The first of some blocks that no file has.
const FREE: u64 = 6000;

/// A block like no other.
fn content(seed: u8, block_size: usize) -> Vec<u8> {
    (0..block_size).map(|at| (at / 11) as u8 ^ seed).collect()
}

/// A block that begins as the log's own blocks do.
fn escaped(seed: u8, block_size: usize) -> Vec<u8> {
    let mut block = content(seed, block_size);
    block[..4].copy_from_slice(&MAGIC);
    block
}

/// Writes transactions with debugfs, most of which touch blocks of others.
fn write_with_debugfs(image: &Image, block_size: usize, open: &str, revokes: bool) {
    image.side_file("many", &(0..6).flat_map(|seed| content(seed, block_size)).collect::<Vec<_>>());
    image.side_file("two", &[escaped(7, block_size), content(8, block_size)].concat());
    image.side_file("one", &content(9, block_size));
    let mut commands = format!("{open}\njournal_write -b 6000,6001,6002,6003,6004,6005 %many\n");
    commands += "journal_write -b 6001,6003 %two\n";
    if revokes {
        commands += "journal_write -r 6003,6004,6100\n";
        commands += "journal_write -b 6009 %one\njournal_write -r 6005\n";
    }
    commands += "journal_write -b 6004 %one\njournal_close\n";
    image.debugfs(&commands);
}

#[test]
fn logs_written_by_debugfs_are_replayed_as_by_e2fsck() {
    let kinds = [
        (1024, "-t ext3", ""),
        (4096, "-t ext3", ""),
        (4096, "-t ext4 -O ^metadata_csum", ""),
        (1024, "-t ext4 -O ^metadata_csum,^64bit", ""),
        (1024, "-t ext4", "-c -v 3"),
        (4096, "-t ext4 -O ^64bit", "-c -v 3"),
        (1024, "-t ext4", "-c -v 2"),
        (4096, "-t ext4 -O ^64bit", "-c -v 2"),
    ];
    for (block_size, options, sums) in kinds {
        let image = Image::make(block_size, options);
        write_with_debugfs(&image, block_size, &format!("journal_open {sums}"), true);
        assert_eq!(image.compare(), [6000, 6001, 6002, 6004, 6009], "{block_size} {options} {sums}");
    }
}

/// debugfs 1.47 counts revoked blocks to the sums of the first version, which neither e2fsck nor the kernel does.
#[test]
fn logs_with_the_first_checksums_are_replayed_as_by_e2fsck() {
    let image = Image::make(1024, "-t ext3");
    write_with_debugfs(&image, 1024, "journal_open -c", false);
    assert_eq!(image.compare(), [6000, 6001, 6002, 6003, 6004, 6005]);
}

#[test]
fn logs_of_every_kind_are_replayed_as_by_e2fsck() {
    let image = Image::make(1024, "-t ext4");
    for mut builder in Builder::all(1024) {
        fill(&mut builder);
        // Around the end of the log.
        image.install(&builder, 900);
        assert_eq!(image.compare().len(), 207, "{:?}, wide: {}", builder.sums, builder.wide);
    }
    let image = Image::make(4096, "-t ext4");
    for (sums, wide, start) in [(Sums::V3, true, 1), (Sums::V2, false, LOG - 1), (Sums::None, false, 1000)] {
        let mut builder = Builder::new(4096, sums, wide);
        fill(&mut builder);
        image.install(&builder, start);
        assert_eq!(image.compare().len(), 207, "{sums:?}, wide: {wide}");
    }
}

/// Adds transactions of several descriptors, with revokes and escapes.
fn fill(builder: &mut Builder) {
    let size = builder.block_size;
    let many: Vec<_> = (0..200).map(|at| (FREE + at, content(at as u8, size))).collect();
    builder.transaction(&[], &many);
    builder.transaction(&[FREE + 3, FREE + 4], &[(FREE + 300, escaped(1, size)), (FREE + 5, escaped(2, size))]);
    // Revoked in the transaction that it is copied in: not valid.
    let again = [(FREE + 4, content(99, size)), (FREE + 300, content(3, size)), (FREE + 7, content(4, size))];
    builder.transaction(&[FREE + 7], &again);
    let revoked: Vec<_> = (0..300).map(|at| FREE + 1000 + at).collect();
    let more: Vec<_> = (0..8).map(|at| (FREE + 400 + at, content(at as u8, size))).collect();
    builder.transaction(&revoked, &more);
}

#[test]
fn logs_that_stop_in_the_middle_are_replayed_as_by_e2fsck() {
    let image = Image::make(1024, "-t ext4");
    for mut builder in Builder::all(1024) {
        builder.transaction(&[], &[(FREE, content(1, 1024)), (FREE + 1, escaped(2, 1024))]);
        builder.transaction(&[FREE], &[(FREE + 2, content(3, 1024))]);
        // All but the last commit block.
        builder.blocks.pop();
        image.install(&builder, 5);
        assert_eq!(image.compare(), [FREE, FREE + 1]);
        // A commit block that does not agree, where it has a sum.
        builder.transaction(&[], &[]);
        let commit = builder.blocks.last_mut().expect("a block");
        commit[17] ^= 1;
        commit[11] -= 1;
        image.install(&builder, 5);
        let expected: &[u64] = if builder.sums == Sums::None { &[FREE + 1, FREE + 2] } else { &[FREE, FREE + 1] };
        assert_eq!(image.compare(), expected, "{:?}", builder.sums);
    }
}

#[test]
fn numbers_of_transactions_and_the_log_go_round() {
    for mut builder in Builder::all(1024) {
        builder.first = u32::MAX - 1;
        builder.sequence = builder.first;
        for round in 0..4 {
            builder.transaction(&[FREE + 3 - round], &[(FREE + round, content(round as u8, 1024))]);
        }
        let blocks: Vec<_> = builder.load().expect("a good log").range(0..u64::MAX).map(|(block, _)| block).collect();
        assert_eq!(blocks, [FREE + 2, FREE + 3], "{:?}", builder.sums);
    }
}

#[test]
fn block_numbers_have_all_their_bits() {
    for mut builder in Builder::all(1024) {
        let far = 0xabcd_1234_5678;
        builder.transaction(&[], &[(far, content(1, 1024)), (far + 1, content(1, 1024))]);
        builder.transaction(&[far], &[]);
        let expected = if builder.wide { far + 1 } else { (far + 1) & 0xffff_ffff };
        let journal = builder.load().expect("a good log");
        assert_eq!(journal.range(0..u64::MAX).map(|(block, _)| block).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn copies_are_found_by_block_and_by_range() {
    let mut builder = Builder::new(1024, Sums::V3, true);
    builder.transaction(&[], &[(9, content(1, 1024)), (3, escaped(2, 1024)), (5, content(3, 1024))]);
    let journal = builder.load().expect("a good log");
    let found: Vec<_> = journal.range(3..9).map(|(block, copied)| (block, copied.place, copied.escaped)).collect();
    assert_eq!(found, [(3, 52 * 1024, true), (5, 53 * 1024, false)]);
    assert_eq!(journal.find(9).map(|copied| copied.place), Some(51 * 1024));
    assert_eq!(journal.find(4), None);
    let (backwards, nothing) = (std::ops::Range { start: 9, end: 3 }, u64::MAX..u64::MAX);
    assert_eq!(journal.range(backwards).chain(journal.range(nothing)).count(), 0);
}

#[test]
fn fast_commits_are_left_to_others() {
    const LOG: usize = 2048;
    let mut builder = Builder::new(1024, Sums::V3, true);
    builder.features = 0x20;
    builder.transaction(&[], &[(FREE, content(1, 1024)), (FREE + 1, content(2, 1024))]);
    // The log ends before the area for fast commits.
    let ring = LOG - 256;
    let mut disk = builder.journal(ring, ring - 2);
    disk.resize(LOG * 1024, 0);
    disk[..1024].copy_from_slice(&builder.superblock(LOG, ring - 2));
    let place = (ring + 1) * 1024;
    let load = |disk: &Vec<u8>| builder::load_all(disk, 1024);
    assert_eq!(load(&disk).expect("no fast commits").range(0..u64::MAX).count(), 2);
    disk[place..place + 4].copy_from_slice(&[9, 0, 8, 0]);
    disk[place + 8..place + 12].copy_from_slice(&(builder.sequence - 1).to_le_bytes());
    assert!(load(&disk).is_ok(), "those of older transactions do not count");
    disk[place + 8..place + 12].copy_from_slice(&builder.sequence.to_le_bytes());
    assert!(matches!(load(&disk), Err(Error::Unsupported(reason)) if reason.to_string().contains("fast commits")));
}

#[test]
fn what_begins_the_sums_is_the_journals_own_uuid() {
    let image = Image::make(1024, "-t ext4");
    let uuid = |image: &Image| image.bytes()[1024 + 0x68..][..16].to_vec();
    let before = uuid(&image);
    image.rename();
    assert_ne!(uuid(&image), before);
    write_with_debugfs(&image, 1024, "journal_open -c -v 3", true);
    assert_eq!(image.compare(), [6000, 6001, 6002, 6004, 6009]);
}
