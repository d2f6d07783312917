//! The FAT: for each cluster the one after it (fatgen103, "FAT data structure").

use std::ops::Range;

use super::boot::{FIRST_CLUSTER, FatKind, Layout};
use crate::fs::{Error, Volume, bytes::le};

/// How much of the FAT is read at once, in bytes.
const PIECE: u64 = 64 * 1024;
/// How many pieces a chain may be in: a file in more of them is not worth its memory.
const MOST_PIECES: usize = 65_536;

/// Whether the FAT says that the volume was unmounted properly. FAT12 has no place to say it.
pub(super) async fn is_clean(volume: &Volume, layout: &Layout) -> Result<bool, Error> {
    let mut window = Window::default();
    let entry = window.entry(volume, layout, 1, 1).await?;
    Ok(match layout.kind {
        FatKind::Fat12 => true,
        FatKind::Fat16 => entry & 1 << 15 != 0,
        FatKind::Fat32 => entry & 1 << 27 != 0,
    })
}

/// Follows a chain for `most` clusters or to its end, whichever comes first, and gives its neighbouring clusters together.
///
/// # Errors
///
/// [`Error::Corrupt`] if it leads to a cluster that does not exist, is free or bad, or to one that it has been at before;
/// [`Error::Unsupported`] if it is in too many pieces.
pub(super) async fn chain(volume: &Volume, layout: &Layout, first: u32, most: u64) -> Result<Vec<Range<u32>>, Error> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    let mut window = Window::default();
    let mut cluster = first;
    for left in (0..most).rev() {
        if !layout.has(cluster) {
            return Err(broken(layout, cluster));
        }
        append(&mut runs, cluster)?;
        if left == 0 {
            break;
        }
        let next = window.entry(volume, layout, cluster, left).await?;
        if is_end(layout.kind, next) {
            break;
        }
        cluster = next;
    }
    refuse_circle(&runs)?;
    Ok(runs)
}

/// Adds the next cluster of a chain.
fn append(runs: &mut Vec<Range<u32>>, cluster: u32) -> Result<(), Error> {
    if let Some(run) = runs.last_mut().filter(|run| run.end == cluster) {
        run.end += 1;
        return Ok(());
    }
    if runs.len() == MOST_PIECES {
        return Err(Error::unsupported("cluster chain", format!("more than {MOST_PIECES} fragments")));
    }
    runs.push(cluster..cluster + 1);
    // Often enough to leave a circle soon, and seldom enough to cost nothing.
    if runs.len().is_power_of_two() { refuse_circle(runs) } else { Ok(()) }
}

/// Whether an entry says that its cluster is the last one.
fn is_end(kind: FatKind, entry: u32) -> bool {
    entry
        >= match kind {
            FatKind::Fat12 => 0xFF8,
            FatKind::Fat16 => 0xFFF8,
            FatKind::Fat32 => 0x0FFF_FFF8,
        }
}

/// Refuses a chain that has been twice at the same cluster.
fn refuse_circle(runs: &[Range<u32>]) -> Result<(), Error> {
    let mut sorted: Vec<_> = runs.iter().collect();
    sorted.sort_unstable_by_key(|run| run.start);
    if sorted.is_sorted_by(|before, after| before.end <= after.start) {
        return Ok(());
    }
    Err(Error::corrupt("cluster chain", "loops, or is being written"))
}

fn broken(layout: &Layout, cluster: u32) -> Error {
    let clusters = layout.clusters;
    Error::corrupt("cluster chain", format!("broken, or being written: cluster {cluster:#x} of {clusters}"))
}

/// A piece of the FAT.
#[derive(Default)]
struct Window {
    /// Where it begins in the FAT, in bytes.
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The entry of a cluster. If it has to be read, some of those behind it are read too: a chain that has `left` clusters to go
    /// needs no more than so many of them.
    async fn entry(&mut self, volume: &Volume, layout: &Layout, cluster: u32, left: u64) -> Result<u32, Error> {
        let bit = u64::from(cluster) * u64::from(layout.kind.bits());
        let (at, odd) = (bit / 8, bit % 8 != 0);
        let width = u64::from(layout.kind.bits().div_ceil(8));
        if at < self.start || at + width > self.start + self.bytes.len() as u64 {
            let behind = u64::from(FIRST_CLUSTER + layout.clusters) * u64::from(layout.kind.bits());
            let len = left.saturating_mul(width).min(PIECE).min(behind.div_ceil(8) - at);
            self.bytes = volume.read(layout.table + at, len as usize).await?;
            self.start = at;
        }
        let at = (at - self.start) as usize;
        Ok(match layout.kind {
            FatKind::Fat12 if odd => u32::from(le::u16_at(&self.bytes, at)) >> 4,
            FatKind::Fat12 => u32::from(le::u16_at(&self.bytes, at)) & 0xFFF,
            FatKind::Fat16 => le::u16_at(&self.bytes, at).into(),
            // The highest four bits are nobody's.
            FatKind::Fat32 => le::u32_at(&self.bytes, at) & 0x0FFF_FFFF,
        })
    }
}
