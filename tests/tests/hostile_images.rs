//! The hostile disks of `fuzz/images` reach what `fuzz/images/README.md` says, within the limits of work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::{RequestPath, config::disk::DiskConfig};
use rtftp_runtime::fs::MountedDisk;
use rtftp_tests::sparse_image::expand;

const FRAGMENTS: &[u8] = include_bytes!("../../fuzz/images/fragments");
const FAT_FRAGMENTS: &[u8] = include_bytes!("../../fuzz/images/fat-fragments");
const JOURNAL: &[u8] = include_bytes!("../../fuzz/images/journal");

/// The time limit for one request, in an unoptimised build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Opens a disk and looks up a file. Returns its size and the number of its extents.
///
/// # Errors
///
/// Returns the text of the error.
fn find(disk: Vec<u8>, path: &str) -> Result<(u64, usize), String> {
    let started = Instant::now();
    let config = DiskConfig::parse(br#"{"url": "nbd://h/", "mounts": [{"mountpoint": "/"}]}"#).expect("a description");
    let found = smol::block_on(async {
        let mounted = MountedDisk::open(Arc::new(disk), &config).await.map_err(|error| error.to_string())?;
        let file = mounted.find_file(&RequestPath::parse(path.as_bytes()).expect("a path")).await;
        file.map(|file| (file.size, file.extents.len())).map_err(|error| error.to_string())
    });
    let elapsed = started.elapsed();
    println!("{path}: {found:?} after {elapsed:?}");
    assert!(elapsed < LIMIT, "{path}: {elapsed:?}");
    found
}

#[test]
fn files_in_many_pieces_are_mapped() {
    assert_eq!(find(expand(FRAGMENTS), "file"), Ok((64_600 << 10, 64_600)));
    assert_eq!(find(expand(FAT_FRAGMENTS), "FILE"), Ok((8000 << 9, 8000)));
}

/// The journal has as many copies as are allowed; with one group more it is refused, so all of it is read.
#[test]
fn journal_with_the_most_copies_is_replayed() {
    const BLOCK: usize = 1024;
    /// The number of blocks in the journal, and in a group: a descriptor and its copies.
    const BLOCKS: u32 = 12 + 64 * 4160;
    const GROUP: u32 = 64;

    assert_eq!(find(expand(JOURNAL), "file"), Ok((1200, 1)));
    let mut disk = expand(JOURNAL);
    // The journal's superblock, and the size in its inode.
    let (length, size) = (16 * BLOCK + 16, 5 * BLOCK + 7 * 128 + 4);
    assert_eq!(disk[length..length + 4], BLOCKS.to_be_bytes());
    assert_eq!(disk[size..size + 4], (BLOCKS * 1024).to_le_bytes());
    disk[length..length + 4].copy_from_slice(&(BLOCKS + GROUP).to_be_bytes());
    disk[size..size + 4].copy_from_slice(&((BLOCKS + GROUP) * 1024).to_le_bytes());
    let error = find(disk, "file").expect_err("one group too many");
    assert!(error.contains("more than 262144 copies"), "{error}");
}
