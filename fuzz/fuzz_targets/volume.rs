//! Whatever is on a disk, looking at all of it ends, soon, and reads nothing that is not there.
//!
//! The input is the sectors of the disk that are not all zeros, each after its number.
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
/// How long a disk is whose last sectors are zeros.
const SIZE: u64 = 64 << 20;
/// How many names are followed, and how many readings that may take.
const NAMES: usize = 200;
const READINGS: u32 = 200_000;

#[derive(Debug)]
struct Disk {
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    readings: AtomicU32,
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        assert!(offset.checked_add(len as u64).is_some_and(|end| end <= SIZE), "reads behind the end");
        assert!(self.readings.fetch_add(1, Ordering::Relaxed) < READINGS, "does not end");
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
        Box::pin(async { Ok(bytes) })
    }
}

async fn look(disk: Arc<Disk>) {
    let whole = Volume::new(disk.clone());
    let mut volumes = vec![whole.clone()];
    for partition in partitions(&whole).await.into_iter().flatten() {
        assert!(partition.start + partition.len <= SIZE, "{partition:?} is not on the disk");
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
    for seen in 0..NAMES {
        let Some(node) = nodes.get(seen).copied() else { break };
        match node.file_type {
            FileType::Directory => {
                let names = filesystem.read_directory(node).await.unwrap_or_default();
                if let Some(first) = names.first() {
                    let _ = filesystem.lookup(node, &first.name).await;
                }
                nodes.extend(names.into_iter().take(NAMES).map(|entry| entry.node));
            }
            FileType::Link => {
                let target = filesystem.read_link(node).await.unwrap_or_default();
                assert!(target.len() <= 4096, "a link of {} bytes", target.len());
            }
            FileType::File => {
                if let Ok(file) = filesystem.map(node).await {
                    let mut end = 0;
                    for extent in &file.extents {
                        assert!(extent.file_offset >= end && extent.len > 0, "{extent:?} is out of order");
                        assert!(extent.disk_offset + extent.len <= SIZE, "{extent:?} is not on the disk");
                        end = extent.file_offset + extent.len;
                    }
                    let last = file.size.saturating_sub(1000);
                    let _ = file.read(disk, 0, 1000).await;
                    let rest = file.read(disk, last, 2000).await.expect("it is on the disk");
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
    smol::block_on(look(Arc::new(Disk { sectors, readings: AtomicU32::new(0) })));
});
