//! Logs that nobody would write.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Builder, FREE, Sums,
    builder::{load, load_all, sign, whole},
    content, escaped,
};
use crate::fs::{BlockDevice, Error, ReadFuture};

/// A disk of any size that gives the same blocks over and over, behind a superblock.
#[derive(Debug)]
struct Endless {
    superblock: Vec<u8>,
    block: Vec<u8>,
    size: u64,
    given: AtomicU64,
}

impl BlockDevice for Endless {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        self.given.fetch_add(len as u64, Ordering::Relaxed);
        let bytes =
            if offset == 0 { self.superblock[..len].to_vec() } else { self.block.repeat(len / self.block.len()) };
        Box::pin(async { Ok(bytes) })
    }
}

/// Loads a journal of `len` blocks that are all the same one.
fn endless(builder: &Builder, block: &[u8], len: usize) -> (Result<usize, Error>, u64) {
    let size = (len * builder.block_size) as u64;
    let (superblock, block) = (builder.superblock(len, 1), block.to_vec());
    let disk = Arc::new(Endless { superblock, block, size, given: AtomicU64::new(0) });
    let loaded = load(&(disk.clone() as Arc<dyn BlockDevice>), &whole(&*disk), builder.block_size);
    (loaded.map(|journal| journal.range(0..u64::MAX).count()), disk.given.load(Ordering::Relaxed))
}

#[test]
fn a_log_of_nothing_but_descriptors_ends() {
    let mut builder = Builder::new(65_536, Sums::None, false);
    let copies: Vec<_> = (0..10_000).map(|at| (at, Vec::new())).collect();
    builder.transaction(&[], &copies);
    let descriptor = builder.blocks[0].clone();
    let (found, _) = endless(&builder, &descriptor, 20_000);
    assert_eq!(found, Ok(0));
    let (found, read) = endless(&builder, &descriptor, 1 << 21);
    assert!(matches!(found, Err(Error::Unsupported(reason)) if reason.to_string().contains("1048576 blocks")));
    assert!(read < 100 << 20, "{read} bytes");
}

#[test]
fn a_log_of_nothing_but_revokes_ends() {
    let mut builder = Builder::new(65_536, Sums::None, false);
    builder.transaction(&(0..16_379).collect::<Vec<_>>(), &[]);
    let table = builder.blocks[0].clone();
    let (found, read) = endless(&builder, &table, 1 << 20);
    assert!(matches!(found, Err(Error::Unsupported(reason)) if reason.to_string().contains("revoked blocks")));
    assert!(read < 10 << 20, "{read} bytes");
}

/// A stream of numbers that depends on nothing but its seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }
}

#[test]
fn no_damage_does_harm() {
    let logs: Vec<_> = Builder::all(1024)
        .map(|mut builder| {
            builder.features = 0x20;
            builder.transaction(&[], &(0..9).map(|at| (FREE + at, escaped(at as u8, 1024))).collect::<Vec<_>>());
            builder.transaction(&[FREE + 1, FREE + 2], &[(FREE, content(2, 1024))]);
            builder.transaction(&[FREE + 5], &(0..5).map(|at| (at << 30, content(3, 1024))).collect::<Vec<_>>());
            builder
        })
        .collect();
    for seed in 0..8000 {
        let mut random = Random(seed);
        let builder = &logs[random.below(logs.len())];
        let (mut disk, _) = builder.disk();
        for _ in 0..1 + random.below(8) {
            // Mostly where something is: at the beginning of a block, a superblock's above all.
            let block = if random.below(3) == 0 { 0 } else { random.below(64) };
            let reach = [16, 64, 256, 1024][random.below(4)];
            let at = block * 1024 + random.below(reach);
            disk[at] = [0, 1, 0xff, random.below(256) as u8][random.below(4)];
        }
        if random.below(4) != 0 {
            sign(&mut disk[..1024]);
        }
        let begun = Instant::now();
        let loaded = std::panic::catch_unwind(|| load_all(&disk, 1024));
        let Ok(loaded) = loaded else { panic!("seed {seed}: it panicked") };
        assert!(begun.elapsed() < Duration::from_secs(5), "seed {seed}: {:?}", begun.elapsed());
        if let Ok(journal) = loaded {
            for (block, copied) in journal.range(0..u64::MAX) {
                assert!((1024..64 * 1024).contains(&copied.place), "seed {seed}: block {block} is at {}", copied.place);
            }
        }
    }
}
