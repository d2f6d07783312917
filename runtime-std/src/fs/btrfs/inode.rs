//! Inodes (Linux, `struct btrfs_inode_item`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fs::{Error, FileIdentity, FileType, bytes::le};

/// The size of an inode item in bytes.
pub(super) const LEN: usize = 160;
/// The offsets of fields.
pub(super) const GENERATION: usize = 0;
pub(super) const SIZE: usize = 16;
const LINKS: usize = 40;
const MODE: usize = 52;
/// The flag of a file without checksums of its contents (`BTRFS_INODE_NODATASUM`).
const NO_CHECKSUMS: u32 = 1;

/// The fields of an inode that the driver uses.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) file_type: FileType,
    /// The size of the content in bytes.
    pub(super) size: u64,
    /// The number of the commit that created it; 0 in the log if it was only changed in name.
    pub(super) generation: u64,
    pub(super) links: u32,
    /// See [`FileMap::identity`](crate::fs::FileMap::identity).
    pub(super) identity: FileIdentity,
    /// The modification time.
    pub(super) modified: Option<SystemTime>,
}

impl Inode {
    /// Parses an inode item. The file system and the subvolume become part of the identity.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    pub(super) fn parse(item: &[u8], number: u64, file_system: [u8; 16], subvolume: u64) -> Result<Self, Error> {
        if item.len() != LEN {
            return Err(corrupt(number, "invalid size"));
        }
        let mode = le::u32_at(item, MODE);
        let generation = le::u64_at(item, GENERATION);
        let (seconds, nanos) = (le::u64_at(item, 136), le::u32_at(item, 144));
        let whole = Duration::from_secs(seconds.cast_signed().unsigned_abs());
        let base = match seconds.cast_signed() < 0 {
            true => UNIX_EPOCH.checked_sub(whole),
            false => UNIX_EPOCH.checked_add(whole),
        };
        let file_system = u128::from_le_bytes(file_system) ^ u128::from(subvolume);
        Ok(Self {
            number,
            file_type: FileType::from_mode(mode as u16),
            size: le::u64_at(item, SIZE),
            generation,
            links: le::u32_at(item, LINKS),
            identity: FileIdentity {
                file_system: file_system.to_le_bytes(),
                node: number,
                generation,
                times: [packed(le::u64_at(item, 124), le::u32_at(item, 132)), packed(seconds, nanos)],
                // The number of the last commit that changed it.
                version: le::u64_at(item, 8),
                flags: le::u64_at(item, 64) as u32,
            },
            modified: base.and_then(|base| base.checked_add(Duration::from_nanos(nanos.into()))),
        })
    }

    /// Returns whether the contents have checksums.
    pub(super) fn has_checksums(&self) -> bool {
        self.identity.flags & NO_CHECKSUMS == 0
    }
}

/// Packs a time into a number that is unique for 500 years.
fn packed(seconds: u64, nanos: u32) -> u64 {
    seconds << 30 | u64::from(nanos)
}

pub(super) fn corrupt(number: u64, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::corrupt(("inode", number), what)
}

pub(super) fn unsupported(number: u64, what: &'static str) -> Error {
    Error::unsupported(("inode", number), what)
}
