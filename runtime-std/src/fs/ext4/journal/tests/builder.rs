//! Writes logs as an owner does, from the description of the format alone.

use std::{pin::Pin, sync::Arc};

use crc::{Algorithm, CRC_32_ISCSI, CRC_32_MPEG_2, Crc};
use smol::block_on;

use super::super::Journal;
use crate::fs::{BlockDevice, Error, Extent, FileMap};

pub(super) const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
pub(super) const UUID: [u8; 16] = *b"sixteen bytes ok";

/// How a log is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    None,
    V1,
    V2,
    V3,
}

/// A log as it grows.
#[derive(Debug, Clone)]
pub(super) struct Builder {
    pub(super) block_size: usize,
    pub(super) sums: Sums,
    pub(super) wide: bool,
    /// Features beside those that follow from the fields above.
    pub(super) features: u32,
    pub(super) uuid: [u8; 16],
    /// The number of the first transaction.
    pub(super) first: u32,
    /// The number of the next one.
    pub(super) sequence: u32,
    pub(super) time: u64,
    /// The log, from its beginning.
    pub(super) blocks: Vec<Vec<u8>>,
}

impl Builder {
    pub(super) fn new(block_size: usize, sums: Sums, wide: bool) -> Self {
        let (first, time) = (7, 1_700_000_000);
        Self { block_size, sums, wide, features: 0, uuid: UUID, first, sequence: first, time, blocks: Vec::new() }
    }

    /// All kinds of logs there are.
    pub(super) fn all(block_size: usize) -> impl Iterator<Item = Self> {
        let kinds = [Sums::None, Sums::V1, Sums::V2, Sums::V3];
        kinds.into_iter().flat_map(move |sums| [false, true].map(|wide| Self::new(block_size, sums, wide)))
    }

    /// Adds a committed transaction.
    pub(super) fn transaction(&mut self, revokes: &[u64], copies: &[(u64, Vec<u8>)]) {
        let revoked_per_block = (self.block_size - 16 - 4) / if self.wide { 8 } else { 4 };
        for revokes in revokes.chunks(revoked_per_block) {
            self.revoke(revokes);
        }
        let begin = self.blocks.len();
        let per_block = (self.block_size - 12 - 16 - 4) / self.tag_len();
        for copies in copies.chunks(per_block) {
            self.descriptor(copies);
        }
        let mut commit = self.header(2);
        commit[48..56].copy_from_slice(&self.time.to_be_bytes());
        match self.sums {
            Sums::None => {}
            Sums::V1 => {
                commit[12..14].copy_from_slice(&[1, 4]);
                let sum = crc32_be(&self.blocks[begin..]);
                commit[16..20].copy_from_slice(&sum.to_be_bytes());
            }
            Sums::V2 | Sums::V3 => {
                let sum = crc32c(&[&self.uuid, &commit]);
                commit[16..20].copy_from_slice(&sum.to_be_bytes());
            }
        }
        self.blocks.push(commit);
        self.sequence = self.sequence.wrapping_add(1);
        self.time += 1;
    }

    /// Turns the log so that it begins at block `start` of a journal of `len` blocks, and gives the whole journal.
    pub(super) fn journal(&self, len: usize, start: usize) -> Vec<u8> {
        let mut journal = vec![0; len * self.block_size];
        for (at, block) in self.blocks.iter().enumerate() {
            let at = (start - 1 + at) % (len - 1) + 1;
            journal[at * self.block_size..][..self.block_size].copy_from_slice(block);
        }
        journal[..1024].copy_from_slice(&self.superblock(len, start));
        journal
    }

    /// A disk with nothing but the journal, and its file.
    pub(super) fn disk(&self) -> (Vec<u8>, FileMap) {
        let disk = self.journal(64, 50);
        let file = whole(&disk);
        (disk, file)
    }

    pub(super) fn load(&self) -> Result<Journal, Error> {
        load_all(&self.disk().0, self.block_size)
    }

    pub(super) fn superblock(&self, len: usize, start: usize) -> Vec<u8> {
        let mut block = vec![0; 1024];
        let compatible = u32::from(self.sums == Sums::V1);
        let sums = match self.sums {
            Sums::None | Sums::V1 => 0,
            Sums::V2 => 8,
            Sums::V3 => 0x10,
        };
        let incompatible = self.features | 1 | u32::from(self.wide) << 1 | sums;
        let fields = [4, 0, self.block_size as u32, len as u32, 1, self.first, start as u32, 0];
        block[..4].copy_from_slice(&MAGIC);
        for (at, field) in fields.into_iter().chain([compatible, incompatible]).enumerate() {
            put(&mut block, 4 + at * 4, field);
        }
        block[0x30..0x40].copy_from_slice(&self.uuid);
        put(&mut block, 0x40, 1);
        sign(&mut block);
        block
    }

    fn revoke(&mut self, revokes: &[u64]) {
        let mut block = self.header(5);
        let mut at = 16;
        for revoke in revokes {
            let record = revoke.to_be_bytes();
            let record = &record[if self.wide { 0 } else { 4 }..];
            block[at..at + record.len()].copy_from_slice(record);
            at += record.len();
        }
        put(&mut block, 12, at as u32);
        self.end(block);
    }

    fn descriptor(&mut self, copies: &[(u64, Vec<u8>)]) {
        let mut block = self.header(1);
        let mut logged = Vec::new();
        let mut at = 12;
        for (index, (number, copy)) in copies.iter().enumerate() {
            let mut copy = copy.clone();
            let escaped = copy.starts_with(&MAGIC);
            if escaped {
                copy[..4].fill(0);
            }
            let flags =
                u16::from(escaped) | if index == 0 { 0 } else { 2 } | if index + 1 == copies.len() { 8 } else { 0 };
            let sum = crc32c(&[&self.uuid, &self.sequence.to_be_bytes(), &copy]);
            put(&mut block, at, *number as u32);
            block[at + 6..at + 8].copy_from_slice(&flags.to_be_bytes());
            if self.wide {
                put(&mut block, at + 8, (number >> 32) as u32);
            }
            match self.sums {
                Sums::V2 => block[at + 4..at + 6].copy_from_slice(&(sum as u16).to_be_bytes()),
                Sums::V3 => put(&mut block, at + 12, sum),
                _ => {}
            }
            at += self.tag_len();
            if index == 0 {
                block[at..at + 16].copy_from_slice(&self.uuid);
                at += 16;
            }
            logged.push(copy);
        }
        self.end(block);
        self.blocks.extend(logged);
    }

    fn tag_len(&self) -> usize {
        match (self.sums, self.wide) {
            (Sums::V3, _) => 16,
            (Sums::V2, true) => 14,
            (Sums::V2, false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        }
    }

    fn header(&self, kind: u32) -> Vec<u8> {
        let mut block = vec![0; self.block_size];
        block[..4].copy_from_slice(&MAGIC);
        put(&mut block, 4, kind);
        put(&mut block, 8, self.sequence);
        block
    }

    /// Adds a descriptor or a table of revoked blocks.
    fn end(&mut self, mut block: Vec<u8>) {
        if matches!(self.sums, Sums::V2 | Sums::V3) {
            let sum = crc32c(&[&self.uuid, &block]);
            put(&mut block, self.block_size - 4, sum);
        }
        self.blocks.push(block);
    }
}

pub(super) fn load(disk: &Arc<dyn BlockDevice>, file: &FileMap, block_size: usize) -> Result<Journal, Error> {
    // It is to run on any thread.
    let loading: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(Journal::load(file, disk, block_size as u32));
    block_on(loading)
}

/// Loads a journal that is all of a disk.
pub(super) fn load_all(disk: &[u8], block_size: usize) -> Result<Journal, Error> {
    let disk: Arc<dyn BlockDevice> = Arc::new(disk.to_vec());
    load(&disk, &whole(&*disk), block_size)
}

/// A file that is all of a disk.
pub(super) fn whole(disk: &dyn BlockDevice) -> FileMap {
    let extent = Extent { file_offset: 0, len: disk.size(), disk_offset: 0 };
    FileMap { size: disk.size(), extents: vec![extent], ..FileMap::default() }
}

/// Gives a superblock the sum that some kinds have.
pub(super) fn sign(block: &mut [u8]) {
    if block[0x2b] & 0x18 != 0 {
        block[0x50] = 4;
        put(block, 0xfc, 0);
        let sum = crc32c(&[block]);
        put(block, 0xfc, sum);
    }
}

pub(super) fn put(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The kernel's `crc32c_le`, begun with ones.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let crc = Crc::<u32>::new(&Algorithm { xorout: 0, ..CRC_32_ISCSI });
    let mut sum = crc.digest();
    parts.iter().for_each(|part| sum.update(part));
    sum.finalize()
}

/// The kernel's `crc32_be`, begun with ones.
fn crc32_be(blocks: &[Vec<u8>]) -> u32 {
    let crc = Crc::<u32>::new(&CRC_32_MPEG_2);
    let mut sum = crc.digest();
    blocks.iter().for_each(|block| sum.update(block));
    sum.finalize()
}
