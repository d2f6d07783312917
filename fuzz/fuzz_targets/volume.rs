//! Reads all file systems of a disk with arbitrary contents, which must end within bounded work and never read beyond the disk.
//!
//! The input is a sequence of sectors, each preceded by its number as a 32-bit integer. All other sectors are zeros.
#![no_main]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use libfuzzer_sys::fuzz_target;
use rtftp_runtime::fs::{self, BlockDevice, FileSystem, FileType, Node, ReadFuture, Volume, partition::partitions};

const SECTOR: usize = 512;
/// The size of the disk in bytes.
const SIZE: u64 = 64 << 20;
/// The maximum number of nodes that are visited.
const MAX_NODES: usize = 200;
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
        if let Ok(filesystem) = fs::open(volume).await {
            walk(&*filesystem, &disk).await;
        }
    }
}

async fn walk(filesystem: &dyn FileSystem, disk: &Disk) {
    let mut nodes: Vec<Node> = vec![filesystem.root()];
    for seen in 0..MAX_NODES {
        let Some(node) = nodes.get(seen).copied() else { break };
        match node.file_type {
            FileType::Directory => {
                let names = filesystem.read_directory(node).await.unwrap_or_default();
                if let Some(first) = names.first() {
                    let _ = filesystem.lookup(node, &first.name).await;
                }
                nodes.extend(names.into_iter().take(MAX_NODES).map(|entry| entry.node));
            }
            FileType::Link => {
                let target = filesystem.read_link(node).await.unwrap_or_default();
                assert!(target.len() <= 4096, "a target of {} bytes", target.len());
            }
            FileType::File => {
                if let Ok(file) = filesystem.map(node).await {
                    let mut end = 0;
                    for extent in &file.extents {
                        assert!(extent.file_offset >= end && extent.len > 0, "{extent:?} is out of order");
                        assert!(extent.disk_offset + extent.len <= SIZE, "{extent:?} exceeds the disk");
                        end = extent.file_offset + extent.len;
                    }
                    let last = file.size.saturating_sub(1000);
                    let _ = file.read(disk, 0, 1000).await;
                    let rest = file.read(disk, last, 2000).await.expect("its extents are on the disk");
                    assert_eq!(rest.len() as u64, file.size - last);
                }
            }
            FileType::Other => {}
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
