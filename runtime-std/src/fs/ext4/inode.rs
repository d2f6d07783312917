//! Inodes: what a file is, apart from its names and its bytes.

use std::borrow::Cow;

use super::{
    super::{
        Error, FileIdentity, FileType,
        bytes::{array_at, le},
    },
    checksum::Seed,
};

/// How long an inode is without the fields that came later, in bytes.
const OLD: usize = 128;

const ENCRYPTED: u32 = 0x800;
const INDEXED: u32 = 0x1000;
/// The flag of an inode whose map is a tree of extents.
pub(super) const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
const CASEFOLDED: u32 = 0x4000_0000;

/// An inode, as far as reading needs it. See Linux, `Documentation/filesystems/ext4/inodes.rst`.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) file_type: FileType,
    /// How long its content is, in bytes.
    pub(super) size: u64,
    pub(super) flags: u32,
    /// Where its content is, or the content itself if it is short.
    pub(super) block: [u8; 60],
    /// The attributes that are in the inode.
    pub(super) attributes: Vec<u8>,
    /// See [`FileMap::identity`](super::super::FileMap::identity).
    pub(super) identity: FileIdentity,
    /// What the checksums of its blocks begin with.
    pub(super) seed: Seed,
}

impl Inode {
    /// Reads an inode in use; `seed` is what the checksums of the file system begin with.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] also if no name may lead to it any more.
    pub(super) fn parse(number: u32, bytes: &[u8], seed: Seed) -> Result<Self, Error> {
        let extra = if bytes.len() > OLD { usize::from(le::u16_at(bytes, 0x80)) } else { 0 };
        let used = OLD + extra;
        if used > bytes.len() {
            return Err(corrupt(number, format!("invalid size of {used} bytes")));
        }
        let generation = le::u32_at(bytes, 0x64);
        let seed = seed.and(&number.to_le_bytes()).and(&generation.to_le_bytes());
        verify(number, bytes, used, seed)?;
        // The time of the deletion says nothing: while files are shortened, it is the number of another inode.
        if le::u16_at(bytes, 0x1a) == 0 {
            return Err(corrupt(number, "has a name, but was deleted"));
        }
        let flags = le::u32_at(bytes, 0x20);
        // Upper halves and later fields; an old inode does not have them.
        let new = bytes.get(..used).unwrap_or_default();
        let identity = FileIdentity {
            node: number.into(),
            generation: generation.into(),
            times: [le::split_u64_at(new, 0x0c, 0x84), le::split_u64_at(new, 0x10, 0x88)],
            version: le::split_u64_at(new, 0x24, 0x98),
            flags,
            ..FileIdentity::default()
        };
        Ok(Self {
            number,
            file_type: file_type(le::u16_at(bytes, 0)),
            size: le::split_u64_at(bytes, 0x04, 0x6c),
            flags,
            block: array_at(bytes, 0x28),
            attributes: bytes.get(used..).unwrap_or_default().to_vec(),
            identity,
            seed,
        })
    }

    /// Whether its map is a tree of extents, not of blocks.
    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// Whether its content is in the inode itself.
    pub(super) fn is_inline(&self) -> bool {
        self.flags & INLINE != 0
    }

    /// Whether it is a directory with an index.
    pub(super) fn is_indexed(&self) -> bool {
        self.flags & INDEXED != 0
    }

    /// Whether it is a directory that takes large and small letters for the same.
    pub(super) fn is_casefolded(&self) -> bool {
        self.flags & CASEFOLDED != 0
    }

    /// Refuses content that is not what it looks like.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub(super) fn check_readable(&self) -> Result<(), Error> {
        if self.flags & ENCRYPTED == 0 { Ok(()) } else { Err(unsupported(self.number, "encrypted")) }
    }
}

/// The error for an inode that is not of a kind which is read here.
pub(super) fn unsupported(number: u32, what: impl Into<Cow<'static, str>>) -> Error {
    Error::unsupported(("inode", number), what)
}

/// The error for an inode that contradicts itself.
pub(super) fn corrupt(number: u32, what: impl Into<Cow<'static, str>>) -> Error {
    Error::corrupt(("inode", number), what)
}

/// Compares an inode, of which `used` bytes are fields, with its checksum.
fn verify(number: u32, bytes: &[u8], used: usize, seed: Seed) -> Result<(), Error> {
    const LOW: usize = 0x7c;
    const HIGH: usize = 0x82;
    let has_high = used >= HIGH + 2;
    let mut summed = bytes.to_vec();
    for at in [Some(LOW), has_high.then_some(HIGH)].into_iter().flatten() {
        summed.iter_mut().skip(at).take(2).for_each(|byte| *byte = 0);
    }
    let (sum, what) = (seed.and(&summed), ("inode", number));
    match has_high {
        true => sum.verify(u32::from(le::u16_at(bytes, HIGH)) << 16 | u32::from(le::u16_at(bytes, LOW)), what),
        false => sum.verify_half(le::u16_at(bytes, LOW), what),
    }
}

/// What the mode of an inode says that it is.
fn file_type(mode: u16) -> FileType {
    match mode & 0xf000 {
        0x8000 => FileType::File,
        0x4000 => FileType::Directory,
        0xa000 => FileType::Link,
        _ => FileType::Other,
    }
}
