//! The file allocation table, which holds the next cluster of each cluster (fatgen103, "FAT data structure").

use std::ops::Range;

use super::boot::{FIRST_CLUSTER, Layout, Width};
use crate::{
    fs::{Error, Volume, bytes::le, limits::MAX_EXTENTS},
    memory::Reservation,
};

/// The maximum number of bytes of the FAT that are read at once.
const CHUNK: u64 = 64 * 1024;

/// Returns whether the FAT records that the volume was unmounted cleanly. FAT12 does not record it.
pub(super) async fn is_clean(volume: &Volume, layout: &Layout) -> Result<bool, Error> {
    let mut window = Window::default();
    let entry = window.entry(volume, layout, 1, 1).await?;
    Ok(match layout.width {
        Width::Fat12 => true,
        Width::Fat16 => entry & 1 << 15 != 0,
        Width::Fat32 => entry & 1 << 27 != 0,
    })
}

/// Follows a cluster chain from `first` to its end, or for `max` clusters, and returns its runs of contiguous clusters and their
/// memory.
///
/// # Errors
///
/// [`Error::Corrupt`] if the chain contains a cluster that does not exist, is free or bad, or occurs twice;
/// [`Error::Unsupported`] if there are more than [`MAX_EXTENTS`] runs; [`Error::OutOfMemory`]; [`Error::Io`].
pub(super) async fn chain(
    volume: &Volume,
    layout: &Layout,
    first: u32,
    max: u64,
) -> Result<(Vec<Range<u32>>, Reservation), Error> {
    let mut chain = Chain { first, runs: Vec::new(), memory: volume.memory().reserve(0)? };
    let mut window = Window::default();
    let mut cluster = first;
    for left in (0..max).rev() {
        if !layout.has(cluster) {
            let what = format!("broken, or being written: cluster {cluster:#x} of {}", layout.clusters);
            return Err(Error::corrupt(chain.object(), what));
        }
        chain.push(cluster)?;
        if left == 0 {
            break;
        }
        let next = window.entry(volume, layout, cluster, left).await?;
        if is_end(layout.width, next) {
            break;
        }
        cluster = next;
    }
    chain.check_loop()?;
    Ok((chain.runs, chain.memory))
}

/// Returns whether an entry marks the last cluster of a chain.
fn is_end(width: Width, entry: u32) -> bool {
    entry
        >= match width {
            Width::Fat12 => 0xFF8,
            Width::Fat16 => 0xFFF8,
            Width::Fat32 => 0x0FFF_FFF8,
        }
}

/// The part of a cluster chain that was read so far.
struct Chain {
    first: u32,
    runs: Vec<Range<u32>>,
    /// The memory of `runs`.
    memory: Reservation,
}

impl Chain {
    /// Appends the next cluster.
    fn push(&mut self, cluster: u32) -> Result<(), Error> {
        if let Some(run) = self.runs.last_mut().filter(|run| run.end == cluster) {
            run.end += 1;
            return Ok(());
        }
        if self.runs.len() == MAX_EXTENTS {
            return Err(Error::unsupported(self.object(), format!("more than {MAX_EXTENTS} fragments")));
        }
        self.memory.make_room(&mut self.runs)?;
        self.runs.push(cluster..cluster + 1);
        // Checking at powers of two finds a loop early at a negligible cost.
        if self.runs.len().is_power_of_two() { self.check_loop() } else { Ok(()) }
    }

    /// Fails if a cluster occurs twice.
    fn check_loop(&mut self) -> Result<(), Error> {
        let memory = self.memory.bytes();
        self.memory.resize(memory + self.runs.len() * size_of::<&Range<u32>>())?;
        let is_loop = self.is_loop();
        self.memory.resize(memory)?;
        if is_loop { Err(Error::corrupt(self.object(), "loops, or is being written")) } else { Ok(()) }
    }

    fn is_loop(&self) -> bool {
        let mut sorted: Vec<_> = self.runs.iter().collect();
        sorted.sort_unstable_by_key(|run| run.start);
        !sorted.is_sorted_by(|before, after| before.end <= after.start)
    }

    fn object(&self) -> (&'static str, u32) {
        ("chain of cluster", self.first)
    }
}

/// A part of the FAT in memory.
#[derive(Default)]
struct Window {
    /// The offset in the FAT in bytes.
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Returns the entry of a cluster. If it has to be read, reads ahead, but no more than the `left` clusters of the chain need.
    async fn entry(&mut self, volume: &Volume, layout: &Layout, cluster: u32, left: u64) -> Result<u32, Error> {
        let bit = u64::from(cluster) * u64::from(layout.width.bits());
        let (at, is_odd) = (bit / 8, bit % 8 != 0);
        let entry_len = u64::from(layout.width.bits().div_ceil(8));
        if at < self.start || at + entry_len > self.start + self.bytes.len() as u64 {
            let end = u64::from(FIRST_CLUSTER + layout.clusters) * u64::from(layout.width.bits());
            let len = left.saturating_mul(entry_len).min(CHUNK).min(end.div_ceil(8) - at);
            self.bytes = volume.read(layout.fat_offset + at, len as usize).await?;
            self.start = at;
        }
        let at = (at - self.start) as usize;
        Ok(match layout.width {
            Width::Fat12 if is_odd => u32::from(le::u16_at(&self.bytes, at)) >> 4,
            Width::Fat12 => u32::from(le::u16_at(&self.bytes, at)) & 0xFFF,
            Width::Fat16 => le::u16_at(&self.bytes, at).into(),
            // The high four bits are reserved.
            Width::Fat32 => le::u32_at(&self.bytes, at) & 0x0FFF_FFFF,
        })
    }
}
