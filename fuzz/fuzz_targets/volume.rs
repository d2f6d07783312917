//! Reads all file systems of a disk with arbitrary contents, which must end within bounded work and never read beyond the disk.
//!
//! The input is a sequence of sectors, each preceded by its number as a 32-bit integer. All other sectors are zeros.
#![no_main]

mod walk;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use libfuzzer_sys::fuzz_target;
use rtftp_runtime::fs::{self, BlockDevice, ReadFuture, Volume, partition::partitions};

const SECTOR: usize = 512;
/// The size of the disk in bytes.
const SIZE: u64 = 64 << 20;
/// The maximum number of reads that this may cost.
const MAX_READS: u32 = 200_000;

#[derive(Debug)]
struct Disk {
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    reads: AtomicU32,
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        assert!(offset.checked_add(len as u64).is_some_and(|end| end <= SIZE), "read beyond the end");
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < MAX_READS, "endless");
        let mut bytes = vec![0; len];
        let end = offset + len as u64;
        for (number, sector) in self.sectors.range(offset / SECTOR as u64..end.div_ceil(SECTOR as u64)) {
            let start = number * SECTOR as u64;
            for (at, byte) in (start..).zip(sector) {
                if (offset..end).contains(&at) {
                    bytes[(at - offset) as usize] = *byte;
                }
            }
        }
        Box::pin(async { Ok(bytes.into()) })
    }
}

async fn read_disk(disk: Arc<Disk>) {
    let whole = Volume::new(disk.clone());
    let mut volumes = vec![whole.clone()];
    for partition in partitions(&whole).await.into_iter().flatten() {
        assert!(partition.start + partition.len <= SIZE, "{partition:?} exceeds the disk");
        volumes.push(whole.slice(partition.start, partition.len));
    }
    for volume in volumes {
        for driver in fs::DRIVERS {
            let _ = (driver.marks)(&volume).await;
        }
        if let Ok(filesystem) = fs::open(volume).await {
            walk::walk(&*filesystem, &*disk).await;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut sectors = BTreeMap::new();
    for record in data.chunks_exact(4 + SECTOR).take(4096) {
        let (number, bytes) = record.split_at(4);
        let number = u32::from_le_bytes(number.try_into().expect("four bytes"));
        if u64::from(number) < SIZE / SECTOR as u64 {
            sectors.insert(number.into(), bytes.try_into().expect("a sector"));
        }
    }
    smol::block_on(read_disk(Arc::new(Disk { sectors, reads: AtomicU32::new(0) })));
});
