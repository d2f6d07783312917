//! Helpers for tests: the end of a log, and checksums of records.

use std::sync::Arc;

use smol::block_on;

use super::{Changes, Log, head::Head, record, ring::Ring};
use crate::fs::{Error, Volume, xfs::superblock::Superblock};

impl Log {
    /// Returns a log without changes.
    pub(in super::super) fn empty(volume: &Volume) -> Result<Self, Error> {
        let changes = Changes::new(volume.memory().reserve(0)?);
        Ok(Self { changes, newest_lsn: u64::MAX, is_clean: false })
    }
}

/// Returns the cycle and the block of the end of the log of an image.
pub(in super::super) fn end_of_log(image: &[u8]) -> (u32, u32) {
    let volume = Volume::new(Arc::new(image.to_vec()));
    let superblock = block_on(Superblock::read(&volume)).expect("a superblock").expect("XFS");
    let ring = Ring::new(&volume, &superblock).expect("a log");
    let end = block_on(Head::find(&ring, &superblock)).expect("records").end;
    (end.cycle, end.block)
}

/// Returns the checksum of a record with one header block.
pub(in super::super) fn crc_of_record(header: &[u8], data: &[u8]) -> u32 {
    record::checksum([header].into_iter(), data, record::CRC_HEADER_LENS[0])
}
