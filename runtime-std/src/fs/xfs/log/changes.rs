//! The changes that a replay of the log would make.

use std::collections::{BTreeMap, BTreeSet};

use super::{position::Position, ring::BLOCK};
use crate::{
    fs::{
        Error,
        bytes::{array_at, be},
        xfs::{inode_layout::data_fork_mut, superblock::Superblock},
    },
    memory::Reservation,
};

/// The part of a buffer that is logged as a whole, in bytes (`XFS_BLF_CHUNK`).
pub(super) const CHUNK: usize = 128;
/// The number of bytes at the start of a buffer that contain its LSN.
pub(in super::super) const BUFFER_HEADER: usize = BLOCK;

/// The changes of structures in the log. All offsets are in the volume, in bytes.
///
/// Of several changes of the same bytes, only the newest is kept. It is applied unless the structure on the disk is as new, so the
/// state of the structure is the same as if all changes had been applied in order.
#[derive(Debug)]
pub(in super::super) struct Changes {
    /// The changed chunks of buffers, by offset.
    chunks: BTreeMap<u64, Chunk>,
    /// The changed inodes, by offset.
    inodes: BTreeMap<u64, InodeChange>,
    /// The blocks of new inodes, which replace whatever is on the disk.
    created: BTreeSet<u64>,
    memory: Reservation,
}

#[derive(Debug)]
struct Chunk {
    lsn: u64,
    buffer: Buffer,
    bytes: [u8; CHUNK],
}

/// A buffer: a part of the disk that Linux reads and writes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A change of an inode.
#[derive(Debug)]
pub(super) struct InodeChange {
    /// The newest core, as on the disk.
    core: Box<[u8]>,
    age: Age,
    /// The newest data fork.
    fork: Option<(Age, Fork)>,
}

/// A data fork.
#[derive(Debug)]
pub(super) enum Fork {
    /// As on the disk.
    Plain(Box<[u8]>),
    /// The root of a B+tree as in the memory of Linux, with a whole header.
    Root(Box<[u8]>),
}

/// How new a state of an inode is: its LSN, or in version 4 a counter (`di_flushiter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Lsn(u64),
    Flushes(u16),
}

/// The state of an inode to which changes are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum InodeBase {
    /// The one on the disk.
    Disk,
    /// An inode of zeros: the log has created it.
    Created,
}

/// The parts of an inode that changes have replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct ReplacedParts {
    pub(in super::super) core: bool,
    pub(in super::super) fork: bool,
}

impl Changes {
    /// Creates an empty set of changes, which grows within `memory`.
    pub(in super::super) fn new(memory: Reservation) -> Self {
        Self { chunks: BTreeMap::new(), inodes: BTreeMap::new(), created: BTreeSet::new(), memory }
    }

    /// Adds a changed chunk of a buffer.
    pub(super) fn add_chunk(&mut self, lsn: u64, buffer: Buffer, offset: u64, bytes: [u8; CHUNK]) -> Result<(), Error> {
        if !self.chunks.contains_key(&offset) {
            self.reserve::<(u64, Chunk)>(0)?;
        }
        self.chunks.insert(offset, Chunk { lsn, buffer, bytes });
        Ok(())
    }

    /// Adds a changed inode.
    pub(super) fn add_inode(
        &mut self,
        offset: u64,
        age: Age,
        core: Box<[u8]>,
        fork: Option<Fork>,
    ) -> Result<(), Error> {
        let old = self.inodes.get(&offset).map_or(0, InodeChange::memory);
        let fork = fork.map(|fork| (age, fork));
        let mut change = InodeChange { core, age, fork };
        if change.fork.is_none() {
            change.fork = self.inodes.get_mut(&offset).and_then(|earlier| earlier.fork.take());
        }
        let new = change.memory();
        if old == 0 {
            self.reserve::<(u64, InodeChange)>(new)?;
        } else {
            self.memory.resize((self.memory.bytes() + new).saturating_sub(old))?;
        }
        self.inodes.insert(offset, change);
        Ok(())
    }

    /// Adds a block of new inodes of `block_size` bytes.
    pub(super) fn add_created(&mut self, block: u64, block_size: u64) -> Result<(), Error> {
        self.reserve::<u64>(0)?;
        self.created.insert(block);
        self.remove_inodes(block, block_size);
        Ok(())
    }

    /// Removes the changes of a buffer that was freed: its blocks may contain something else since.
    pub(super) fn cancel(&mut self, buffer: Buffer) {
        let end = buffer.offset.saturating_add(buffer.len);
        let of_buffer = self.chunks.range(buffer.offset..end).filter(|(_, chunk)| chunk.buffer == buffer);
        let cancelled: Vec<u64> = of_buffer.map(|(offset, _)| *offset).collect();
        for offset in cancelled {
            self.chunks.remove(&offset);
        }
        self.remove_inodes(buffer.offset, buffer.len);
        let created: Vec<u64> = self.created.range(buffer.offset..end).copied().collect();
        for block in created {
            self.created.remove(&block);
        }
    }

    fn remove_inodes(&mut self, offset: u64, len: u64) {
        let removed: Vec<u64> =
            self.inodes.range(offset..offset.saturating_add(len)).map(|(offset, _)| *offset).collect();
        for offset in removed {
            self.inodes.remove(&offset);
        }
    }

    /// Reserves memory for an element of a tree, and for what it refers to.
    fn reserve<T>(&mut self, more: usize) -> Result<(), Error> {
        // The nodes of a tree are two thirds full on average.
        self.memory.resize(self.memory.bytes() + size_of::<T>() * 3 / 2 + more)?;
        Ok(())
    }

    /// Returns the offsets of those buffers with changes of the `len` bytes at `offset` that start elsewhere.
    pub(in super::super) fn other_buffers(&self, offset: u64, len: usize) -> Vec<u64> {
        let chunks = self.chunks.range(offset..offset.saturating_add(len as u64));
        let mut buffers: Vec<u64> = chunks.map(|(_, chunk)| chunk.buffer.offset).filter(|at| *at != offset).collect();
        buffers.dedup();
        buffers
    }

    /// Applies the changes of the bytes at `offset`, which are as on the disk, and returns whether there were any. `lsn` returns the
    /// LSN of a buffer on the disk, by its offset.
    pub(in super::super) fn apply(&self, offset: u64, bytes: &mut [u8], lsn: impl Fn(u64) -> Option<u64>) -> bool {
        let mut is_changed = false;
        for (at, chunk) in self.chunks.range(offset..offset.saturating_add(bytes.len() as u64)) {
            if lsn(chunk.buffer.offset).is_some_and(|on_disk| on_disk >= chunk.lsn) {
                continue;
            }
            let target = bytes.iter_mut().skip((at - offset) as usize);
            target.zip(chunk.bytes).for_each(|(byte, changed)| *byte = changed);
            is_changed = true;
        }
        is_changed
    }

    /// Returns the state of the inode at `offset` to which its changes are applied; `block` is the offset of its block.
    pub(in super::super) fn inode_base(&self, block: u64) -> InodeBase {
        if self.created.contains(&block) { InodeBase::Created } else { InodeBase::Disk }
    }

    /// Applies the changes of the inode at `offset`, which is as on the disk or of zeros.
    pub(in super::super) fn apply_to_inode(
        &self,
        offset: u64,
        inode: &mut [u8],
        superblock: &Superblock,
    ) -> ReplacedParts {
        let Some(change) = self.inodes.get(&offset) else { return ReplacedParts::default() };
        let on_disk = match superblock.features.is_v5 {
            true => Age::Lsn(be::u64_at(inode, 112)),
            false => Age::Flushes(be::u16_at(inode, 30)),
        };
        let mut replaced = ReplacedParts::default();
        if on_disk.is_not_newer_than(change.age) {
            replaced.core = true;
            // The checksum and the next field are not logged.
            for (at, byte) in change.core.iter().enumerate().filter(|(at, _)| !(96..104).contains(at)) {
                inode.iter_mut().skip(at).take(1).for_each(|target| *target = *byte);
            }
        }
        if let Some((_, fork)) = change.fork.as_ref().filter(|(age, _)| on_disk.is_not_newer_than(*age)) {
            replaced.fork = true;
            fork.write_to(data_fork_mut(inode), superblock.features.is_v5);
        }
        replaced
    }
}

impl InodeChange {
    fn memory(&self) -> usize {
        self.core.len() + self.fork.as_ref().map_or(0, |(_, Fork::Plain(bytes) | Fork::Root(bytes))| bytes.len())
    }
}

impl Age {
    /// Returns whether changes of the given age must be applied to a structure of this age on the disk.
    fn is_not_newer_than(self, change: Self) -> bool {
        match (self, change) {
            // The counter starts again at its maximum (`DI_MAX_FLUSH`).
            (Self::Flushes(u16::MAX), Self::Flushes(change)) if change < u16::MAX / 2 => true,
            (Self::Flushes(on_disk), Self::Flushes(change)) => on_disk <= change,
            (Self::Lsn(u64::MAX), _) => true,
            (Self::Lsn(on_disk), Self::Lsn(change)) => on_disk <= change,
            (Self::Lsn(_), Self::Flushes(_)) | (Self::Flushes(_), Self::Lsn(_)) => false,
        }
    }
}

impl Fork {
    /// Writes the fork in the form that it has on the disk.
    fn write_to(&self, target: &mut [u8], is_v5: bool) {
        match self {
            Self::Plain(bytes) => target.iter_mut().zip(bytes).for_each(|(byte, changed)| *byte = *changed),
            Self::Root(root) => {
                let header = if is_v5 { 72 } else { 24 };
                let room = |len: usize, header: usize| len.saturating_sub(header) / 16 * 8;
                let (from, to) = (header + room(root.len(), header), 4 + room(target.len(), 4));
                let mut copy = |at: usize, source: &[u8]| {
                    target.iter_mut().skip(at).zip(source).for_each(|(byte, changed)| *byte = *changed);
                };
                let count = usize::from(be::u16_at(root, 6)) * 8;
                copy(0, root.get(4..8).unwrap_or_default());
                copy(4, root.get(header..from).unwrap_or_default());
                copy(to, root.get(from..).and_then(|blocks| blocks.get(..count)).unwrap_or_default());
            }
        }
    }
}

/// Returns the LSN of a buffer on the disk; `None` if it has none, so that all changes must be applied to it.
pub(in super::super) fn buffer_lsn(header: &[u8], superblock: &Superblock) -> Option<u64> {
    if !superblock.features.is_v5 {
        return None;
    }
    let (lsn, uuid) = match &array_at(header, 0) {
        b"BMA3" => (32, 40),
        b"XDB3" | b"XDD3" | b"XDF3" => (16, 24),
        b"XSLM" => (48, 16),
        b"XFSB" if superblock.features.has_meta_uuid => (240, 248),
        b"XFSB" => (240, 32),
        _ => match be::u16_at(header, 8) {
            0x3df1 | 0x3dff | 0x3ebe | 0x3bee => (24, 32),
            _ => return None,
        },
    };
    let lsn = be::u64_at(header, lsn);
    (array_at(header, uuid) == superblock.meta_uuid && lsn != 0 && lsn != u64::MAX).then_some(lsn)
}

/// Describes an LSN for a message.
pub(in super::super) fn describe(lsn: u64) -> String {
    let Position { cycle, block } = Position::from_lsn(lsn);
    format!("{cycle}:{block}")
}
