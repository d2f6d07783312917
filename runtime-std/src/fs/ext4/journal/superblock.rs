//! The first block of a journal: what it is, and where its log begins.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
};

use super::{
    blocks::MAGIC,
    checksum::{Checksums, agrees},
};
use crate::fs::{BlockDevice, Error, FileMap, bytes::be};

/// How long a block can be, in bytes.
const SIZES: RangeInclusive<u32> = 1024..=65_536;
/// How long it is, in bytes.
const LEN: usize = 1024;
/// Where it has its sum, in bytes.
const SUM: usize = 0xfc;

const COMPAT_CHECKSUM: u32 = 1;
const REVOKE: u32 = 1;
const WIDE: u32 = 2;
const ASYNC_COMMIT: u32 = 4;
const CSUM_V2: u32 = 8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
const KNOWN: u32 = REVOKE | WIDE | ASYNC_COMMIT | CSUM_V2 | CSUM_V3 | FAST_COMMIT;

/// How many blocks are set aside for fast commits if it is not said.
const FAST_BLOCKS: u32 = 256;
/// How many blocks a log has at least when some are set aside.
const LEAST: u32 = 1024;

/// What a journal says of itself. Its error number (`s_errno`) is of no interest: it tells that the owner gave up at some time, not
/// that what was committed before is wrong, and the kernel replays the log all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// How long a block is, in bytes.
    pub(super) block_size: u32,
    /// The blocks that the log goes round in.
    pub(super) ring: Range<u32>,
    /// Where the oldest transaction begins that is not all in its place, if there is one.
    pub(super) start: Option<u32>,
    /// The number of that transaction.
    pub(super) sequence: u32,
    /// Whether block numbers have 64 bits.
    pub(super) wide: bool,
    /// What protects the log.
    pub(super) checksums: Checksums,
    /// The first block for fast commits.
    pub(super) fast_commits: Option<u32>,
}

impl Superblock {
    /// Reads it; `block_size` is the file system's.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn read(log: &FileMap, disk: &dyn BlockDevice, block_size: u32) -> Result<Self, Error> {
        let bytes = log.read(disk, 0, LEN).await?;
        let blocks = log.size / u64::from(block_size.max(1));
        Self::parse(&bytes, block_size, blocks)
    }

    /// Reads it from its bytes; `blocks` is how many the journal's file has.
    fn parse(bytes: &[u8], block_size: u32, blocks: u64) -> Result<Self, Error> {
        if bytes.len() < LEN {
            return Err(corrupt("too short"));
        }
        let field = |at| be::u32_at(bytes, at);
        let old = match (field(0), field(4)) {
            (MAGIC, 3) => true,
            (MAGIC, 4) => false,
            _ => return Err(corrupt("not the superblock of a journal")),
        };
        let found = field(0xc);
        if found != block_size || !found.is_power_of_two() || !SIZES.contains(&found) {
            return Err(corrupt(format!("block size {found}, but {block_size} in its file system")));
        }
        // The first version has no features; what follows in its block means nothing.
        let [compatible, incompatible, read_only] = if old { [0; 3] } else { [field(0x24), field(0x28), field(0x2c)] };
        for (kind, unknown) in [("incompatible", incompatible & !KNOWN), ("read-only", read_only)] {
            if unknown != 0 {
                return Err(Error::unsupported("journal", format!("unknown {kind} features {unknown:#x}")));
            }
        }
        let checksums = checksums(bytes, compatible, incompatible)?;

        let last = field(0x10);
        if u64::from(last) > blocks {
            return Err(corrupt(format!("{last} blocks, but only {blocks} in its file")));
        }
        let (end, fast_commits) =
            if incompatible & FAST_COMMIT == 0 { (last, None) } else { fast_area(last, field(0x54)) };
        let (first, start, sequence) = (field(0x14), field(0x1c), field(0x18));
        let ring = first..end;
        if first == 0 || ring.is_empty() || (start != 0 && !ring.contains(&start)) {
            return Err(corrupt(format!("log of blocks {first} to {end} starts at block {start}")));
        }
        Ok(Self {
            block_size,
            ring,
            start: (start != 0).then_some(start),
            sequence,
            wide: incompatible & WIDE != 0,
            checksums,
            fast_commits,
        })
    }
}

/// What protects the log. The sums begin with the UUID in this block: it is the file system's at first, but stays as it is when the
/// file system is given another.
fn checksums(bytes: &[u8], compatible: u32, incompatible: u32) -> Result<Checksums, Error> {
    const CRC32C: u8 = 4;
    let uuid = || bytes.get(0x30..).and_then(<[u8]>::first_chunk).copied().ok_or_else(|| corrupt("too short"));
    let checksums = match (compatible & COMPAT_CHECKSUM != 0, incompatible & (CSUM_V2 | CSUM_V3)) {
        (false, 0) => return Ok(Checksums::None),
        (true, 0) => return Ok(Checksums::V1),
        (false, CSUM_V2) => Checksums::V2(uuid()?),
        (false, CSUM_V3) => Checksums::V3(uuid()?),
        _ => return Err(corrupt("conflicting types of checksums")),
    };
    match bytes.get(0x50) {
        Some(&CRC32C) if agrees(&[], bytes, SUM) => Ok(checksums),
        Some(&CRC32C) => Err(corrupt("checksum mismatch")),
        other => Err(Error::unsupported("journal", format!("unknown type of checksums {other:?}"))),
    }
}

/// Where the log ends and the area for fast commits begins if a journal of `last` blocks has set `reserved` aside. One block between
/// them is not used, and where the log would become too small nothing is set aside, as in the kernel.
fn fast_area(last: u32, reserved: u32) -> (u32, Option<u32>) {
    let reserved = if reserved == 0 { FAST_BLOCKS } else { reserved };
    match last.checked_sub(reserved) {
        Some(end) if end >= LEAST => (end, end.checked_add(1).filter(|first| *first < last)),
        _ => (last, None),
    }
}

fn corrupt(what: impl Into<Cow<'static, str>>) -> Error {
    Error::corrupt("journal superblock", what)
}
