//! Compares the journal with e2fsck's replay, and reads torn, damaged and malicious logs.

mod image;
mod log_builder;
mod malicious;
mod torn;

use self::{
    image::{Image, LOG},
    log_builder::{Checksums, LogBuilder, MAGIC},
};
use crate::fs::Error;

/// The first of several unused blocks.
const FREE_BLOCK: u64 = 6000;

/// Returns the content of a block, different for each seed.
fn content(seed: u8, block_size: usize) -> Vec<u8> {
    (0..block_size).map(|at| (at / 11) as u8 ^ seed).collect()
}

/// Returns the content of a block that starts with the magic number of the journal, so that its copy is escaped.
fn escaped_content(seed: u8, block_size: usize) -> Vec<u8> {
    let mut block = content(seed, block_size);
    block[..4].copy_from_slice(&MAGIC);
    block
}

/// Writes transactions with debugfs; most of them write to a block of an earlier one.
fn write_with_debugfs(image: &Image, block_size: usize, open_command: &str, with_revokes: bool) {
    image.write_side_file("many", &(0..6).flat_map(|seed| content(seed, block_size)).collect::<Vec<_>>());
    image.write_side_file("two", &[escaped_content(7, block_size), content(8, block_size)].concat());
    image.write_side_file("one", &content(9, block_size));
    let mut commands = format!("{open_command}\njournal_write -b 6000,6001,6002,6003,6004,6005 %many\n");
    commands += "journal_write -b 6001,6003 %two\n";
    if with_revokes {
        commands += "journal_write -r 6003,6004,6100\n";
        commands += "journal_write -b 6009 %one\njournal_write -r 6005\n";
    }
    commands += "journal_write -b 6004 %one\njournal_close\n";
    image.debugfs(&commands);
}

#[test]
fn matches_e2fsck_on_logs_of_debugfs() {
    let cases = [
        (1024, "-t ext3", ""),
        (4096, "-t ext3", ""),
        (4096, "-t ext4 -O ^metadata_csum", ""),
        (1024, "-t ext4 -O ^metadata_csum,^64bit", ""),
        (1024, "-t ext4", "-c -v 3"),
        (4096, "-t ext4 -O ^64bit", "-c -v 3"),
        (1024, "-t ext4", "-c -v 2"),
        (4096, "-t ext4 -O ^64bit", "-c -v 2"),
    ];
    for (block_size, options, checksums) in cases {
        let image = Image::new(block_size, options);
        write_with_debugfs(&image, block_size, &format!("journal_open {checksums}"), true);
        assert_eq!(image.compare_with_e2fsck(), [6000, 6001, 6002, 6004, 6009], "{block_size} {options} {checksums}");
    }
}

/// The log has no revoke blocks: debugfs 1.47 includes them in checksums of version 1, unlike e2fsck and Linux.
#[test]
fn matches_e2fsck_on_logs_of_debugfs_with_checksum_v1() {
    let image = Image::new(1024, "-t ext3");
    write_with_debugfs(&image, 1024, "journal_open -c", false);
    assert_eq!(image.compare_with_e2fsck(), [6000, 6001, 6002, 6003, 6004, 6005]);
}

#[test]
fn matches_e2fsck_on_logs_of_every_format() {
    let image = Image::new(1024, "-t ext4");
    for mut builder in LogBuilder::all(1024) {
        add_transactions(&mut builder);
        // The log wraps around.
        image.install(&builder, 900);
        assert_eq!(image.compare_with_e2fsck().len(), 207, "{:?}, 64-bit: {}", builder.checksums, builder.is_64bit);
    }
    let image = Image::new(4096, "-t ext4");
    for (checksums, is_64bit, start) in
        [(Checksums::V3, true, 1), (Checksums::V2, false, LOG - 1), (Checksums::None, false, 1000)]
    {
        let mut builder = LogBuilder::new(4096, checksums, is_64bit);
        add_transactions(&mut builder);
        image.install(&builder, start);
        assert_eq!(image.compare_with_e2fsck().len(), 207, "{checksums:?}, 64-bit: {is_64bit}");
    }
}

/// Adds transactions with several descriptor blocks, revoke records and escaped copies.
fn add_transactions(builder: &mut LogBuilder) {
    let size = builder.block_size;
    let many: Vec<_> = (0..200).map(|at| (FREE_BLOCK + at, content(at as u8, size))).collect();
    builder.transaction(&[], &many);
    builder.transaction(
        &[FREE_BLOCK + 3, FREE_BLOCK + 4],
        &[(FREE_BLOCK + 300, escaped_content(1, size)), (FREE_BLOCK + 5, escaped_content(2, size))],
    );
    // Revoked in the transaction that contains the copy: the copy is invalid.
    let again =
        [(FREE_BLOCK + 4, content(99, size)), (FREE_BLOCK + 300, content(3, size)), (FREE_BLOCK + 7, content(4, size))];
    builder.transaction(&[FREE_BLOCK + 7], &again);
    let revoked: Vec<_> = (0..300).map(|at| FREE_BLOCK + 1000 + at).collect();
    let more: Vec<_> = (0..8).map(|at| (FREE_BLOCK + 400 + at, content(at as u8, size))).collect();
    builder.transaction(&revoked, &more);
}

#[test]
fn matches_e2fsck_on_interrupted_logs() {
    let image = Image::new(1024, "-t ext4");
    for mut builder in LogBuilder::all(1024) {
        builder.transaction(&[], &[(FREE_BLOCK, content(1, 1024)), (FREE_BLOCK + 1, escaped_content(2, 1024))]);
        builder.transaction(&[FREE_BLOCK], &[(FREE_BLOCK + 2, content(3, 1024))]);
        // Without the last commit block.
        builder.blocks.pop();
        image.install(&builder, 5);
        assert_eq!(image.compare_with_e2fsck(), [FREE_BLOCK, FREE_BLOCK + 1]);
        // With a commit block that mismatches its checksum, if it has one.
        builder.transaction(&[], &[]);
        let commit = builder.blocks.last_mut().expect("a block");
        commit[17] ^= 1;
        commit[11] -= 1;
        image.install(&builder, 5);
        let expected: &[u64] = if builder.checksums == Checksums::None {
            &[FREE_BLOCK + 1, FREE_BLOCK + 2]
        } else {
            &[FREE_BLOCK, FREE_BLOCK + 1]
        };
        assert_eq!(image.compare_with_e2fsck(), expected, "{:?}", builder.checksums);
    }
}

#[test]
fn sequence_numbers_and_log_wrap_around() {
    for mut builder in LogBuilder::all(1024) {
        builder.first_sequence = u32::MAX - 1;
        builder.sequence = builder.first_sequence;
        for round in 0..4 {
            builder.transaction(&[FREE_BLOCK + 3 - round], &[(FREE_BLOCK + round, content(round as u8, 1024))]);
        }
        let blocks: Vec<_> = builder.load().expect("a valid log").range(0..u64::MAX).map(|(block, _)| block).collect();
        assert_eq!(blocks, [FREE_BLOCK + 2, FREE_BLOCK + 3], "{:?}", builder.checksums);
    }
}

#[test]
fn block_numbers_have_48_bits() {
    for mut builder in LogBuilder::all(1024) {
        let far = 0xabcd_1234_5678;
        builder.transaction(&[], &[(far, content(1, 1024)), (far + 1, content(1, 1024))]);
        builder.transaction(&[far], &[]);
        let expected = if builder.is_64bit { far + 1 } else { (far + 1) & 0xffff_ffff };
        let journal = builder.load().expect("a valid log");
        assert_eq!(journal.range(0..u64::MAX).map(|(block, _)| block).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn looks_up_copies_by_block_and_by_range() {
    let mut builder = LogBuilder::new(1024, Checksums::V3, true);
    builder.transaction(&[], &[(9, content(1, 1024)), (3, escaped_content(2, 1024)), (5, content(3, 1024))]);
    let journal = builder.load().expect("a valid log");
    let copies: Vec<_> = journal.range(3..9).map(|(block, copy)| (block, copy.disk_offset, copy.is_escaped)).collect();
    assert_eq!(copies, [(3, 52 * 1024, true), (5, 53 * 1024, false)]);
    assert_eq!(journal.get(9).map(|copy| copy.disk_offset), Some(51 * 1024));
    assert_eq!(journal.get(4), None);
    let (reversed, empty) = (std::ops::Range { start: 9, end: 3 }, u64::MAX..u64::MAX);
    assert_eq!(journal.range(reversed).chain(journal.range(empty)).count(), 0);
}

#[test]
fn rejects_fast_commits() {
    const LOG: usize = 2048;
    let mut builder = LogBuilder::new(1024, Checksums::V3, true);
    builder.extra_features = 0x20;
    builder.transaction(&[], &[(FREE_BLOCK, content(1, 1024)), (FREE_BLOCK + 1, content(2, 1024))]);
    // The log ends before the fast commit area.
    let log_len = LOG - 256;
    let mut disk = builder.journal(log_len, log_len - 2);
    disk.resize(LOG * 1024, 0);
    disk[..1024].copy_from_slice(&builder.superblock(LOG, log_len - 2));
    let area = (log_len + 1) * 1024;
    let load = |disk: &Vec<u8>| log_builder::load_all(disk, 1024);
    assert_eq!(load(&disk).expect("no fast commits").range(0..u64::MAX).count(), 2);
    disk[area..area + 4].copy_from_slice(&[9, 0, 8, 0]);
    disk[area + 8..area + 12].copy_from_slice(&(builder.sequence - 1).to_le_bytes());
    assert!(load(&disk).is_ok(), "fast commits of an older transaction are ignored");
    disk[area + 8..area + 12].copy_from_slice(&builder.sequence.to_le_bytes());
    assert!(matches!(load(&disk), Err(Error::Unsupported(reason)) if reason.to_string().contains("fast commits")));
}

#[test]
fn checksums_start_with_the_uuid_of_the_journal() {
    let image = Image::new(1024, "-t ext4");
    let uuid = |image: &Image| image.bytes()[1024 + 0x68..][..16].to_vec();
    let before = uuid(&image);
    image.change_uuid();
    assert_ne!(uuid(&image), before);
    write_with_debugfs(&image, 1024, "journal_open -c -v 3", true);
    assert_eq!(image.compare_with_e2fsck(), [6000, 6001, 6002, 6004, 6009]);
}
