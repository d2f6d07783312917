//! Inodes (Linux, `Documentation/filesystems/ext4/inodes.rst`).

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::checksum::Checksum;
use crate::fs::{
    Error, FileIdentity, FileType,
    bytes::{array_at, le},
};

/// The size of an inode of the first revision in bytes (`EXT4_GOOD_OLD_INODE_SIZE`).
const GOOD_OLD_SIZE: usize = 128;

// Flags (`i_flags`).
const ENCRYPT: u32 = 0x800;
const INDEX: u32 = 0x1000;
pub(super) const EXTENTS: u32 = 0x8_0000;
const INLINE_DATA: u32 = 0x1000_0000;
const CASEFOLD: u32 = 0x4000_0000;

/// The fields of an inode that the driver uses.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) file_type: FileType,
    /// The size of the content in bytes.
    pub(super) size: u64,
    pub(super) flags: u32,
    /// `i_block`: the map of the content, or the content itself if it is short.
    pub(super) block: [u8; 60],
    /// The extended attributes that are stored in the inode.
    pub(super) xattrs: Vec<u8>,
    /// See [`FileMap::identity`](crate::fs::FileMap::identity).
    pub(super) identity: FileIdentity,
    /// The seed of the checksums of the inode's blocks (`i_csum_seed`).
    pub(super) checksum_seed: Checksum,
}

impl Inode {
    /// Parses and verifies an inode; `checksum_seed` is the file system's.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if the inode was deleted.
    pub(super) fn parse(number: u32, bytes: &[u8], checksum_seed: Checksum) -> Result<Self, Error> {
        let extra_size = if bytes.len() > GOOD_OLD_SIZE { usize::from(le::u16_at(bytes, 0x80)) } else { 0 };
        let fields_len = GOOD_OLD_SIZE + extra_size;
        if fields_len > bytes.len() {
            return Err(corrupt(number, format!("invalid size of {fields_len} bytes")));
        }
        let generation = le::u32_at(bytes, 0x64);
        let checksum_seed = checksum_seed.update(&number.to_le_bytes()).update(&generation.to_le_bytes());
        verify(number, bytes, fields_len, checksum_seed)?;
        // `i_dtime` does not show a deletion: it links the list of orphan inodes while a file is truncated.
        let links_count = le::u16_at(bytes, 0x1a);
        if links_count == 0 {
            return Err(corrupt(number, "has a name, but was deleted"));
        }
        let flags = le::u32_at(bytes, 0x20);
        // The upper halves of times and version are zero in an inode without the extra fields.
        let fields = bytes.get(..fields_len).unwrap_or_default();
        let identity = FileIdentity {
            node: number.into(),
            generation: generation.into(),
            times: [le::split_u64_at(fields, 0x0c, 0x84), le::split_u64_at(fields, 0x10, 0x88)],
            version: le::split_u64_at(fields, 0x24, 0x98),
            flags,
            ..FileIdentity::default()
        };
        Ok(Self {
            number,
            file_type: FileType::from_mode(le::u16_at(bytes, 0)),
            size: le::split_u64_at(bytes, 0x04, 0x6c),
            flags,
            block: array_at(bytes, 0x28),
            xattrs: bytes.get(fields_len..).unwrap_or_default().to_vec(),
            identity,
            checksum_seed,
        })
    }

    /// Returns whether the map of the content is an extent tree.
    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// Returns whether the content is stored in the inode.
    pub(super) fn has_inline_data(&self) -> bool {
        self.flags & INLINE_DATA != 0
    }

    /// Returns whether this is a directory with a hash index.
    pub(super) fn is_indexed(&self) -> bool {
        self.flags & INDEX != 0
    }

    /// Returns whether this is a case-insensitive directory.
    pub(super) fn is_casefolded(&self) -> bool {
        self.flags & CASEFOLD != 0
    }

    /// Returns the modification time.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        let [_, modified] = self.identity.times;
        time(modified)
    }

    /// Rejects encrypted content.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub(super) fn check_readable(&self) -> Result<(), Error> {
        if self.flags & ENCRYPT == 0 { Ok(()) } else { Err(unsupported(self.number, "encrypted")) }
    }
}

/// Returns a time: from the lowest bit, 32 bits of seconds with a sign, two higher bits of them, and nanoseconds.
fn time(stored: u64) -> Option<SystemTime> {
    let (low, extra) = (stored as u32, (stored >> 32) as u32);
    let seconds = i64::from(low.cast_signed()) + (i64::from(extra & 3) << 32);
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    whole?.checked_add(Duration::from_nanos((extra >> 2).into()))
}

/// Creates an [`Error::Unsupported`] for an inode.
pub(super) fn unsupported(number: u32, what: impl Into<Cow<'static, str>>) -> Error {
    Error::unsupported(("inode", number), what)
}

/// Creates an [`Error::Corrupt`] for an inode.
pub(super) fn corrupt(number: u32, what: impl Into<Cow<'static, str>>) -> Error {
    Error::corrupt(("inode", number), what)
}

/// Verifies the checksum of an inode whose first `fields_len` bytes are fields. Its upper half is one of the extra fields.
fn verify(number: u32, bytes: &[u8], fields_len: usize, checksum_seed: Checksum) -> Result<(), Error> {
    const CHECKSUM_LOW: usize = 0x7c;
    const CHECKSUM_HIGH: usize = 0x82;
    let has_high = fields_len >= CHECKSUM_HIGH + 2;
    let mut summed = bytes.to_vec();
    for at in [Some(CHECKSUM_LOW), has_high.then_some(CHECKSUM_HIGH)].into_iter().flatten() {
        summed.iter_mut().skip(at).take(2).for_each(|byte| *byte = 0);
    }
    let (checksum, object) = (checksum_seed.update(&summed), ("inode", number));
    let low = le::u16_at(bytes, CHECKSUM_LOW);
    match has_high {
        true => checksum.verify(u32::from(le::u16_at(bytes, CHECKSUM_HIGH)) << 16 | u32::from(low), object),
        false => checksum.verify_low(low, object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_34_bits_of_seconds() {
        let after = |seconds, nanos| UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        for (low, extra, expected) in [
            (0x1234_5678, 0, after(0x1234_5678, 0)),
            (5, 7 << 2, after(5, 7)),
            (u32::MAX, 0, UNIX_EPOCH.checked_sub(Duration::from_secs(1))),
            (0x8000_0000, 1, after(1 << 31, 0)),
            (
                u32::MAX,
                3 | u32::MAX << 2,
                after((3 << 32) - 1, 0).map(|time| time + Duration::from_nanos((1 << 30) - 1)),
            ),
        ] {
            assert_eq!(time(u64::from(extra) << 32 | u64::from(low)), expected, "{low:x} {extra:x}");
        }
    }
}
