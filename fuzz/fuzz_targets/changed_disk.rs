//! File systems with changed metadata whose checksums are correct, as an attacker makes them: reading one ends within bounded work
//! and memory.
//!
//! The first byte of the input selects an image. Each further record of 8 bytes changes one structure: its number and the number of
//! a byte (16-bit integers), what to do, and three bytes for it. If the second byte of the input is 255, the checksums stay wrong.

use std::{
    alloc::System,
    panic,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use cap::Cap;
use rtftp_runtime::fs::{self, BlockDevice, ReadFuture, Volume};

use super::{
    structure::{Change, Structure},
    walk::walk,
};

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// The maximum number of reads that an input may cost.
const MAX_READS: u32 = 200_000;
/// The maximum memory in use at any time, in bytes.
const MAX_MEMORY: usize = 24 << 20;
/// The maximum number of bytes that are allocated in all. Each look at a structure copies it, so this is a measure of the work.
const MAX_WORK: usize = 2 << 30;
/// The maximum number of changes.
const MAX_CHANGES: usize = 16;
/// The byte that leaves the checksums as they are.
const KEEP_CHECKSUMS: u8 = 0xff;
/// The minimum number of structures of an image.
const MIN_STRUCTURES: usize = 8;

/// An image before it is changed.
pub struct Image {
    bytes: Vec<u8>,
    structures: Vec<Structure>,
}

impl Image {
    /// Creates an image of an intact file system, with its structures.
    pub fn new(bytes: Vec<u8>, structures: Vec<Structure>) -> Self {
        assert!(structures.len() >= MIN_STRUCTURES, "only {} structures", structures.len());
        for structure in &structures {
            assert!(structure.has_valid_checksum(&bytes), "{structure:?}");
        }
        Self { bytes, structures }
    }

    /// Returns the changes that an input makes.
    fn changes(&self, checksums: u8, records: &[u8]) -> Vec<Change> {
        let mut changes = Vec::new();
        for record in records.chunks_exact(8).take(MAX_CHANGES) {
            let number = usize::from(u16::from_le_bytes([record[0], record[1]])) % self.structures.len();
            let byte = usize::from(u16::from_le_bytes([record[2], record[3]]));
            let structure = &self.structures[number];
            structure.change(&self.bytes, byte, [record[4], record[5], record[6], record[7]], &mut changes);
            if checksums != KEEP_CHECKSUMS {
                structure.repair(&self.bytes, &mut changes);
            }
        }
        changes
    }
}

/// A disk with some changed bytes.
#[derive(Debug)]
struct Disk {
    original: &'static [u8],
    changes: Vec<Change>,
    reads: AtomicU32,
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.original.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < MAX_READS, "endless");
        let start = offset as usize;
        let mut bytes = self.original.get(start..start + len).expect("not beyond the end").to_vec();
        for change in &self.changes {
            if let Some(byte) = change.offset.checked_sub(start).and_then(|at| bytes.get_mut(at)) {
                *byte = change.byte;
            }
        }
        Box::pin(async { Ok(bytes.into()) })
    }
}

/// Reads the image that an input selects, with its changes.
pub fn read_changed(images: &'static [LazyLock<Image>], data: &[u8]) {
    let Some(([image, checksums], records)) = data.split_first_chunk() else { return };
    let image = &*images[usize::from(*image) % images.len()];
    let changes = image.changes(*checksums, records);
    let disk = Arc::new(Disk { original: &image.bytes, changes, reads: AtomicU32::new(0) });
    let (memory, work) = (ALLOCATOR.allocated(), ALLOCATOR.total_allocated());
    // An allocation beyond the limit aborts the process.
    ALLOCATOR.set_limit(memory + MAX_MEMORY).expect("it is not reached yet");
    smol::block_on(async {
        if let Ok(filesystem) = fs::open(Volume::new(disk.clone())).await {
            walk(&*filesystem, &*disk).await;
        }
    });
    ALLOCATOR.set_limit(usize::MAX).expect("there is none");
    let work = ALLOCATOR.total_allocated() - work;
    assert!(work < MAX_WORK, "{work} bytes were allocated");
}

/// Lets a panic have the memory that its report needs: without it, the process would hang.
pub fn lift_limit_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        ALLOCATOR.set_limit(usize::MAX).expect("there is none");
        report(panic);
    }));
}
