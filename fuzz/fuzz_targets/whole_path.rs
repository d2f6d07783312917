//! The whole way from a request to a file on a disk with arbitrary damage: mounting, `tftp_root`, links, the path, the map, reading.
//! Ends within limits of reads, memory and work, whatever is on the disk.
//!
//! The input selects one of the [`IMAGES`] and one of the [`MOUNTS`], and counts patches: one byte each. Each patch has 8 bytes: a
//! place (32-bit), the number of bytes to replace minus one, and up to 3 of them. After that come two lines: the
//! `tftp_root` and the path.
#![no_main]

#[path = "../../tests/src/sparse_image.rs"]
mod sparse_image;

use std::{
    alloc::System,
    panic,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use rtftp_core::{RequestPath, config::disk::DiskConfig};
use rtftp_runtime::fs::{BlockDevice, FileMap, MountedDisk, ReadFuture};

/// Counts what is allocated.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// The limits of one request, opening of the disk included.
const MAX_READS: usize = 20_000;
/// The maximum number of bytes to read when a disk is opened: the largest journals, and everything else.
const MAX_OPEN_BYTES: usize = 512 << 20;
/// The maximum number of bytes to read for a path and a file.
const MAX_PATH_BYTES: usize = 256 << 20;
/// The maximum memory in use at any time, in bytes.
const MAX_MEMORY: usize = 24 << 20;
/// The maximum number of bytes that are allocated in all. Each look at a structure copies it, even from a cache, so this is a
/// measure of the work.
const MAX_WORK: usize = 1 << 30;

/// The number of bytes of a file that are read at once, and in all.
const CHUNK: usize = 256 << 10;
const MAX_FILE: u64 = 4 << 20;

/// The images before they are damaged; see `fuzz/images/README.md`.
static IMAGES: [LazyLock<Image>; 25] = [
    LazyLock::new(|| Image::sparse(include_bytes!("../images/links"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/fragments"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/journal"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/fat-fragments"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/e2"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/e3"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/e3d"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/e4"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/e4j"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/e4jd"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/f12"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/f16"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/f32"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/gpt"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/inl"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/mbr"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/directory"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/directory-indirect"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/fat-directory"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/xfs-log"))),
    LazyLock::new(|| Image::sparse(include_bytes!("../images/xfs-log-wrapped"))),
    LazyLock::new(|| Image::sectors(include_bytes!("../corpus/volume/xfs4"))),
    LazyLock::new(|| Image::new(sparse_image::expand_to(include_bytes!("../images/btrfs"), 32 << 20))),
    LazyLock::new(|| Image::new(sparse_image::expand_to(include_bytes!("../images/btrfs-log"), 32 << 20))),
    LazyLock::new(|| Image::new(sparse_image::expand_to(include_bytes!("../images/btrfs-raid1"), 128 << 20))),
];

/// The mounts of a description.
const MOUNTS: [&str; 4] = [
    r#"{"mountpoint": "/"}"#,
    r#"{"partition": 1, "mountpoint": "/"}"#,
    r#"{"partition": 2, "mountpoint": "/"}, {"partition": 1, "mountpoint": "/boot"}"#,
    r#"{"mountpoint": "/"}, {"mountpoint": "/d/a"}"#,
];

/// An image, and the bytes that are worth changing.
struct Image {
    bytes: Vec<u8>,
    /// The sectors that contain something.
    used: Vec<usize>,
}

impl Image {
    fn sparse(image: &[u8]) -> Self {
        Self::new(sparse_image::expand(image))
    }

    fn sectors(image: &[u8]) -> Self {
        Self::new(sparse_image::expand_sectors(image, 64 << 20))
    }

    fn new(bytes: Vec<u8>) -> Self {
        let used = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
        let used = bytes.chunks(512).enumerate().filter(|(_, sector)| used(sector)).map(|(number, _)| number).collect();
        Self { bytes, used }
    }

    /// Returns the offset that a patch names: mostly one in a sector that contains something.
    fn offset(&self, place: u32) -> usize {
        let place = place as usize;
        match place >> 31 {
            0 => self.used[place / 512 % self.used.len()] * 512 + place % 512,
            _ => place % self.bytes.len(),
        }
    }
}

/// A damaged disk, which counts reads.
#[derive(Debug)]
struct Disk {
    image: &'static [u8],
    patches: Vec<(usize, u8)>,
    reads: AtomicUsize,
    /// How many more bytes may be read.
    bytes_left: AtomicUsize,
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.image.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        assert!(offset.checked_add(len as u64).is_some_and(|end| end <= self.size()), "read beyond the end");
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < MAX_READS, "more than {MAX_READS} reads");
        let left = self.bytes_left.load(Ordering::Relaxed).checked_sub(len).expect("too many bytes are read");
        self.bytes_left.store(left, Ordering::Relaxed);
        let start = offset as usize;
        let mut bytes = self.image[start..start + len].to_vec();
        for (at, byte) in &self.patches {
            if let Some(target) = at.checked_sub(start).and_then(|at| bytes.get_mut(at)) {
                *target = *byte;
            }
        }
        Box::pin(async { Ok(bytes.into()) })
    }
}

/// Serves one request.
async fn serve(disk: Arc<Disk>, config: &DiskConfig, path: &RequestPath) {
    let Ok(mounted) = MountedDisk::open(disk.clone(), config).await else { return };
    disk.bytes_left.store(MAX_PATH_BYTES, Ordering::Relaxed);
    let Ok(file) = mounted.find_file(path).await else { return };
    read(&file, &disk).await;
}

/// Reads the start of a file.
async fn read(file: &FileMap, disk: &Disk) {
    let mut end = 0;
    for extent in &file.extents {
        assert!(extent.file_offset >= end && extent.len > 0, "{extent:?} is out of order");
        assert!(extent.disk_offset + extent.len <= disk.size(), "{extent:?} exceeds the disk");
        end = extent.file_offset + extent.len;
    }
    for offset in (0..file.size.min(MAX_FILE)).step_by(CHUNK) {
        let bytes = file.read(disk, offset, CHUNK).await.expect("its extents are on the disk");
        assert_eq!(bytes.len() as u64, (file.size - offset).min(CHUNK as u64));
    }
}

/// Splits an input into an image, its patches, a description and a path.
fn parse(data: &[u8]) -> Option<(&'static Image, Vec<(usize, u8)>, DiskConfig, RequestPath)> {
    let ([image, mounts, count], data) = data.split_first_chunk()?;
    let image = &*IMAGES[usize::from(*image) % IMAGES.len()];
    let mounts = MOUNTS[usize::from(*mounts) % MOUNTS.len()];
    let (patches, text) = data.split_at_checked(usize::from(*count) * 8)?;
    let mut changed = Vec::new();
    for patch in patches.chunks_exact(8) {
        let (place, [len, bytes @ ..]) = patch.split_first_chunk()? else { return None };
        let at = image.offset(u32::from_le_bytes(*place));
        let bytes = bytes.iter().take(usize::from(*len) % 3 + 1);
        changed.extend((at..image.bytes.len()).zip(bytes.copied()));
    }
    let (root, path) = str::from_utf8(text).ok()?.split_once('\n')?;
    let json = format!(r#"{{"url": "nbd://h/", "mounts": [{mounts}], "tftp_root": "{root}"}}"#);
    Some((image, changed, DiskConfig::parse(json.as_bytes()).ok()?, RequestPath::parse(path.as_bytes()).ok()?))
}

/// Lets a panic have the memory that its report needs: without it, the process would hang.
fn lift_limit_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        ALLOCATOR.set_limit(usize::MAX).expect("there is none");
        report(panic);
    }));
}

fuzz_target!(init: lift_limit_on_panic(), |data: &[u8]| {
    let Some((image, patches, config, path)) = parse(data) else { return };
    let (reads, bytes_left) = (AtomicUsize::new(0), AtomicUsize::new(MAX_OPEN_BYTES));
    let disk = Disk { image: &image.bytes, patches, reads, bytes_left };
    let (memory, work) = (ALLOCATOR.allocated(), ALLOCATOR.total_allocated());
    // An allocation beyond the limit aborts the process.
    ALLOCATOR.set_limit(memory + MAX_MEMORY).expect("it is not reached yet");
    smol::block_on(serve(Arc::new(disk), &config, &path));
    ALLOCATOR.set_limit(usize::MAX).expect("there is none");
    let work = ALLOCATOR.total_allocated() - work;
    assert!(work < MAX_WORK, "{work} bytes were allocated");
});
