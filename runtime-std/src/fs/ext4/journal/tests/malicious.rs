//! Logs with contents that no system writes.

use smol::block_on;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Checksums, FREE_BLOCK, LogBuilder, content, escaped_content,
    log_builder::{load, load_all, update_checksum, whole_disk},
};
use crate::{
    fs::{BlockDevice, Error, ReadFuture, ext4::journal::Journal, testing::Random},
    memory::{DiskMemory, Memory},
};

/// A disk of any size: a superblock, then the same block repeatedly.
#[derive(Debug)]
struct Repeating {
    superblock: Vec<u8>,
    block: Vec<u8>,
    size: u64,
    bytes_read: AtomicU64,
}

impl BlockDevice for Repeating {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        self.bytes_read.fetch_add(len as u64, Ordering::Relaxed);
        let bytes =
            if offset == 0 { self.superblock[..len].to_vec() } else { self.block.repeat(len / self.block.len()) };
        Box::pin(async { Ok(bytes.into()) })
    }
}

/// A disk that holds a log without the contents of its copies.
#[derive(Debug)]
struct Sparse {
    superblock: Vec<u8>,
    blocks: Vec<Vec<u8>>,
    block_size: usize,
}

impl Sparse {
    fn new(builder: &LogBuilder) -> Self {
        let superblock = builder.superblock(builder.blocks.len() + 1, 1);
        Self { superblock, blocks: builder.blocks.clone(), block_size: builder.block_size }
    }
}

impl BlockDevice for Sparse {
    fn size(&self) -> u64 {
        (self.block_size * (self.blocks.len() + 1)) as u64
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let mut bytes = Vec::new();
        for at in (offset as usize..offset as usize + len).step_by(self.block_size) {
            let block = (at / self.block_size).checked_sub(1).map_or(&self.superblock, |index| &self.blocks[index]);
            bytes.extend_from_slice(block);
            bytes.resize(at + self.block_size - offset as usize, 0);
        }
        bytes.truncate(len);
        Box::pin(async { Ok(bytes.into()) })
    }
}

/// Reads a journal of `len` blocks that are all equal to `block`. Returns the number of copies, and of bytes that were read.
fn read_repeating(builder: &LogBuilder, block: &[u8], len: usize) -> (Result<usize, Error>, u64) {
    let size = (len * builder.block_size) as u64;
    let (superblock, block) = (builder.superblock(len, 1), block.to_vec());
    let disk = Arc::new(Repeating { superblock, block, size, bytes_read: AtomicU64::new(0) });
    let journal = load(&(disk.clone() as Arc<dyn BlockDevice>), &whole_disk(&*disk), builder.block_size);
    (journal.map(|journal| journal.range(0..u64::MAX).count()), disk.bytes_read.load(Ordering::Relaxed))
}

#[test]
fn limits_number_of_blocks() {
    let mut builder = LogBuilder::new(65_536, Checksums::None, false);
    let copies: Vec<_> = (0..10_000).map(|at| (at, Vec::new())).collect();
    builder.transaction(&[], &copies);
    let descriptor = builder.blocks[0].clone();
    let (copies, _) = read_repeating(&builder, &descriptor, 20_000);
    assert_eq!(copies, Ok(0));
    let (result, read) = read_repeating(&builder, &descriptor, 1 << 21);
    assert!(matches!(result, Err(Error::Unsupported(reason)) if reason.to_string().contains("262144 copies")));
    assert!(read < 100 << 20, "{read} bytes");
}

/// 262,144 copies, each of another block.
#[test]
fn keeps_the_largest_journal_in_16_bytes_a_copy() {
    const COPIES: u64 = 1 << 18;
    let mut builder = LogBuilder::new(65_536, Checksums::None, false);
    let mut expected = 0;
    for first in (0..COPIES).step_by(8_000) {
        let copies: Vec<_> = (first..COPIES.min(first + 8_000)).map(|block| (block, Vec::new())).collect();
        expected += copies.len();
        builder.transaction(&[], &copies);
    }
    let descriptors = builder.blocks.iter().filter(|block| !block.is_empty()).count();
    let disk = Arc::new(Sparse::new(&builder));
    let memory = DiskMemory::unlimited();
    let file = whole_disk(&*disk);
    let device = disk as Arc<dyn BlockDevice>;
    let journal = block_on(Journal::read(&file, &device, builder.block_size as u32, &memory)).expect("a valid log");
    assert_eq!(journal.range(0..u64::MAX).count(), expected);
    println!("{expected} copies in {descriptors} blocks: {} KiB in memory", memory.used() >> 10);
    assert_eq!(memory.used(), 16 * expected);
    drop(journal);
    assert_eq!(memory.used(), 0);
    let default = Memory::new(256 << 20).disk();
    let read = || block_on(Journal::read(&file, &device, builder.block_size as u32, &default));
    let views: Vec<_> = (0..128).map_while(|_| read().ok()).collect();
    println!("{} of 128 views at the same time: {} KiB in memory", views.len(), default.used() >> 10);
    assert!((10..=16).contains(&views.len()), "a disk may use 64 MiB, and reading takes 6 MiB more for a moment");
    drop(views);
    assert_eq!(default.used(), 0);
    let little = Memory::new(4 << 20).disk();
    let refused = block_on(Journal::read(&file, &device, builder.block_size as u32, &little));
    assert!(matches!(refused, Err(Error::OutOfMemory(_))));
    assert_eq!(little.used(), 0);
}

#[test]
fn limits_number_of_revoke_records() {
    let mut builder = LogBuilder::new(65_536, Checksums::None, false);
    builder.transaction(&(0..16_379).collect::<Vec<_>>(), &[]);
    let revoke_block = builder.blocks[0].clone();
    let (result, read) = read_repeating(&builder, &revoke_block, 1 << 20);
    assert!(matches!(result, Err(Error::Unsupported(reason)) if reason.to_string().contains("revoked blocks")));
    assert!(read < 10 << 20, "{read} bytes");
}

#[test]
fn reads_any_damaged_log_safely() {
    let logs: Vec<_> = LogBuilder::all(1024)
        .map(|mut builder| {
            builder.extra_features = 0x20;
            builder.transaction(
                &[],
                &(0..9).map(|at| (FREE_BLOCK + at, escaped_content(at as u8, 1024))).collect::<Vec<_>>(),
            );
            builder.transaction(&[FREE_BLOCK + 1, FREE_BLOCK + 2], &[(FREE_BLOCK, content(2, 1024))]);
            builder.transaction(&[FREE_BLOCK + 5], &(0..5).map(|at| (at << 30, content(3, 1024))).collect::<Vec<_>>());
            builder
        })
        .collect();
    for seed in 0..8000 {
        let mut random = Random::new(seed);
        let builder = &logs[random.below(logs.len())];
        let (mut disk, _) = builder.disk();
        for _ in 0..1 + random.below(8) {
            // Mostly at the start of a block, and often in the superblock.
            let block = if random.below(3) == 0 { 0 } else { random.below(64) };
            let reach = [16, 64, 256, 1024][random.below(4)];
            let at = block * 1024 + random.below(reach);
            disk[at] = [0, 1, 0xff, random.below(256) as u8][random.below(4)];
        }
        if random.below(4) != 0 {
            update_checksum(&mut disk[..1024]);
        }
        let start = Instant::now();
        let result = std::panic::catch_unwind(|| load_all(&disk, 1024));
        let Ok(result) = result else { panic!("seed {seed}: panicked") };
        assert!(start.elapsed() < Duration::from_secs(5), "seed {seed}: {:?}", start.elapsed());
        if let Ok(journal) = result {
            for (block, copy) in journal.range(0..u64::MAX) {
                assert!(
                    (1024..64 * 1024).contains(&copy.disk_offset),
                    "seed {seed}: block {block} is at {}",
                    copy.disk_offset
                );
            }
        }
    }
}
