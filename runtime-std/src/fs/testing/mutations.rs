//! Images with random mutations: reading them ends within limits of time and memory.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use smol::block_on;

use super::Random;
use crate::fs::{BlockDevice, DirectoryEntry, Driver, Error, FileType, ReadFuture, Volume};

/// The maximum number of reads to read everything on a disk.
const MAX_READS: usize = 100_000;

/// A disk with some changed bytes.
#[derive(Debug)]
struct MutatedDisk {
    disk: Arc<Vec<u8>>,
    changed: Vec<(u64, u8)>,
    reads: AtomicUsize,
}

impl BlockDevice for MutatedDisk {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        assert!(len <= 2 << 20, "a read of {len} bytes");
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < MAX_READS, "too many reads");
        let reading = self.disk.read(offset, len);
        Box::pin(async move {
            let mut bytes = reading.await?;
            for (at, byte) in &self.changed {
                if let Some(at) = at.checked_sub(offset).filter(|at| *at < bytes.len() as u64) {
                    bytes[at as usize] = *byte;
                }
            }
            Ok(bytes)
        })
    }
}

/// Opens a disk with `driver` and reads everything on it, with mutations of the bytes that are not zero: none first, then
/// `mutations` times others. Without mutations, it must have `readable` files and links.
pub(in crate::fs) fn check(driver: &Driver, kind: &str, disk: Vec<u8>, mutations: u64, readable: usize) {
    check_repaired(driver, kind, disk, mutations, readable, |_, changed| changed);
}

/// As [`check`], but `repair` may change the mutations: it gets the disk and the bytes to change, and adds checksums.
pub(in crate::fs) fn check_repaired(
    driver: &Driver,
    kind: &str,
    disk: Vec<u8>,
    mutations: u64,
    readable: usize,
    repair: impl Fn(&[u8], Vec<(u64, u8)>) -> Vec<(u64, u8)>,
) {
    // The files should contain zeros, so that most other bytes are metadata.
    let offsets: Vec<usize> = (0..disk.len()).filter(|at| disk[*at] != 0).collect();
    let disk = Arc::new(disk);
    let mut worst = 0;
    for seed in 0..=mutations {
        let changed = if seed == 0 { Vec::new() } else { repair(&disk, mutate(&disk, &offsets, seed)) };
        let mutated = Arc::new(MutatedDisk { disk: disk.clone(), changed, reads: AtomicUsize::new(0) });
        let result = catch_unwind(AssertUnwindSafe(|| block_on(read_everything(driver, mutated.clone()))));
        let read = result.unwrap_or_else(|_| panic!("{kind}: seed {seed}: {:?}", mutated.changed));
        assert!(seed > 0 || read == Ok(readable), "{kind}: without mutations, everything is readable, not {read:?}");
        worst = worst.max(mutated.reads.load(Ordering::Relaxed));
    }
    println!("{kind}: {} offsets, at most {worst} reads", offsets.len());
}

/// Reads all that is readable. Returns the number of files and links.
async fn read_everything(driver: &Driver, disk: Arc<MutatedDisk>) -> Result<usize, Error> {
    let Some(filesystem) = (driver.open)(Volume::new(disk.clone())).await? else { return Ok(0) };
    let mut seen = HashSet::new();
    let mut pending = vec![filesystem.root()];
    let mut read = 0;
    while let Some(directory) = pending.pop() {
        if !seen.insert(directory.id) || seen.len() > 1000 {
            continue;
        }
        let _ = filesystem.lookup(directory, b"not there").await;
        let Ok(names) = filesystem.read_directory(directory).await else { continue };
        for DirectoryEntry { name, node } in names {
            let _ = filesystem.lookup(directory, &name).await;
            match node.file_type {
                FileType::Directory => pending.push(node),
                FileType::Link => {
                    read += usize::from(filesystem.read_link(node).await.is_ok_and(|target| target.len() <= 4096));
                }
                FileType::Other => {}
                FileType::File => {
                    let Ok(file) = filesystem.map(node).await else { continue };
                    assert!(file.extents.len() <= 65_536 && file.patches.len() <= 65_536);
                    assert!(file.extents.is_sorted_by(|one, next| one.file_offset + one.len <= next.file_offset));
                    assert!(file.extents.iter().all(|extent| extent.len > 0 && extent.file_offset < file.size));
                    for at in [0, file.size / 2, file.size.saturating_sub(1000)] {
                        match file.read(disk.as_ref(), at, 1000).await {
                            Ok(bytes) => assert_eq!(bytes.len() as u64, (file.size - at).min(1000)),
                            // A compressed extent, or a block, with mutations.
                            Err(error) => assert!(matches!(error, Error::Corrupt(_)), "{error}"),
                        }
                    }
                    read += 1;
                }
            }
        }
    }
    Ok(read)
}

/// Changes one to four bytes or integers, mostly to values at a limit or elsewhere on the disk.
fn mutate(disk: &[u8], offsets: &[usize], seed: u64) -> Vec<(u64, u8)> {
    let mut random = Random::new(seed);
    let mut changed = Vec::new();
    for _ in 0..=random.below(4) {
        let at = offsets[random.below(offsets.len())];
        let old = disk[at];
        match random.below(4) {
            0 => changed.push((at as u64, random.below(256) as u8)),
            1 => changed.push((at as u64, old ^ 1 << random.below(8))),
            2 => changed.push((at as u64, [0, 1, 0x7f, 0x80, 0xff][random.below(5)])),
            _ => {
                let other = offsets[random.below(offsets.len())] & !3;
                changed.extend((0..4).map(|byte| ((at & !3) as u64 + byte, disk[other + byte as usize])));
            }
        }
    }
    changed
}
