//! Nodes of B-trees (Linux, `struct btrfs_header`): verified when they are read.

use super::{checksum, superblock::Superblock};
use crate::fs::{
    Error,
    bytes::{array_at, le},
};

/// The size of the header in bytes.
const HEADER: usize = 101;
/// The sizes of a key with an address, and of a key with the location of an item.
const POINTER: usize = 33;
const ITEM: usize = 25;
/// The maximum level of a node (`BTRFS_MAX_LEVEL`, less one).
const MAX_LEVEL: u8 = 7;

/// The types of items.
pub(super) const INODE_ITEM: u8 = 1;
pub(super) const INODE_REF: u8 = 12;
pub(super) const INODE_EXTREF: u8 = 13;
pub(super) const DIR_LOG_INDEX: u8 = 72;
pub(super) const DIR_ITEM: u8 = 84;
pub(super) const DIR_INDEX: u8 = 96;
pub(super) const EXTENT_DATA: u8 = 108;
pub(super) const EXTENT_CSUM: u8 = 128;
pub(super) const ROOT_ITEM: u8 = 132;
pub(super) const ROOT_REF: u8 = 156;
pub(super) const CHUNK_ITEM: u8 = 228;

/// The key of an item. Trees are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) item_type: u8,
    pub(super) offset: u64,
}

impl Key {
    /// The size in bytes.
    pub(super) const LEN: usize = 17;

    pub(super) fn new(object: u64, item_type: u8, offset: u64) -> Self {
        Self { object, item_type, offset }
    }

    /// Parses the key at an offset.
    pub(super) fn at(bytes: &[u8], at: usize) -> Self {
        let item_type = bytes.get(at + 8).copied().unwrap_or(0);
        Self { object: le::u64_at(bytes, at), item_type, offset: le::u64_at(bytes, at + 9) }
    }
}

/// The tree that a node belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The tree with this number.
    Tree(u64),
    /// A subvolume: snapshots share nodes.
    Subvolume,
}

impl Owner {
    fn includes(self, tree: u64) -> bool {
        match self {
            Self::Tree(owner) => tree == owner,
            Self::Subvolume => is_subvolume(tree),
        }
    }
}

/// Returns whether a tree contains the files of a subvolume.
pub(super) fn is_subvolume(tree: u64) -> bool {
    const TOP: u64 = 5;
    const FIRST: u64 = 256;
    const LAST: u64 = u64::MAX - 255;
    tree == TOP || (FIRST..=LAST).contains(&tree)
}

/// The reference to a node, with which it must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The logical address.
    pub(super) address: u64,
    /// The number of the commit that wrote the node.
    pub(super) generation: u64,
    pub(super) level: u8,
    pub(super) owner: Owner,
    /// The first key; `None` for a root.
    pub(super) first: Option<Key>,
}

/// A verified node. Its keys are in ascending order.
#[derive(Debug)]
pub(super) struct Node {
    bytes: Vec<u8>,
    address: u64,
    pub(super) level: u8,
    pub(super) count: usize,
}

impl Node {
    /// Verifies a node that `pointer` refers to.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    pub(super) fn parse(bytes: Vec<u8>, superblock: &Superblock, pointer: &Pointer) -> Result<Self, Error> {
        let address = pointer.address;
        let level = bytes.get(100).copied().unwrap_or(0);
        let count = le::u32_at(&bytes, 96) as usize;
        checksum::verify(superblock.checksum, &bytes, ("node", address))?;
        let is_expected = le::u64_at(&bytes, 48) == address
            && le::u64_at(&bytes, 80) == pointer.generation
            && level == pointer.level
            && level <= MAX_LEVEL
            && pointer.owner.includes(le::u64_at(&bytes, 88))
            && array_at(&bytes, 32) == superblock.metadata_uuid;
        if !is_expected {
            return Err(Error::corrupt(("node", address), "contains another node: damaged, or being written"));
        }
        let node = Self { bytes, address, level, count };
        let entries = count.checked_mul(node.entry_len()).and_then(|len| len.checked_add(HEADER));
        if entries.is_none_or(|end| end > node.bytes.len()) || (count == 0 && level > 0) {
            return Err(node.inconsistent());
        }
        let is_first = pointer.first.is_none_or(|first| count > 0 && node.key(0) == first);
        if !is_first || (1..count).any(|slot| node.key(slot - 1) >= node.key(slot)) {
            return Err(node.inconsistent());
        }
        Ok(node)
    }

    fn inconsistent(&self) -> Error {
        Error::corrupt(("node", self.address), "inconsistent")
    }

    fn entry_len(&self) -> usize {
        if self.level == 0 { ITEM } else { POINTER }
    }

    /// Returns the key in a slot.
    pub(super) fn key(&self, slot: usize) -> Key {
        Key::at(&self.bytes, HEADER + slot * self.entry_len())
    }

    /// Returns the number of keys that are less than `key`, or equal.
    pub(super) fn position_after(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle) <= key {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// Returns the reference to a child in a slot of a node that is not a leaf.
    pub(super) fn child(&self, slot: usize, owner: Owner) -> Pointer {
        let at = HEADER + slot * POINTER;
        Pointer {
            address: le::u64_at(&self.bytes, at + Key::LEN),
            generation: le::u64_at(&self.bytes, at + Key::LEN + 8),
            level: self.level.saturating_sub(1),
            owner,
            first: Some(self.key(slot)),
        }
    }

    /// Returns the item in a slot of a leaf.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    pub(super) fn item(&self, slot: usize) -> Result<&[u8], Error> {
        let at = HEADER + slot * ITEM + Key::LEN;
        let (offset, len) = (le::u32_at(&self.bytes, at) as usize, le::u32_at(&self.bytes, at + 4) as usize);
        let item = self.bytes.get(HEADER..).and_then(|data| data.get(offset..)?.get(..len));
        item.ok_or_else(|| self.inconsistent())
    }
}
