//! The chunk map: where on this device the logical addresses of a file system are (Linux, `struct btrfs_chunk`).

use std::collections::BTreeMap;

use super::{
    node::{CHUNK_ITEM, Key},
    superblock::Superblock,
};
use crate::{
    fs::{
        Error, Volume,
        bytes::{array_at, le},
    },
    memory::Reservation,
};

/// The sizes of a chunk item without its stripes, and of a stripe, in bytes.
const HEADER: usize = 48;
const STRIPE: usize = 32;
/// The object of the keys of chunks.
pub(super) const FIRST_CHUNK: u64 = 256;
/// The maximum number of chunks; each usually has a GiB.
const MAX_CHUNKS: usize = 1 << 16;
/// The memory of a chunk in bytes, with that of its copies.
const CHUNK_MEMORY: usize = 256;

/// The bits of the type of a chunk that say how it is spread over devices.
const PROFILES: u64 = 0x7f8;
/// The profiles with complete copies: RAID1, DUP, RAID1C3 and RAID1C4.
const COPIES: [u64; 4] = [1 << 4, 1 << 5, 1 << 9, 1 << 10];

/// The chunks of a file system, by address.
#[derive(Debug)]
pub(super) struct Chunks {
    chunks: BTreeMap<u64, Chunk>,
    memory: Reservation,
}

#[derive(Debug)]
struct Chunk {
    len: u64,
    /// The offsets in the volume of the complete copies on this device.
    copies: Vec<u64>,
}

impl Chunks {
    /// Parses the chunks in a superblock, which contain the chunk tree.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::OutOfMemory`].
    pub(super) fn new(superblock: &Superblock, volume: &Volume) -> Result<Self, Error> {
        let mut chunks = Self { chunks: BTreeMap::new(), memory: volume.memory().reserve(0)? };
        let mut rest = &superblock.system_chunks[..];
        while !rest.is_empty() {
            let key = Key::at(rest, 0);
            let item = rest.get(Key::LEN..).unwrap_or_default();
            let len = HEADER + usize::from(le::u16_at(item, 44)) * STRIPE;
            let (item, next) = item.split_at_checked(len).ok_or_else(|| corrupt(key.offset))?;
            chunks.add(key, item, superblock)?;
            rest = next;
        }
        Ok(chunks)
    }

    /// Adds the chunk of an item.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`] if its profile needs other devices, [`Error::OutOfMemory`].
    pub(super) fn add(&mut self, key: Key, item: &[u8], superblock: &Superblock) -> Result<(), Error> {
        let logical = key.offset;
        let (len, count) = (le::u64_at(item, 0), usize::from(le::u16_at(item, 44)));
        if key.item_type != CHUNK_ITEM || item.len() != HEADER + count * STRIPE || len == 0 {
            return Err(corrupt(logical));
        }
        let end = logical.checked_add(len).ok_or_else(|| corrupt(logical))?;
        check_profile(le::u64_at(item, 24), count)?;
        let stripes = item.get(HEADER..).unwrap_or_default().chunks_exact(STRIPE);
        let is_local = |stripe: &&[u8]| {
            le::u64_at(stripe, 0) == superblock.device && array_at(stripe, 16) == superblock.device_uuid
        };
        let copies: Vec<u64> = stripes.filter(is_local).take(2).map(|stripe| le::u64_at(stripe, 8)).collect();
        if copies.is_empty() {
            return Err(Error::unsupported("file system", "a part of it is on another device"));
        }
        let last = self.chunks.range(..end).next_back().filter(|(at, chunk)| *at + chunk.len > logical);
        match last {
            Some((at, chunk)) if *at == logical && chunk.len == len && chunk.copies == copies => return Ok(()),
            Some(_) => return Err(corrupt(logical)),
            None => {}
        }
        if self.chunks.len() == MAX_CHUNKS {
            return Err(Error::unsupported("file system", "too many chunks"));
        }
        self.memory.resize(self.memory.bytes() + CHUNK_MEMORY)?;
        self.chunks.insert(logical, Chunk { len, copies });
        Ok(())
    }

    /// Returns the offsets in the volume of the copies of `len` bytes at an address, at least one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    pub(super) fn locate(&self, address: u64, len: u64) -> Result<impl Iterator<Item = u64> + use<'_>, Error> {
        let found = self.chunks.range(..=address).next_back().map(|(logical, chunk)| (address - logical, chunk));
        let found = found.filter(|(at, chunk)| *at < chunk.len && chunk.len - at >= len);
        let (at, chunk) = found.ok_or_else(|| Error::corrupt(("address", address), "not in any chunk"))?;
        Ok(chunk.copies.iter().map(move |copy| copy.saturating_add(at)))
    }
}

/// Rejects profiles other than one device or complete copies.
fn check_profile(chunk_type: u64, stripes: usize) -> Result<(), Error> {
    let name = match chunk_type & PROFILES {
        0 if stripes == 1 => return Ok(()),
        profile if COPIES.contains(&profile) => return Ok(()),
        0x8 => "RAID0",
        0x40 => "RAID10",
        0x80 => "RAID5",
        0x100 => "RAID6",
        _ => "unknown",
    };
    Err(Error::unsupported("file system", format!("profile {name} is not supported natively")))
}

fn corrupt(logical: u64) -> Error {
    Error::corrupt(("chunk", logical), "inconsistent")
}
