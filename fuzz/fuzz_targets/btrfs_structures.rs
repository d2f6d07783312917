//! The metadata of btrfs: the superblock, and the nodes of trees.

use super::structure::Structure;

/// The place and the size of the superblock.
const SUPERBLOCK: usize = 64 << 10;
const SUPERBLOCK_LEN: usize = 4096;
/// The length of the field of the checksum in front of each structure, which the checksum does not cover.
const CHECKSUM: usize = 32;

/// Finds all structures of an image without errors, whose checksums are CRC-32C.
pub fn find(disk: &[u8]) -> Vec<Structure> {
    let superblock = &disk[SUPERBLOCK..SUPERBLOCK + SUPERBLOCK_LEN];
    let node = u32::from_le_bytes(superblock[148..152].try_into().expect("4 bytes")) as usize;
    // The UUID of the file system, in each structure.
    let uuid = CHECKSUM..CHECKSUM + 16;
    let structure = |at: usize, len: usize| Structure::new(disk, vec![(at + CHECKSUM, len - CHECKSUM)], Some(at));
    let is_node = |at: &usize| *at != SUPERBLOCK && disk[*at..][uuid.clone()] == superblock[uuid.clone()];
    let nodes = (0..=disk.len() - node).step_by(SUPERBLOCK_LEN).filter(is_node).map(|at| structure(at, node));
    let all = std::iter::once(structure(SUPERBLOCK, SUPERBLOCK_LEN)).chain(nodes);
    all.filter(|structure| structure.has_valid_checksum(disk)).collect()
}
