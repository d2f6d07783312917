//! Reads the items of trees.

use std::ops::{ControlFlow, RangeInclusive};

use super::{
    chunks::{Chunks, FIRST_CHUNK},
    node::{CHUNK_ITEM, Key, Node, Owner, Pointer},
    superblock::Superblock,
};
use crate::fs::{Error, Volume};

/// The numbers of trees.
pub(super) const ROOT_TREE: u64 = 1;
const CHUNK_TREE: u64 = 3;

/// Reads the trees of a file system.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) volume: Volume,
    pub(super) superblock: Superblock,
    pub(super) chunks: Chunks,
}

impl Trees {
    /// Reads the chunk map.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn open(volume: Volume, superblock: Superblock) -> Result<Self, Error> {
        let chunks = Chunks::new(&superblock, &volume)?;
        let mut trees = Self { volume, superblock, chunks };
        let (address, level) = trees.superblock.chunk_root;
        let generation = trees.superblock.chunk_root_generation;
        let root = Pointer { address, generation, level, owner: Owner::Tree(CHUNK_TREE), first: None };
        let mut chunks = Chunks::new(&trees.superblock, &trees.volume)?;
        let all = Key::new(FIRST_CHUNK, CHUNK_ITEM, 0)..=Key::new(FIRST_CHUNK, CHUNK_ITEM, u64::MAX);
        trees
            .for_each(&root, all, |key, item| {
                chunks.add(key, item, &trees.superblock)?;
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        trees.chunks = chunks;
        Ok(trees)
    }

    /// Returns the reference to the root of the root tree.
    pub(super) fn root_tree(&self) -> Pointer {
        let (address, level) = self.superblock.root;
        let generation = self.superblock.generation;
        Pointer { address, generation, level, owner: Owner::Tree(ROOT_TREE), first: None }
    }

    /// Reads a node, from the first copy that is intact.
    async fn read(&self, pointer: &Pointer) -> Result<Node, Error> {
        let len = self.superblock.node_size as usize;
        let mut failed = None;
        for offset in self.chunks.locate(pointer.address, len as u64)? {
            match Node::parse(self.volume.read(offset, len).await?, &self.superblock, pointer) {
                Ok(node) => return Ok(node),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::corrupt(("node", pointer.address), "not on this device")))
    }

    /// Returns the leaf that contains a key or the largest one below it, and the first key of the next leaf.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(super) async fn leaf(&self, root: &Pointer, key: Key) -> Result<(Node, Option<Key>), Error> {
        let mut node = self.read(root).await?;
        let mut next = None;
        while node.level > 0 {
            let after = node.position_after(key);
            let slot = after.saturating_sub(1);
            if slot + 1 < node.count {
                next = Some(node.key(slot + 1));
            }
            node = self.read(&node.child(slot, root.owner)).await?;
        }
        Ok((node, next))
    }

    /// Returns the item with a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn find(&self, root: &Pointer, key: Key) -> Result<Option<Vec<u8>>, Error> {
        let (leaf, _) = self.leaf(root, key).await?;
        match leaf.position_after(key).checked_sub(1).filter(|slot| leaf.key(*slot) == key) {
            Some(slot) => leaf.item(slot).map(|item| Some(item.to_vec())),
            None => Ok(None),
        }
    }

    /// Calls a function with each item in a range of keys, in order, until it breaks.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and those of the function.
    pub(super) async fn for_each(
        &self,
        root: &Pointer,
        range: RangeInclusive<Key>,
        mut visit: impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut from = Some(*range.start());
        while let Some(start) = from.filter(|start| start <= range.end()) {
            let (leaf, next) = self.leaf(root, start).await?;
            for slot in 0..leaf.count {
                let key = leaf.key(slot);
                if key > *range.end() {
                    return Ok(());
                }
                if key >= start && visit(key, leaf.item(slot)?)?.is_break() {
                    return Ok(());
                }
            }
            from = next;
        }
        Ok(())
    }
}
