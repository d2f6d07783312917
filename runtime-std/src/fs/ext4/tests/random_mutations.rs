//! Images with random mutations: reading them ends within limits of time and memory.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use smol::block_on;

use super::{
    super::super::{
        BlockDevice, DirectoryEntry, Error, FileSystem, FileType, ReadFuture, Volume, ext4::Ext4, testing::Random,
    },
    image::Image,
    tree,
};

/// The number of mutated disks of each file system.
const MUTATIONS: u64 = 500;
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

/// Reads all that is readable. Returns the number of files and links.
async fn read_everything(disk: Arc<MutatedDisk>) -> Result<usize, Error> {
    let Some(filesystem) = Ext4::open(Volume::new(disk.clone())).await? else { return Ok(0) };
    let mut seen = HashSet::new();
    let mut pending = vec![filesystem.root()];
    let mut read = 0;
    while let Some(directory) = pending.pop() {
        if !seen.insert(directory.id) || seen.len() > 1000 {
            continue;
        }
        let _ = filesystem.lookup(directory, b"not there").await;
        let Ok(names) = filesystem.read_directory(directory).await else { continue };
        for DirectoryEntry { node, .. } in names {
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
                        let bytes = file.read(disk.as_ref(), at, 1000).await;
                        assert!(bytes.is_ok_and(|bytes| bytes.len() as u64 == (file.size - at).min(1000)));
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

#[test]
fn reads_mutated_disks_within_limits() {
    let root = tempfile::tempdir().expect("a temporary directory");
    create_tree(root.path());
    let kinds = [
        "-t ext2 -b 1024 -N 64",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum,inline_data",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,meta_bg,^resize_inode",
        "-t ext3 -b 2048 -N 64",
    ];
    for kind in kinds {
        let image = Image::sparse(kind, 4 << 20, root.path());
        image
            .debugfs(&(1..30).fold(String::new(), |all, at| format!("{all}punch /boot/vmlinuz-6.1 {0} {0}\n", at * 2)));
        let disk = Arc::new(image.bytes());
        // The files contain zeros, so that most other bytes are metadata.
        let offsets: Vec<usize> = (0..disk.len()).filter(|at| disk[*at] != 0).collect();
        let mut worst = 0;
        for seed in 0..MUTATIONS {
            let mutated = Arc::new(MutatedDisk {
                disk: disk.clone(),
                changed: if seed == 0 { Vec::new() } else { mutate(&disk, &offsets, seed) },
                reads: AtomicUsize::new(0),
            });
            let result = catch_unwind(AssertUnwindSafe(|| block_on(read_everything(mutated.clone()))));
            let read = result.unwrap_or_else(|_| panic!("{kind}: seed {seed}: {:?}", mutated.changed));
            assert!(seed > 0 || read == Ok(8), "{kind}: without mutations, everything is readable, not {read:?}");
            worst = worst.max(mutated.reads.load(Ordering::Relaxed));
        }
        println!("{kind}: {} offsets, at most {worst} reads", offsets.len());
    }
}

/// Creates files of zeros, links, and a directory of several blocks.
fn create_tree(root: &Path) {
    tree::create_boot_disk(root);
    for (name, len) in [("vmlinuz-6.1", 300_000), ("sparse", 500_000), ("short", 100)] {
        std::fs::write(root.join("boot").join(name), vec![0; len]).expect("a file");
    }
    for name in ["a", "b"] {
        std::fs::write(root.join("boot/grub").join(name.repeat(250)), "").expect("a file");
    }
}
