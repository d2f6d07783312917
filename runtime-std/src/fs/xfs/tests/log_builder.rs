//! Images whose log contains changes, and more that tests add.

use super::super::log::testing::{crc_of_record, end_of_log};
use crate::fs::testing::sparse_image;

/// The types of items that say that the change of a map starts, and that it is done.
pub(super) const BUI: u16 = 0x1244;
pub(super) const BUD: u16 = 0x1245;

const BLOCK: usize = 512;
const MAGIC: [u8; 4] = 0xfeed_babe_u32.to_be_bytes();

/// An image of a file system that was not unmounted.
#[derive(Debug)]
pub(super) struct DirtyImage {
    pub(super) bytes: Vec<u8>,
    /// The offset and the length of the log in bytes.
    log: (usize, usize),
}

/// The offsets of a record and of its data, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    start: usize,
    pub(super) data: usize,
    len: usize,
}

impl DirtyImage {
    /// Expands an image of `fuzz/images`.
    pub(super) fn new(packed: &[u8]) -> Self {
        let bytes = sparse_image::expand(packed);
        let field =
            |at: usize, len: usize| bytes[at..at + len].iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
        let (block_size, start, group_blocks, log_blocks) = (field(4, 4), field(48, 8), field(84, 4), field(96, 4));
        let group_log = field(124, 1);
        let start = (start >> group_log) * group_blocks + (start & ((1 << group_log) - 1));
        Self { log: (start * block_size, log_blocks * block_size), bytes }
    }

    /// Returns the records with data from the oldest to the newest, except those that continue at the start of the log.
    pub(super) fn records(&self) -> Vec<Record> {
        let (start, len) = self.log;
        let blocks = (start..start + len).step_by(BLOCK);
        let mut records: Vec<(u64, Record)> = blocks
            .filter(|at| self.bytes[*at..].starts_with(&MAGIC))
            .map(|at| {
                let len = u32::from_be_bytes(self.bytes[at + 12..at + 16].try_into().expect("four bytes")) as usize;
                let lsn = u64::from_be_bytes(self.bytes[at + 16..at + 24].try_into().expect("eight bytes"));
                (lsn, Record { start: at, data: at + BLOCK, len })
            })
            .filter(|(_, record)| record.data + record.len.next_multiple_of(BLOCK) <= start + len)
            .collect();
        records.sort_by_key(|(lsn, _)| *lsn);
        records.into_iter().map(|(_, record)| record).collect()
    }

    /// Appends a record with a transaction of one item.
    pub(super) fn append(&mut self, regions: &[&[u8]]) {
        let (cycle, block) = end_of_log(&self.bytes);
        let previous = *self.records().last().expect("a record");
        let mut header = self.bytes[previous.start..previous.start + BLOCK].to_vec();
        let transaction = [&b"NART"[..], &[0; 12]].concat();
        let mut operations = vec![(1, &[][..]), (0, &transaction)];
        operations.extend(regions.iter().map(|region| (0, *region)));
        operations.push((2, &[]));
        let mut data = Vec::new();
        for (flags, region) in &operations {
            data.extend(9999u32.to_be_bytes());
            data.extend((region.len() as u32).to_be_bytes());
            data.extend([0x69, *flags, 0, 0]);
            data.extend_from_slice(region);
        }
        data.resize(data.len().next_multiple_of(BLOCK), 0);
        let mut set = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
        set(4, &cycle.to_be_bytes());
        set(12, &(data.len() as u32).to_be_bytes());
        set(16, &(u64::from(cycle) << 32 | u64::from(block)).to_be_bytes());
        set(40, &(operations.len() as u32).to_be_bytes());
        for (number, block) in data.chunks_mut(BLOCK).enumerate() {
            set(44 + 4 * number, &block[..4]);
            block[..4].copy_from_slice(&cycle.to_be_bytes());
        }
        let crc = crc_of_record(&header, &data);
        header[32..36].copy_from_slice(&crc.to_le_bytes());
        let at = self.log.0 + block as usize * BLOCK;
        self.bytes[at..at + BLOCK].copy_from_slice(&header);
        self.bytes[at + BLOCK..at + BLOCK + data.len()].copy_from_slice(&data);
    }

    /// Adds the checksums of the records that mutations change.
    pub(super) fn with_checksums(&self, mut changed: Vec<(u64, u8)>) -> Vec<(u64, u8)> {
        for record in self.records() {
            let end = record.data + record.len;
            let mut bytes = self.bytes[record.start..end].to_vec();
            let inside = changed.iter().filter(|(at, _)| (record.start as u64..end as u64).contains(at));
            let inside: Vec<_> = inside.map(|(at, byte)| (*at as usize - record.start, *byte)).collect();
            if inside.is_empty() {
                continue;
            }
            inside.iter().for_each(|(at, byte)| bytes[*at] = *byte);
            let crc = crc_of_record(&bytes[..BLOCK], &bytes[BLOCK..]);
            changed.extend((record.start as u64 + 32..).zip(crc.to_le_bytes()));
        }
        changed
    }
}
