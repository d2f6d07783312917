//! The checksums of the contents of files: items of the checksum tree, and of the log (Linux, `fs/btrfs/file-item.c`).

use std::sync::Arc;

use super::{
    node::{EXTENT_CSUM, Key, Node, Owner, Pointer, ROOT_ITEM},
    subvolume::{Subvolume, root},
    tree::Trees,
};
use crate::fs::{BlockChecksums, Error};

/// The number of the checksum tree, and the object of its keys.
const CHECKSUM_TREE: u64 = 7;
pub(super) const CHECKSUMS: u64 = u64::MAX - 9;
/// The maximum length of the checksums of a file in bytes: 4 GiB of contents with CRC-32C. The contents beyond are not verified.
const MAX_SUMS: usize = 4 << 20;
/// The maximum number of leaves that are read for a file. Each usually covers some megabytes, of a fragmented file only one of its
/// pieces; those beyond are not verified.
const MAX_LEAVES: usize = 512;

/// A range of addresses, with its start and end.
pub(super) type Range = (u64, u64);

/// Returns the checksums of ranges of addresses, each within a chunk; `None` if there are none, or no memory for them.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
pub(super) async fn find(
    trees: &Trees,
    subvolume: &Subvolume,
    ranges: Vec<Range>,
) -> Result<Option<Arc<BlockChecksums>>, Error> {
    let sector = trees.superblock.sector_size as usize;
    let mut sums = BlockChecksums::new(trees.superblock.checksum, sector);
    let mut left = MAX_SUMS / sums.sum_len();
    let blocks = ranges.iter().fold(0, |sum: u64, (start, end)| sum.saturating_add((end - start) / sector as u64));
    let blocks = usize::try_from(blocks).unwrap_or(usize::MAX).min(left);
    let Ok(_memory) = trees.volume.memory().reserve(blocks * sums.sum_len()) else { return Ok(None) };
    let Some(root) = checksum_tree(trees).await? else { return Ok(None) };
    let mut reader = Reader { trees, subvolume, root, leaf: None, leaves_left: MAX_LEAVES };
    for (start, end) in disjoint(ranges) {
        let mut at = start;
        while at < end && left > 0 {
            let part = reader.next((at, end), left).await?;
            if let Part::Sums(bytes) = &part {
                let count = bytes.len() / trees.superblock.checksum.len();
                left -= count;
                let len = (count * sector) as u64;
                let mut copies = trees.chunks.locate(at, len)?;
                let first = copies.next().ok_or_else(|| Error::corrupt(("address", at), "not on this device"))?;
                let copy = copies.next().and_then(|offset| trees.volume.disk_offset(offset, len).ok());
                sums.add(trees.volume.disk_offset(first, len)?, copy, bytes);
            }
            at = match part {
                Part::Sums(bytes) => at + (bytes.len() / trees.superblock.checksum.len() * sector) as u64,
                Part::None { until } => until,
            };
        }
    }
    Ok(sums.finish())
}

/// Returns the root of the checksum tree; `None` if there is none.
async fn checksum_tree(trees: &Trees) -> Result<Option<Pointer>, Error> {
    let item = trees.find(&trees.root_tree(), Key::new(CHECKSUM_TREE, ROOT_ITEM, 0)).await?;
    let Some(item) = item else { return Ok(None) };
    let root = root(&item, Owner::Tree(CHECKSUM_TREE));
    let root = root.filter(|root| root.generation <= trees.superblock.generation);
    root.map(Some).ok_or_else(|| Error::corrupt("checksum tree", "inconsistent"))
}

/// Sorts ranges, and joins those that overlap.
fn disjoint(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match joined.last_mut() {
            // Contiguous ones may be in different chunks.
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// The part of a range from its start on.
enum Part {
    /// Checksums, one for each block.
    Sums(Vec<u8>),
    /// No checksums up to this address.
    None { until: u64 },
}

/// Reads the checksums of ranges with ascending addresses.
struct Reader<'t> {
    trees: &'t Trees,
    subvolume: &'t Subvolume,
    root: Pointer,
    /// The leaf that was read last, and the first key of the next one.
    leaf: Option<(Node, Option<Key>)>,
    leaves_left: usize,
}

impl Reader<'_> {
    /// Returns what there is at the start of a range, at most `limit` checksums.
    async fn next(&mut self, (start, end): Range, limit: usize) -> Result<Part, Error> {
        let (sector, len) = (u64::from(self.trees.superblock.sector_size), self.trees.superblock.checksum.len());
        let sums_in = |item_start: u64, item: &[u8]| {
            let first = usize::try_from(start.checked_sub(item_start)? / sector).ok()?;
            let count = usize::try_from((end - start) / sector).unwrap_or(usize::MAX).min(limit);
            let sums = item.get(first.checked_mul(len)?..)?;
            let sums = sums.get(..sums.len().min(count.saturating_mul(len))).unwrap_or_default();
            let whole = &sums[..sums.len() - sums.len() % len];
            (!whole.is_empty()).then(|| Part::Sums(whole.to_vec()))
        };
        // The log has those that are not in the tree yet.
        let logged = &self.subvolume.changes.checksums;
        if let Some(part) = logged.range(..=start).next_back().and_then(|(at, item)| sums_in(*at, item)) {
            return Ok(part);
        }
        let end = logged.range(start + 1..end).next().map_or(end, |(at, _)| *at);
        let key = Key::new(CHECKSUMS, EXTENT_CSUM, start);
        let is_current = self
            .leaf
            .as_ref()
            .is_some_and(|(leaf, next)| leaf.count > 0 && leaf.key(0) <= key && next.is_none_or(|next| key < next));
        if !is_current {
            let Some(left) = self.leaves_left.checked_sub(1) else { return Ok(Part::None { until: end }) };
            self.leaves_left = left;
            self.leaf = Some(self.trees.leaf(&self.root, key).await?);
        }
        let Some((leaf, next)) = &self.leaf else { return Ok(Part::None { until: end }) };
        let after = leaf.position_after(key);
        if let Some(slot) = after.checked_sub(1) {
            let found = leaf.key(slot);
            let is_checksum = found.object == CHECKSUMS && found.item_type == EXTENT_CSUM;
            if is_checksum && let Some(part) = sums_in(found.offset, leaf.item(slot)?) {
                return Ok(part);
            }
        }
        let next = if after < leaf.count { Some(leaf.key(after)) } else { *next };
        let is_checksum = |next: &Key| next.object == CHECKSUMS && next.item_type == EXTENT_CSUM;
        let until = next.filter(is_checksum).map_or(end, |next| next.offset.min(end));
        Ok(Part::None { until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_joined() {
        let ranges = vec![(40, 50), (0, 10), (5, 7), (8, 20), (20, 30)];
        assert_eq!(disjoint(ranges), [(0, 20), (20, 30), (40, 50)]);
    }
}
