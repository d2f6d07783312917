//! Inodes (Linux, `struct xfs_dinode`).

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    block_reader::BlockReader,
    checksum,
    inode_layout::{MAGIC, data_fork},
};
use crate::fs::{Error, FileIdentity, FileType, bytes::be};

/// The offset of the checksum in version 3.
const CRC: usize = 100;

/// The flag of `di_flags` for files on the realtime device.
const REALTIME: u16 = 1 << 0;
/// The flags of `di_flags2` for times and numbers of extents with more bits.
const BIGTIME: u64 = 1 << 3;
const NREXT64: u64 = 1 << 4;

/// The form of the data fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The content.
    Local,
    /// A list of extents.
    Extents,
    /// The root of a B+tree of extents.
    BTree,
    /// A device number, or unknown.
    Other,
}

/// The fields of an inode that the driver uses.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) file_type: FileType,
    /// The size of the content in bytes.
    pub(super) size: u64,
    pub(super) format: Format,
    /// The number of extents in the data fork.
    pub(super) extent_count: u64,
    pub(super) data_fork: Vec<u8>,
    /// See [`FileMap::identity`](crate::fs::FileMap::identity).
    pub(super) identity: FileIdentity,
    /// The modification time.
    pub(super) modified: Option<SystemTime>,
    is_realtime: bool,
}

impl Inode {
    /// Reads and verifies an inode.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if there is no inode with this number, or it was deleted; [`Error::TooMuchWork`],
    /// [`Error::OutOfMemory`], [`Error::Io`].
    pub(super) async fn read(blocks: &BlockReader, number: u64) -> Result<Self, Error> {
        let superblock = &blocks.superblock;
        let offset = superblock.inode_offset(number).ok_or_else(|| corrupt(number, "outside of the file system"))?;
        let inode = blocks.read_inode(offset).await?;
        let bytes = inode.bytes;
        let version = bytes.get(4).copied().unwrap_or(0);
        let is_v3 = version == 3;
        if !bytes.starts_with(&MAGIC) || is_v3 != superblock.features.is_v5 || !(1..=3).contains(&version) {
            return Err(corrupt(number, "has a name, but does not exist"));
        }
        if is_v3 {
            if !inode.is_changed {
                checksum::verify(&bytes, CRC, ("inode", number))?;
            }
            if be::u64_at(&bytes, 152) != number {
                return Err(corrupt(number, "contains another inode"));
            }
        }
        let links = if version == 1 { be::u16_at(&bytes, 6).into() } else { be::u32_at(&bytes, 16) };
        let mode = be::u16_at(&bytes, 2);
        if mode == 0 || links == 0 {
            return Err(corrupt(number, "has a name, but was deleted"));
        }
        let flags = be::u16_at(&bytes, 90);
        let flags2 = if is_v3 { be::u64_at(&bytes, 120) } else { 0 };
        let identity = FileIdentity {
            file_system: superblock.uuid,
            node: number,
            generation: be::u32_at(&bytes, 92).into(),
            times: [be::u64_at(&bytes, 48), be::u64_at(&bytes, 40)],
            version: if is_v3 { be::u64_at(&bytes, 104) } else { 0 },
            flags: flags.into(),
        };
        Ok(Self {
            number,
            file_type: FileType::from_mode(mode),
            size: be::u64_at(&bytes, 56),
            format: match bytes.get(5) {
                Some(1) => Format::Local,
                Some(2) => Format::Extents,
                Some(3) => Format::BTree,
                _ => Format::Other,
            },
            extent_count: if flags2 & NREXT64 != 0 { be::u64_at(&bytes, 24) } else { be::u32_at(&bytes, 76).into() },
            data_fork: bytes.get(data_fork(&bytes)).unwrap_or_default().to_vec(),
            identity,
            modified: time(be::u64_at(&bytes, 40), flags2 & BIGTIME != 0),
            is_realtime: flags & REALTIME != 0,
        })
    }

    /// Rejects content on the realtime device.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub(super) fn check_readable(&self) -> Result<(), Error> {
        if self.is_realtime { Err(unsupported(self.number, "on the realtime device")) } else { Ok(()) }
    }
}

/// Returns a time: seconds with a sign and nanoseconds, or, with `BIGTIME`, nanoseconds since the first of these seconds.
fn time(stored: u64, is_big: bool) -> Option<SystemTime> {
    let (seconds, nanos) = ((stored >> 32) as u32, stored as u32);
    let since_first = match is_big {
        true => Duration::from_nanos(stored),
        false => {
            Duration::from_secs(i64::from(seconds.cast_signed()).abs_diff(i32::MIN.into()))
                + Duration::from_nanos(nanos.into())
        }
    };
    UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 31))?.checked_add(since_first)
}

/// Creates an [`Error::Unsupported`] for an inode.
pub(super) fn unsupported(number: u64, what: impl Into<Cow<'static, str>>) -> Error {
    Error::unsupported(("inode", number), what)
}

/// Creates an [`Error::Corrupt`] for an inode.
pub(super) fn corrupt(number: u64, what: impl Into<Cow<'static, str>>) -> Error {
    Error::corrupt(("inode", number), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_both_forms() {
        let after = |seconds, nanos| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        let second = Duration::from_secs(1);
        assert_eq!(time(784_111_777 << 32 | 5, false), after(784_111_777, 5));
        assert_eq!(time(0xffff_ffff_0000_0000, false), UNIX_EPOCH.checked_sub(second));
        assert_eq!(time(((1 << 31) + 784_111_777) * 1_000_000_000 + 5, true), after(784_111_777, 5));
        assert_eq!(time(((1 << 31) - 1) * 1_000_000_000, true), UNIX_EPOCH.checked_sub(second));
    }
}
