//! Extent trees and indirect blocks, well-formed and invalid.

use std::sync::Arc;

use smol::block_on;

use super::{
    super::{block_reader::BlockReader, checksum::Checksum, inode, superblock::Superblock},
    extent_tree::MAX_INITIALIZED_LEN,
    *,
};
use crate::fs::{FileIdentity, FileType, Volume};

const BLOCK_SIZE: usize = 1024;

/// Maps an inode of `size` bytes. For each extent, returns the first block in the file, the block behind its last, and the first block
/// on the disk.
fn map_inode(nodes: &[(usize, Vec<u8>)], flags: u32, block: &[u8], size: u64) -> Result<Vec<(u64, u64, u64)>, Error> {
    let mut disk = vec![0; 2000 * BLOCK_SIZE];
    for (at, value) in [(0x04, 2000u32), (0x14, 1), (0x20, 8192), (0x28, 128), (0x38, 0x0001_ef53)] {
        disk[1024 + at..][..4].copy_from_slice(&value.to_le_bytes());
    }
    for (block, node) in nodes {
        disk[block * BLOCK_SIZE..][..node.len()].copy_from_slice(node);
    }
    let superblock = Superblock::parse(&disk[1024..2048])?.expect("the magic number is present");
    let blocks = BlockReader::new(Volume::new(Arc::new(disk)), &superblock)?;
    let mut bytes = [0; 60];
    bytes[..block.len()].copy_from_slice(block);
    let inode = Inode {
        number: 12,
        file_type: FileType::File,
        size,
        flags,
        block: bytes,
        xattrs: Vec::new(),
        identity: FileIdentity::default(),
        checksum_seed: Checksum::NONE,
    };
    let extents = block_on(map(&blocks, &inode))?.0.extents;
    let size = BLOCK_SIZE as u64;
    Ok(extents
        .iter()
        .map(|extent| (extent.file_offset / size, (extent.file_offset + extent.len) / size, extent.disk_offset / size))
        .collect())
}

/// Returns a node of an extent tree. Each entry is its first block in the file and the remaining 16, 16 and 32 bits.
fn node(depth: u16, entries: &[(u32, u16, u16, u32)]) -> Vec<u8> {
    let head = [EXTENT_MAGIC, entries.len() as u16, entries.len() as u16, depth, 0, 0];
    let mut node: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (start, one, two, last) in entries {
        node.extend(start.to_le_bytes());
        node.extend(one.to_le_bytes());
        node.extend(two.to_le_bytes());
        node.extend(last.to_le_bytes());
    }
    node
}

/// Returns an inner node of an extent tree. Each entry is its first block in the file and the block of its child.
fn inner_node(depth: u16, entries: &[(u32, u16)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(start, block)| (*start, *block, 0, 0)).collect();
    node(depth, &entries)
}

fn map_extent_tree(nodes: &[(usize, Vec<u8>)], top: &[u8], size: u64) -> Result<Vec<(u64, u64, u64)>, Error> {
    map_inode(nodes, inode::EXTENTS, top, size)
}

#[test]
fn omits_unwritten_extents_and_those_beyond_the_end() {
    let top = node(0, &[(0, 2, 0, 100), (2, MAX_INITIALIZED_LEN + 3, 0, 102), (7, 5, 0, 200), (20, 1, 0, 300)]);
    assert_eq!(map_extent_tree(&[], &top, 10 * 1024 - 1), Ok(vec![(0, 2, 100), (7, 10, 200)]));
    assert_eq!(map_extent_tree(&[], &top, 0), Ok(vec![]));
    assert_eq!(map_extent_tree(&[], &top, u64::MAX).map(|extents| extents.len()), Ok(3));
}

#[test]
fn merges_adjacent_extents_of_different_nodes() {
    let nodes = [(50, node(0, &[(0, 4, 0, 100)])), (51, node(0, &[(4, 4, 0, 104), (9, 1, 0, 500)]))];
    assert_eq!(
        map_extent_tree(&nodes, &inner_node(1, &[(0, 50), (4, 51)]), 100 * 1024),
        Ok(vec![(0, 8, 100), (9, 10, 500)])
    );
}

#[test]
fn rejects_inconsistent_extent_trees() {
    let leaf = |at, len| (50, node(0, &[(at, len, 0, 100)]));
    let cases = [
        (vec![], node(0, &[(0, 2, 0, 100), (1, 1, 0, 200)]), "overlap"),
        (vec![], node(0, &[(5, 1, 0, 100), (3, 1, 0, 200)]), "descending order"),
        (vec![], node(0, &[(0, 0, 0, 100)]), "zero length"),
        (vec![], node(0, &[(u32::MAX, 2, 0, 100)]), "beyond the last block"),
        (vec![], node(0, &[(0, 2, 0, 1999)]), "beyond the end of the disk"),
        (vec![], node(0, &[(0, 2, 1, 100)]), "far beyond the end of the disk"),
        (vec![], node(0, &[(0, 2, 0, 1)]), "an extent that covers the superblock"),
        (vec![], node(6, &[(0, 2, 0, 1)]), "too deep"),
        (vec![], vec![0; 60], "no magic"),
        (vec![], inner_node(1, &[(0, 2000)]), "a node beyond the end of the disk"),
        (vec![], inner_node(1, &[(0, 50)]), "a node of zeros"),
        (vec![(50, node(0, &[]))], inner_node(1, &[(0, 50)]), "an empty node"),
        (vec![leaf(0, 5)], inner_node(1, &[(0, 50), (4, 50)]), "a leaf that exceeds the range of its index"),
        (vec![leaf(0, 2)], inner_node(1, &[(1, 50)]), "a leaf that starts before the range of its index"),
        (vec![leaf(0, 2)], inner_node(2, &[(0, 50)]), "a node of another depth"),
        (vec![(50, inner_node(1, &[(0, 50)]))], inner_node(1, &[(0, 50)]), "a cycle"),
    ];
    for (nodes, top, what) in cases {
        let found = map_extent_tree(&nodes, &top, u64::MAX);
        assert!(matches!(found, Err(Error::Corrupt(_))), "{what}: {found:?}");
    }
    let mut long = node(0, &[(0, 2, 0, 100)]);
    long[2] = 6;
    assert!(matches!(map_extent_tree(&[], &long, 4096), Err(Error::Corrupt(_))), "more entries than fit in the node");
}

fn map_block_pointers(nodes: &[(usize, Vec<u8>)], top: &[u32], size: u64) -> Result<Vec<(u64, u64, u64)>, Error> {
    map_inode(nodes, 0, &pointers(top), size)
}

fn pointers(pointers: &[u32]) -> Vec<u8> {
    pointers.iter().flat_map(|pointer| pointer.to_le_bytes()).collect()
}

#[test]
fn omits_holes_of_every_level() {
    let mut top = [0; 15];
    top[1..4].copy_from_slice(&[100, 101, 103]);
    top[11] = 200;
    top[12] = 50;
    top[14] = 51;
    let mut first = [0; 256];
    first[0] = 201;
    first[255] = 300;
    // Block 301 is mapped by the triple indirect block.
    let nodes =
        [(50, pointers(&first)), (51, pointers(&[0, 52])), (52, pointers(&[0, 0, 53])), (53, pointers(&[0, 301]))];
    let third = 12 + 256 + 256 * 256;
    let last = third + 256 * 256 + 2 * 256 + 1;
    let all = vec![(1, 3, 100), (3, 4, 103), (11, 13, 200), (267, 268, 300), (last, last + 1, 301)];
    assert_eq!(map_block_pointers(&nodes, &top, u64::MAX), Ok(all.clone()));
    assert_eq!(map_block_pointers(&nodes, &top, (last + 1) * 1024), Ok(all.clone()));
    assert_eq!(map_block_pointers(&nodes, &top, last * 1024), Ok(all[..4].to_vec()));
    assert_eq!(map_block_pointers(&nodes, &top, 2 * 1024), Ok(vec![(1, 2, 100)]));
}

#[test]
fn stops_at_cyclic_indirect_blocks() {
    let mut top = [0; 15];
    top[14] = 50;
    let outside = map_block_pointers(&[(50, pointers(&[60])), (60, pointers(&[2000]))], &top, u64::MAX);
    assert!(matches!(outside, Err(Error::Corrupt(_))), "{outside:?}");
    let itself = map_block_pointers(&[(50, pointers(&[50; 256]))], &top, u64::MAX);
    assert!(matches!(itself, Err(Error::Unsupported(_))), "{:?}", itself.map(|extents| extents.len()));
    // Consecutive blocks: few extents, but many nodes to read.
    let follow: Vec<u32> = (100..356).collect();
    let nodes = [(50, pointers(&[51; 256])), (51, pointers(&[52; 256])), (52, pointers(&follow))];
    let few = map_block_pointers(&nodes, &top, u64::MAX);
    assert!(matches!(few, Err(Error::Unsupported(_))), "{:?}", few.map(|extents| extents.len()));
}
