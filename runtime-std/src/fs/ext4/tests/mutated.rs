//! Disks that lie: whatever they say, reading them ends soon, in an error or not, and takes little memory.

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
    super::super::{BlockDevice, DirectoryEntry, Error, FileSystem, FileType, ReadFuture, Volume, ext4::Ext},
    image::Made,
    tree,
};

/// How many disks there are of each kind.
const MUTATIONS: u64 = 500;
/// How often a disk may be read while all of it is looked at, and how many bytes of it.
const MOST_READS: usize = 100_000;

/// A disk of which some bytes are not as they were.
#[derive(Debug)]
struct Mutated {
    disk: Arc<Vec<u8>>,
    changed: Vec<(u64, u8)>,
    reads: AtomicUsize,
}

impl BlockDevice for Mutated {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        assert!(len <= 2 << 20, "{len} bytes are asked for at once");
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < MOST_READS, "it is read again and again");
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

/// Looks at everything there is, however wrong; gives how much of it could be.
async fn walk(disk: Arc<Mutated>) -> Result<usize, Error> {
    let Some(ext) = Ext::open(Volume::new(disk.clone())).await? else { return Ok(0) };
    let mut seen = HashSet::new();
    let mut waiting = vec![ext.root()];
    let mut read = 0;
    while let Some(directory) = waiting.pop() {
        if !seen.insert(directory.id) || seen.len() > 1000 {
            continue;
        }
        let _ = ext.lookup(directory, b"not there").await;
        let Ok(names) = ext.read_directory(directory).await else { continue };
        for DirectoryEntry { node, .. } in names {
            match node.file_type {
                FileType::Directory => waiting.push(node),
                FileType::Link => {
                    read += usize::from(ext.read_link(node).await.is_ok_and(|target| target.len() <= 4096));
                }
                FileType::Other => {}
                FileType::File => {
                    let Ok(file) = ext.map(node).await else { continue };
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

/// Numbers that look like chance, and are always the same for a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Changes one to four places: bytes, or whole numbers, to others that are likely to be at a limit.
fn mutate(disk: &[u8], places: &[usize], seed: u64) -> Vec<(u64, u8)> {
    let mut chance = Chance(seed);
    let mut changed = Vec::new();
    for _ in 0..=chance.below(4) {
        let at = places[chance.below(places.len())];
        let old = disk[at];
        match chance.below(4) {
            0 => changed.push((at as u64, chance.below(256) as u8)),
            1 => changed.push((at as u64, old ^ 1 << chance.below(8))),
            2 => changed.push((at as u64, [0, 1, 0x7f, 0x80, 0xff][chance.below(5)])),
            _ => {
                let other = places[chance.below(places.len())] & !3;
                changed.extend((0..4).map(|byte| ((at & !3) as u64 + byte, disk[other + byte as usize])));
            }
        }
    }
    changed
}

#[test]
fn no_disk_makes_reading_it_go_wrong() {
    let root = tempfile::tempdir().expect("a directory for a tree");
    make_tree(root.path());
    let kinds = [
        "-t ext2 -b 1024 -N 64",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,^metadata_csum,inline_data",
        "-t ext4 -b 1024 -N 64 -O ^has_journal,meta_bg,^resize_inode",
        "-t ext3 -b 2048 -N 64",
    ];
    for kind in kinds {
        let made = Made::sparse(kind, 4 << 20, root.path());
        made.debugfs(&(1..30).fold(String::new(), |all, at| format!("{all}punch /boot/vmlinuz-6.1 {0} {0}\n", at * 2)));
        let disk = Arc::new(made.bytes());
        // The content of the files is zeros, and so all else is likely to be the file system's own.
        let places: Vec<usize> = (0..disk.len()).filter(|at| disk[*at] != 0).collect();
        let mut worst = 0;
        for seed in 0..MUTATIONS {
            let mutated = Arc::new(Mutated {
                disk: disk.clone(),
                changed: if seed == 0 { Vec::new() } else { mutate(&disk, &places, seed) },
                reads: AtomicUsize::new(0),
            });
            let result = catch_unwind(AssertUnwindSafe(|| block_on(walk(mutated.clone()))));
            let walked = result.unwrap_or_else(|_| panic!("{kind}: seed {seed}: {:?}", mutated.changed));
            assert!(seed > 0 || walked == Ok(8), "{kind}: all is read if nothing is changed, not {walked:?}");
            worst = worst.max(mutated.reads.load(Ordering::Relaxed));
        }
        println!("{kind}: {} places, at most {worst} reads", places.len());
    }
}

/// Some files of zeros, and links, and a directory of several blocks.
fn make_tree(root: &Path) {
    tree::make_small(root);
    for (name, len) in [("vmlinuz-6.1", 300_000), ("sparse", 500_000), ("short", 100)] {
        std::fs::write(root.join("boot").join(name), vec![0; len]).expect("a file");
    }
    for name in ["a", "b"] {
        std::fs::write(root.join("boot/grub").join(name.repeat(250)), "").expect("a file");
    }
}
