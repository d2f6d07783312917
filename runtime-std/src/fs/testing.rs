//! Helpers for tests: disks that count reads, tools that create disks, trees of files, reproducible damage.

pub(super) mod mutations;
#[path = "../../../tests/src/sparse_image.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other crates")]
pub(super) mod sparse_image;
pub(super) mod tree;

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::fs::FileExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use smol::future::yield_now;

use super::{BlockDevice, Error, ReadFuture, Volume};

/// A disk that counts reads. Each is complete at the second poll, so that reads at the same time overlap.
#[derive(Debug)]
pub(super) struct Disk {
    device: Box<dyn BlockDevice>,
    reads: AtomicUsize,
}

impl Disk {
    pub(super) fn new(device: impl BlockDevice + 'static) -> Arc<Self> {
        Arc::new(Self { device: Box::new(device), reads: AtomicUsize::new(0) })
    }

    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Returns the volume that is the whole disk, with an empty cache.
    pub(super) fn volume(self: &Arc<Self>) -> Volume {
        Volume::new(self.clone())
    }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            yield_now().await;
            self.device.read(offset, len).await
        })
    }
}

/// A disk in a file, which may be larger than memory.
impl BlockDevice for File {
    fn size(&self) -> u64 {
        self.metadata().expect("an open file").len()
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let mut bytes = vec![0; len];
        let read = self.read_exact_at(&mut bytes, offset);
        Box::pin(async { read.map(|()| bytes.into()).map_err(|error| Error::Io(error.to_string())) })
    }
}

/// Runs a program, which must be installed and succeed.
#[track_caller]
pub(super) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) {
    // Tools that create file systems are in sbin, which is not in the PATH of every user.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("MTOOLS_SKIP_CHECK", "1").env("LC_ALL", "C.UTF-8");
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pseudo-random number generator (xorshift).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns the next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    /// Returns a byte, often one with a special meaning.
    pub(super) fn byte(&mut self) -> u8 {
        match self.below(4) {
            0 => [0x00, 0xFF, 0xF8, 0x7F, 0x80, 0x01][self.below(6)],
            _ => self.below(256) as u8,
        }
    }
}
