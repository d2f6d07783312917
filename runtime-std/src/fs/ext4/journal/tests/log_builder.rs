//! Builds journals, independently of the code that reads them.

use std::{pin::Pin, sync::Arc};

use crc::{Algorithm, CRC_32_ISCSI, CRC_32_MPEG_2, Crc};
use smol::block_on;

use super::super::Journal;
use crate::{
    fs::{BlockDevice, Error, Extent, FileMap},
    memory::DiskMemory,
};

pub(super) const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
pub(super) const UUID: [u8; 16] = *b"sixteen bytes ok";

/// The checksums of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    None,
    V1,
    V2,
    V3,
}

/// A log to which transactions are added.
#[derive(Debug, Clone)]
pub(super) struct LogBuilder {
    pub(super) block_size: usize,
    pub(super) checksums: Checksums,
    pub(super) is_64bit: bool,
    /// Incompatible features in addition to those that the fields above imply.
    pub(super) extra_features: u32,
    pub(super) uuid: [u8; 16],
    /// The sequence number of the first transaction.
    pub(super) first_sequence: u32,
    /// The sequence number of the next transaction.
    pub(super) sequence: u32,
    /// The time of the next commit, in seconds since 1970.
    pub(super) time: u64,
    /// The blocks of the log.
    pub(super) blocks: Vec<Vec<u8>>,
}

impl LogBuilder {
    pub(super) fn new(block_size: usize, checksums: Checksums, is_64bit: bool) -> Self {
        let (first_sequence, time) = (7, 1_700_000_000);
        Self {
            block_size,
            checksums,
            is_64bit,
            extra_features: 0,
            uuid: UUID,
            first_sequence,
            sequence: first_sequence,
            time,
            blocks: Vec::new(),
        }
    }

    /// Returns an empty log of each format.
    pub(super) fn all(block_size: usize) -> impl Iterator<Item = Self> {
        let all = [Checksums::None, Checksums::V1, Checksums::V2, Checksums::V3];
        all.into_iter()
            .flat_map(move |checksums| [false, true].map(|is_64bit| Self::new(block_size, checksums, is_64bit)))
    }

    /// Adds a committed transaction with revoke records, and copies with their block numbers.
    pub(super) fn transaction(&mut self, revokes: &[u64], copies: &[(u64, Vec<u8>)]) {
        let records_per_block = (self.block_size - 16 - 4) / if self.is_64bit { 8 } else { 4 };
        for revokes in revokes.chunks(records_per_block) {
            self.revoke(revokes);
        }
        let first = self.blocks.len();
        let tags_per_block = (self.block_size - 12 - 16 - 4) / self.tag_len();
        for copies in copies.chunks(tags_per_block) {
            self.descriptor(copies);
        }
        let mut commit = self.header(2);
        commit[48..56].copy_from_slice(&self.time.to_be_bytes());
        match self.checksums {
            Checksums::None => {}
            Checksums::V1 => {
                commit[12..14].copy_from_slice(&[1, 4]);
                let checksum = crc32_be(&self.blocks[first..]);
                commit[16..20].copy_from_slice(&checksum.to_be_bytes());
            }
            Checksums::V2 | Checksums::V3 => {
                let checksum = crc32c(&[&self.uuid, &commit]);
                commit[16..20].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        self.blocks.push(commit);
        self.sequence = self.sequence.wrapping_add(1);
        self.time += 1;
    }

    /// Returns a journal of `len` blocks whose log starts at block `start` and wraps around.
    pub(super) fn journal(&self, len: usize, start: usize) -> Vec<u8> {
        let mut journal = vec![0; len * self.block_size];
        for (at, block) in self.blocks.iter().enumerate() {
            let at = (start - 1 + at) % (len - 1) + 1;
            journal[at * self.block_size..][..self.block_size].copy_from_slice(block);
        }
        journal[..1024].copy_from_slice(&self.superblock(len, start));
        journal
    }

    /// Returns a disk that consists of the journal, and the map of the journal.
    pub(super) fn disk(&self) -> (Vec<u8>, FileMap) {
        let disk = self.journal(64, 50);
        let file = whole_disk(&disk);
        (disk, file)
    }

    /// Reads the journal.
    pub(super) fn load(&self) -> Result<Journal, Error> {
        load_all(&self.disk().0, self.block_size)
    }

    /// Returns the superblock of a journal of `len` blocks whose log starts at block `start`.
    pub(super) fn superblock(&self, len: usize, start: usize) -> Vec<u8> {
        let mut block = vec![0; 1024];
        let compat = u32::from(self.checksums == Checksums::V1);
        let checksums = match self.checksums {
            Checksums::None | Checksums::V1 => 0,
            Checksums::V2 => 8,
            Checksums::V3 => 0x10,
        };
        let incompat = self.extra_features | 1 | u32::from(self.is_64bit) << 1 | checksums;
        let fields = [4, 0, self.block_size as u32, len as u32, 1, self.first_sequence, start as u32, 0];
        block[..4].copy_from_slice(&MAGIC);
        for (at, field) in fields.into_iter().chain([compat, incompat]).enumerate() {
            put_u32(&mut block, 4 + at * 4, field);
        }
        block[0x30..0x40].copy_from_slice(&self.uuid);
        put_u32(&mut block, 0x40, 1);
        update_checksum(&mut block);
        block
    }

    /// Adds a revoke block.
    fn revoke(&mut self, revokes: &[u64]) {
        let mut block = self.header(5);
        let mut at = 16;
        for revoke in revokes {
            let record = revoke.to_be_bytes();
            let record = &record[if self.is_64bit { 0 } else { 4 }..];
            block[at..at + record.len()].copy_from_slice(record);
            at += record.len();
        }
        put_u32(&mut block, 12, at as u32);
        self.push_with_tail(block);
    }

    /// Adds a descriptor block and the copies that it describes.
    fn descriptor(&mut self, copies: &[(u64, Vec<u8>)]) {
        let mut block = self.header(1);
        let mut escaped_copies = Vec::new();
        let mut at = 12;
        for (index, (number, copy)) in copies.iter().enumerate() {
            let mut copy = copy.clone();
            let escaped = copy.starts_with(&MAGIC);
            if escaped {
                copy[..4].fill(0);
            }
            let flags =
                u16::from(escaped) | if index == 0 { 0 } else { 2 } | if index + 1 == copies.len() { 8 } else { 0 };
            let checksum = crc32c(&[&self.uuid, &self.sequence.to_be_bytes(), &copy]);
            put_u32(&mut block, at, *number as u32);
            block[at + 6..at + 8].copy_from_slice(&flags.to_be_bytes());
            if self.is_64bit {
                put_u32(&mut block, at + 8, (number >> 32) as u32);
            }
            match self.checksums {
                Checksums::V2 => block[at + 4..at + 6].copy_from_slice(&(checksum as u16).to_be_bytes()),
                Checksums::V3 => put_u32(&mut block, at + 12, checksum),
                _ => {}
            }
            at += self.tag_len();
            if index == 0 {
                block[at..at + 16].copy_from_slice(&self.uuid);
                at += 16;
            }
            escaped_copies.push(copy);
        }
        self.push_with_tail(block);
        self.blocks.extend(escaped_copies);
    }

    fn tag_len(&self) -> usize {
        match (self.checksums, self.is_64bit) {
            (Checksums::V3, _) => 16,
            (Checksums::V2, true) => 14,
            (Checksums::V2, false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        }
    }

    fn header(&self, block_type: u32) -> Vec<u8> {
        let mut block = vec![0; self.block_size];
        block[..4].copy_from_slice(&MAGIC);
        put_u32(&mut block, 4, block_type);
        put_u32(&mut block, 8, self.sequence);
        block
    }

    /// Adds a descriptor or revoke block, with a checksum at its end if the format has one.
    fn push_with_tail(&mut self, mut block: Vec<u8>) {
        if matches!(self.checksums, Checksums::V2 | Checksums::V3) {
            let checksum = crc32c(&[&self.uuid, &block]);
            put_u32(&mut block, self.block_size - 4, checksum);
        }
        self.blocks.push(block);
    }
}

/// Reads a journal; `file` maps it to the disk.
pub(super) fn load(disk: &Arc<dyn BlockDevice>, file: &FileMap, block_size: usize) -> Result<Journal, Error> {
    // The future must be `Send`.
    let loading: Pin<Box<dyn Future<Output = _> + Send>> =
        Box::pin(async move { Journal::read(file, disk, block_size as u32, &DiskMemory::unlimited()).await });
    block_on(loading)
}

/// Reads a journal that occupies a whole disk.
pub(super) fn load_all(disk: &[u8], block_size: usize) -> Result<Journal, Error> {
    let disk: Arc<dyn BlockDevice> = Arc::new(disk.to_vec());
    load(&disk, &whole_disk(&*disk), block_size)
}

/// Maps a file to a whole disk.
pub(super) fn whole_disk(disk: &dyn BlockDevice) -> FileMap {
    let extent = Extent { file_offset: 0, len: disk.size(), disk_offset: 0 };
    FileMap { size: disk.size(), extents: vec![extent], ..FileMap::default() }
}

/// Updates the checksum of a superblock, if its format has one.
pub(super) fn update_checksum(block: &mut [u8]) {
    if block[0x2b] & 0x18 != 0 {
        block[0x50] = 4;
        put_u32(block, 0xfc, 0);
        let checksum = crc32c(&[block]);
        put_u32(block, 0xfc, checksum);
    }
}

/// Writes a big-endian integer.
pub(super) fn put_u32(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Linux's `crc32c_le` with the initial value `!0`.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let crc = Crc::<u32>::new(&Algorithm { xorout: 0, ..CRC_32_ISCSI });
    let mut checksum = crc.digest();
    parts.iter().for_each(|part| checksum.update(part));
    checksum.finalize()
}

/// Linux's `crc32_be` with the initial value `!0`.
fn crc32_be(blocks: &[Vec<u8>]) -> u32 {
    let crc = Crc::<u32>::new(&CRC_32_MPEG_2);
    let mut checksum = crc.digest();
    blocks.iter().for_each(|block| checksum.update(block));
    checksum.finalize()
}
