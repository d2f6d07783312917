//! Logs that are damaged, and owners that write while we read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    Builder, FREE, Sums,
    builder::{load, load_all, put, sign, whole},
    content,
};
use crate::fs::{BlockDevice, Error, ReadFuture};

/// Three transactions of a table of revoked blocks, a descriptor, two copies and a commit block each.
fn three(mut builder: Builder) -> Builder {
    let size = builder.block_size;
    for round in 0..3 {
        let block = FREE + 10 * round;
        builder.transaction(&[block + 9], &[(block, content(1, size)), (block + 1, content(2, size))]);
    }
    assert_eq!(builder.blocks.len(), 15);
    builder
}

/// What damage to a block of the log comes to: the number of blocks that have copies, or nothing.
fn damaged(builder: &Builder, at: usize) -> Option<usize> {
    let mut builder = builder.clone();
    // Not in the head of the block, which would make it none of the log's.
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

/// All kinds of logs that have sums, with and without the feature of commit blocks that do not wait for what they commit. The first
/// block of a transaction that has a sum is the descriptor in those of the first version, the table of revoked blocks in others.
fn kinds() -> impl Iterator<Item = (usize, Builder)> {
    let builders = Builder::all(1024).filter(|builder| builder.sums != Sums::None);
    builders.flat_map(|builder| {
        let first = if builder.sums == Sums::V1 { 1 } else { 0 };
        [0, 4].map(|features| (first, three(Builder { features, ..builder.clone() })))
    })
}

#[test]
fn a_damaged_last_transaction_ends_the_log() {
    for (first, builder) in kinds() {
        for at in first..4 {
            assert_eq!(damaged(&builder, 10 + at), Some(4), "{:?}, block {at}", builder.sums);
        }
    }
}

#[test]
fn a_damaged_transaction_before_a_good_one_is_an_error() {
    for (first, builder) in kinds() {
        for at in (first..4).chain(5 + first..9) {
            assert_eq!(damaged(&builder, at), None, "{:?}, block {at}", builder.sums);
        }
        let mut commit = builder.clone();
        commit.blocks[4][17] ^= 1;
        assert!(matches!(commit.load(), Err(Error::Corrupt(_))));
        // Two that are damaged, and nothing good after them.
        commit.blocks[9][17] ^= 1;
        commit.blocks[14][17] ^= 1;
        assert_eq!(commit.load().expect("an empty log").range(0..u64::MAX).count(), 0);
    }
}

#[test]
fn what_another_file_system_left_behind_is_the_end_of_the_log() {
    let mut builder = three(Builder::new(1024, Sums::V3, true));
    let good = builder.clone();
    builder.uuid = [7; 16];
    builder.time -= 1000;
    builder.transaction(&[], &[(FREE, content(9, 1024))]);
    builder.uuid = good.uuid;
    builder.time += 2000;
    builder.transaction(&[], &[(FREE, content(9, 1024))]);
    assert_eq!(builder.load().expect("a good log").find(FREE), good.load().expect("a good log").find(FREE));
}

#[test]
fn a_commit_block_may_be_without_the_first_kind_of_sum() {
    let mut builder = three(Builder::new(1024, Sums::V1, false));
    builder.blocks[14][12..20].fill(0);
    assert_eq!(builder.load().expect("a good log").range(0..u64::MAX).count(), 6);
}

#[test]
fn older_laps_of_the_log_are_not_read_again() {
    for sums in [Sums::None, Sums::V3] {
        let mut old = Builder::new(1024, sums, true);
        (0..12).for_each(|at| old.transaction(&[], &[(at, content(at as u8, 1024)), (at + 50, content(1, 1024))]));
        let mut new = Builder::new(1024, sums, true);
        new.first = 30;
        new.sequence = 30;
        new.transaction(&[], &[(1, content(9, 1024)), (2, content(9, 1024))]);
        let mut disk = old.journal(64, 1);
        disk[..1024].copy_from_slice(&new.superblock(64, 5));
        disk[5 * 1024..9 * 1024].copy_from_slice(&new.blocks.concat());
        let blocks: Vec<_> = load_all(&disk, 1024).expect("a good log").range(0..u64::MAX).collect();
        assert_eq!(
            blocks.iter().map(|(block, copied)| (*block, copied.place)).collect::<Vec<_>>(),
            [(1, 6144), (2, 7168)]
        );
    }
}

#[test]
fn superblocks_that_cannot_be_are_refused() {
    let builder = three(Builder::new(1024, Sums::V3, true));
    let change = |at: usize, value: u32| {
        let (mut disk, _) = builder.disk();
        put(&mut disk, at, value);
        sign(&mut disk[..1024]);
        load_all(&disk, 1024)
    };
    let (unused, unknown) = (0x40, 0x53);
    assert_eq!(change(unused, 9).expect("of no interest").range(0..u64::MAX).count(), 6);
    assert_eq!(change(0x20, 5).expect("an error of the owner's").range(0..u64::MAX).count(), 6);
    assert_eq!(change(0x1c, 0).expect("an empty log").range(0..u64::MAX).count(), 0);
    for (at, value) in [(0, 0), (4, 1), (0xc, 4096), (0x10, 65), (0x10, 1), (0x14, 0), (0x14, 64), (0x1c, 64)] {
        assert!(matches!(change(at, value), Err(Error::Corrupt(_))), "{value} at {at}");
    }
    assert!(matches!(change(0x24, 1), Err(Error::Corrupt(reason)) if reason.to_string().contains("conflicting types")));
    assert!(matches!(change(0x28, unknown), Err(Error::Unsupported(reason)) if reason.to_string().contains("0x40")));
    assert!(matches!(change(0x2c, 1), Err(Error::Unsupported(reason)) if reason.to_string().contains("read-only")));
    let (mut disk, _) = builder.disk();
    disk[0x18] ^= 1;
    assert!(matches!(load_all(&disk, 1024), Err(Error::Corrupt(reason)) if reason.to_string().contains("checksum")));
    assert!(matches!(load_all(&disk, 0), Err(Error::Corrupt(_))));
    assert!(matches!(load_all(&disk[..1000], 1024), Err(Error::Corrupt(_))));
}

#[test]
fn the_first_version_has_no_features() {
    let (mut disk, _) = three(Builder::new(1024, Sums::None, false)).disk();
    disk[7] = 3;
    disk[0x24..1024].fill(0xff);
    assert_eq!(load_all(&disk, 1024).expect("a good log").range(0..u64::MAX).count(), 6);
}

#[test]
fn a_log_with_a_hole_is_an_error() {
    let (disk, mut file) = three(Builder::new(1024, Sums::None, true)).disk();
    file.extents[0].len = 55 * 1024;
    let disk: Arc<dyn BlockDevice> = Arc::new(disk);
    assert!(
        matches!(load(&disk, &file, 1024), Err(Error::Corrupt(reason)) if reason.to_string().contains("has no blocks"))
    );
}

/// A disk that becomes another when it has been read a number of times.
#[derive(Debug)]
struct Changing {
    states: Vec<Vec<u8>>,
    each: usize,
    read: AtomicUsize,
}

impl BlockDevice for Changing {
    fn size(&self) -> u64 {
        self.states[0].size()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let state = self.read.fetch_add(1, Ordering::Relaxed) / self.each;
        self.states[state.min(self.states.len() - 1)].read(offset, len)
    }
}

#[test]
fn a_log_that_moves_while_it_is_read_is_read_again() {
    // The owner brings all to its place, and goes on where the log began.
    let state = |first: u32| {
        let mut builder = Builder::new(1024, Sums::V3, true);
        builder.first = first;
        builder.sequence = first;
        builder.transaction(&[], &[(FREE + u64::from(first), content(1, 1024))]);
        builder.journal(64, 1)
    };
    let owner = |states: Vec<Vec<u8>>, each| {
        let disk: Arc<dyn BlockDevice> = Arc::new(Changing { states, each, read: AtomicUsize::new(0) });
        load(&disk, &whole(&*disk), 1024)
    };
    // The superblock of the first state, the log of the second.
    let journal = owner(vec![state(10), state(20)], 1).expect("a good log");
    assert_eq!(journal.range(0..u64::MAX).map(|(block, _)| block).collect::<Vec<_>>(), [FREE + 20]);
    let for_ever = owner((0..20).map(state).collect(), 1);
    assert!(matches!(for_ever, Err(Error::Corrupt(reason)) if reason.to_string().contains("faster")));
}
