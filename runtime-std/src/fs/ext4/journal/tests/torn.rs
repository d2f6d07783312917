//! Damaged and incomplete logs, and logs that change while they are read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    Checksums, FREE_BLOCK, LogBuilder, content,
    log_builder::{load, load_all, put_u32, update_checksum, whole_disk},
};
use crate::fs::{BlockDevice, Error, ReadFuture};

/// Adds three transactions of five blocks each: revoke block, descriptor block, two copies, commit block.
fn with_three_transactions(mut builder: LogBuilder) -> LogBuilder {
    let size = builder.block_size;
    for round in 0..3 {
        let block = FREE_BLOCK + 10 * round;
        builder.transaction(&[block + 9], &[(block, content(1, size)), (block + 1, content(2, size))]);
    }
    assert_eq!(builder.blocks.len(), 15);
    builder
}

/// Damages a block of the log and reads it. Returns the number of copies; `None` if the log is rejected as damaged.
fn copies_after_damage(builder: &LogBuilder, at: usize) -> Option<usize> {
    let mut builder = builder.clone();
    // Behind the header: otherwise the block would not belong to the log.
    builder.blocks[at][20] ^= 4;
    match builder.load() {
        Ok(journal) => Some(journal.range(0..u64::MAX).count()),
        Err(Error::Corrupt(reason)) => {
            assert!(reason.to_string().contains("damaged"), "{reason}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// Returns a log of each format with checksums, with and without the feature `async_commit`; and the index of the first block of a
/// transaction that has a checksum. Version 1 does not cover revoke blocks.
fn logs_with_checksums() -> impl Iterator<Item = (usize, LogBuilder)> {
    let builders = LogBuilder::all(1024).filter(|builder| builder.checksums != Checksums::None);
    builders.flat_map(|builder| {
        let first_covered = if builder.checksums == Checksums::V1 { 1 } else { 0 };
        [0, 4].map(|extra_features| {
            (first_covered, with_three_transactions(LogBuilder { extra_features, ..builder.clone() }))
        })
    })
}

#[test]
fn ignores_damaged_last_transaction() {
    for (first_covered, builder) in logs_with_checksums() {
        for at in first_covered..4 {
            assert_eq!(copies_after_damage(&builder, 10 + at), Some(4), "{:?}, block {at}", builder.checksums);
        }
    }
}

#[test]
fn rejects_damaged_transaction_before_intact_one() {
    for (first_covered, builder) in logs_with_checksums() {
        for at in (first_covered..4).chain(5 + first_covered..9) {
            assert_eq!(copies_after_damage(&builder, at), None, "{:?}, block {at}", builder.checksums);
        }
        let mut commit = builder.clone();
        commit.blocks[4][17] ^= 1;
        assert!(matches!(commit.load(), Err(Error::Corrupt(_))));
        // All transactions are damaged.
        commit.blocks[9][17] ^= 1;
        commit.blocks[14][17] ^= 1;
        assert_eq!(commit.load().expect("an empty log").range(0..u64::MAX).count(), 0);
    }
}

#[test]
fn ends_log_at_remnant_of_earlier_file_system() {
    let mut builder = with_three_transactions(LogBuilder::new(1024, Checksums::V3, true));
    let original = builder.clone();
    builder.uuid = [7; 16];
    builder.time -= 1000;
    builder.transaction(&[], &[(FREE_BLOCK, content(9, 1024))]);
    builder.uuid = original.uuid;
    builder.time += 2000;
    builder.transaction(&[], &[(FREE_BLOCK, content(9, 1024))]);
    assert_eq!(
        builder.load().expect("a valid log").get(FREE_BLOCK),
        original.load().expect("a valid log").get(FREE_BLOCK)
    );
}

#[test]
fn accepts_commit_block_without_checksum_v1() {
    let mut builder = with_three_transactions(LogBuilder::new(1024, Checksums::V1, false));
    builder.blocks[14][12..20].fill(0);
    assert_eq!(builder.load().expect("a valid log").range(0..u64::MAX).count(), 6);
}

#[test]
fn ignores_blocks_of_earlier_passes() {
    for sums in [Checksums::None, Checksums::V3] {
        let mut old = LogBuilder::new(1024, sums, true);
        (0..12).for_each(|at| old.transaction(&[], &[(at, content(at as u8, 1024)), (at + 50, content(1, 1024))]));
        let mut new = LogBuilder::new(1024, sums, true);
        new.first_sequence = 30;
        new.sequence = 30;
        new.transaction(&[], &[(1, content(9, 1024)), (2, content(9, 1024))]);
        let mut disk = old.journal(64, 1);
        disk[..1024].copy_from_slice(&new.superblock(64, 5));
        disk[5 * 1024..9 * 1024].copy_from_slice(&new.blocks.concat());
        let blocks: Vec<_> = load_all(&disk, 1024).expect("a valid log").range(0..u64::MAX).collect();
        assert_eq!(
            blocks.iter().map(|(block, copy)| (*block, copy.disk_offset)).collect::<Vec<_>>(),
            [(1, 6144), (2, 7168)]
        );
    }
}

#[test]
fn rejects_invalid_superblocks() {
    let builder = with_three_transactions(LogBuilder::new(1024, Checksums::V3, true));
    let change = |at: usize, value: u32| {
        let (mut disk, _) = builder.disk();
        put_u32(&mut disk, at, value);
        update_checksum(&mut disk[..1024]);
        load_all(&disk, 1024)
    };
    let (unused_field, unknown_feature) = (0x40, 0x53);
    assert_eq!(change(unused_field, 9).expect("an unused field").range(0..u64::MAX).count(), 6);
    assert_eq!(change(0x20, 5).expect("an error number").range(0..u64::MAX).count(), 6);
    assert_eq!(change(0x1c, 0).expect("an empty log").range(0..u64::MAX).count(), 0);
    for (at, value) in [(0, 0), (4, 1), (0xc, 4096), (0x10, 65), (0x10, 1), (0x14, 0), (0x14, 64), (0x1c, 64)] {
        assert!(matches!(change(at, value), Err(Error::Corrupt(_))), "{value} at {at}");
    }
    assert!(matches!(change(0x24, 1), Err(Error::Corrupt(reason)) if reason.to_string().contains("conflicting types")));
    assert!(
        matches!(change(0x28, unknown_feature), Err(Error::Unsupported(reason)) if reason.to_string().contains("0x40"))
    );
    assert!(matches!(change(0x2c, 1), Err(Error::Unsupported(reason)) if reason.to_string().contains("read-only")));
    let (mut disk, _) = builder.disk();
    disk[0x18] ^= 1;
    assert!(matches!(load_all(&disk, 1024), Err(Error::Corrupt(reason)) if reason.to_string().contains("checksum")));
    assert!(matches!(load_all(&disk, 0), Err(Error::Corrupt(_))));
    assert!(matches!(load_all(&disk[..1000], 1024), Err(Error::Corrupt(_))));
}

#[test]
fn ignores_feature_words_of_version_1() {
    let (mut disk, _) = with_three_transactions(LogBuilder::new(1024, Checksums::None, false)).disk();
    disk[7] = 3;
    disk[0x24..1024].fill(0xff);
    assert_eq!(load_all(&disk, 1024).expect("a valid log").range(0..u64::MAX).count(), 6);
}

#[test]
fn rejects_log_with_hole() {
    let (disk, mut file) = with_three_transactions(LogBuilder::new(1024, Checksums::None, true)).disk();
    file.extents[0].len = 55 * 1024;
    let disk: Arc<dyn BlockDevice> = Arc::new(disk);
    assert!(matches!(load(&disk, &file, 1024), Err(Error::Corrupt(reason)) if reason.to_string().contains("hole")));
}

/// A disk whose content changes after every `reads_per_state` reads.
#[derive(Debug)]
struct Changing {
    states: Vec<Vec<u8>>,
    reads_per_state: usize,
    reads: AtomicUsize,
}

impl BlockDevice for Changing {
    fn size(&self) -> u64 {
        self.states[0].size()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let state = self.reads.fetch_add(1, Ordering::Relaxed) / self.reads_per_state;
        self.states[state.min(self.states.len() - 1)].read(offset, len)
    }
}

#[test]
fn reads_log_again_if_its_tail_moves() {
    // All transactions are checkpointed, and the next one is written to the start of the log.
    let state = |sequence: u32| {
        let mut builder = LogBuilder::new(1024, Checksums::V3, true);
        builder.first_sequence = sequence;
        builder.sequence = sequence;
        builder.transaction(&[], &[(FREE_BLOCK + u64::from(sequence), content(1, 1024))]);
        builder.journal(64, 1)
    };
    let read_while_changing = |states: Vec<Vec<u8>>, reads_per_state| {
        let disk: Arc<dyn BlockDevice> = Arc::new(Changing { states, reads_per_state, reads: AtomicUsize::new(0) });
        load(&disk, &whole_disk(&*disk), 1024)
    };
    // The superblock is read from the first state, the log from the second.
    let journal = read_while_changing(vec![state(10), state(20)], 1).expect("a valid log");
    assert_eq!(journal.range(0..u64::MAX).map(|(block, _)| block).collect::<Vec<_>>(), [FREE_BLOCK + 20]);
    let endless = read_while_changing((0..20).map(state).collect(), 1);
    assert!(matches!(endless, Err(Error::Corrupt(reason)) if reason.to_string().contains("faster")));
}
