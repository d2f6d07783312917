//! The superblock: what an ext file system is like as a whole.

use super::{
    super::{
        Error, Volume,
        bytes::{array_at, le},
    },
    checksum::Seed,
    features::{Feature, Features},
};

/// Where it is, in bytes from the start of the volume.
pub(super) const PLACE: u64 = 1024;
/// How long it is, in bytes.
pub(super) const LEN: usize = 1024;

const MAGIC: u16 = 0xef53;
/// The flag of a file system that was unmounted, or never mounted to be written.
const CLEAN: u16 = 1;
/// The only type of checksum there is.
const CRC32C: u8 = 1;

/// A superblock, as far as reading needs it. See Linux, `Documentation/filesystems/ext4/super.rst`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) features: Features,
    /// How long a block is, in bytes: a power of two from 1,024 to 65,536.
    pub(super) block_size: u32,
    /// How many blocks there are.
    pub(super) blocks: u64,
    /// The block that the first group begins with.
    pub(super) first_block: u64,
    pub(super) blocks_per_group: u32,
    /// How many inodes there are; the first is number 1.
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    /// The first inode that is a file of a user.
    pub(super) first_inode: u32,
    /// How long an inode is, in bytes: a power of two from 128 to the size of a block.
    pub(super) inode_size: u32,
    /// How long the description of a group is, in bytes: a power of two from 32 to 1,024.
    pub(super) descriptor_size: u32,
    /// Which part of the descriptions is the first that is not with the others (feature `meta_bg`).
    pub(super) first_meta_bg: u32,
    /// Which groups begin with a copy of the superblock (feature `sparse_super2`).
    pub(super) backup_groups: [u32; 2],
    pub(super) uuid: [u8; 16],
    /// What all checksums begin with.
    pub(super) seed: Seed,
    pub(super) is_clean: bool,
    /// The inode of the journal; 0 if that is on another disk.
    pub(super) journal_inode: u32,
    /// A copy of the map and the size of that inode, if there is one.
    pub(super) journal_copy: Option<[u8; 68]>,
}

impl Superblock {
    /// Reads the one of a volume; `None` if there is something else in its place.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn read(volume: &Volume) -> Result<Option<Self>, Error> {
        if volume.size() < PLACE + LEN as u64 {
            return Ok(None);
        }
        Self::parse(&volume.read(PLACE, LEN).await?)
    }

    /// Reads the 1,024 bytes of it; `None` if they are something else.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        if le::u16_at(bytes, 0x38) != MAGIC {
            return Ok(None);
        }
        let features = Features::parse(bytes);
        let unknown = features.unknown();
        if !unknown.is_empty() {
            return Err(Error::unsupported("superblock", format!("unknown features {}", unknown.join(", "))));
        }
        let uuid = array_at(bytes, 0x68);
        let superblock = Self {
            features,
            block_size: 1024u32.checked_shl(le::u32_at(bytes, 0x18)).unwrap_or(0),
            blocks: le::split_u64_at(bytes, 0x04, if features.has(Feature::SIXTY_FOUR) { 0x150 } else { bytes.len() }),
            first_block: le::u32_at(bytes, 0x14).into(),
            blocks_per_group: le::u32_at(bytes, 0x20),
            inodes: le::u32_at(bytes, 0x00),
            inodes_per_group: le::u32_at(bytes, 0x28),
            // The first revision had no fields for these two.
            first_inode: if le::u32_at(bytes, 0x4c) == 0 { 11 } else { le::u32_at(bytes, 0x54) },
            inode_size: if le::u32_at(bytes, 0x4c) == 0 { 128 } else { le::u16_at(bytes, 0x58).into() },
            descriptor_size: if features.has(Feature::SIXTY_FOUR) { le::u16_at(bytes, 0xfe).into() } else { 32 },
            first_meta_bg: le::u32_at(bytes, 0x104),
            backup_groups: [le::u32_at(bytes, 0x24c), le::u32_at(bytes, 0x250)],
            uuid,
            seed: seed(features, bytes, &uuid)?,
            is_clean: le::u16_at(bytes, 0x3a) & CLEAN != 0,
            journal_inode: le::u32_at(bytes, 0xe0),
            journal_copy: Some(array_at(bytes, 0x10c)).filter(|copy| bytes.get(0xfd) == Some(&1) && *copy != [0; 68]),
        };
        superblock.check()?;
        Ok(Some(superblock))
    }

    /// Whether the file system is mounted read-write somewhere, or was not unmounted.
    pub(super) fn is_in_use(&self) -> bool {
        self.features.has(Feature::NEEDS_RECOVERY) || !self.features.has(Feature::HAS_JOURNAL) && !self.is_clean
    }

    /// How many bytes all blocks have.
    pub(super) fn len(&self) -> Result<u64, Error> {
        self.blocks.checked_mul(self.block_size.into()).ok_or_else(|| corrupt("size in blocks", self.blocks))
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> u64 {
        self.blocks.saturating_sub(self.first_block).div_ceil(self.blocks_per_group.max(1).into())
    }

    /// Whether a group begins with a copy of the superblock.
    pub(super) fn has_superblock(&self, group: u64) -> bool {
        match group {
            0 => true,
            _ if self.features.has(Feature::SPARSE_SUPER2) => {
                self.backup_groups.iter().any(|&at| u64::from(at) == group)
            }
            1 => true,
            _ if !self.features.has(Feature::SPARSE_SUPER) => true,
            _ => [3, 5, 7].iter().any(|base| is_power(group, *base)),
        }
    }

    /// Refuses what reading could not cope with.
    fn check(&self) -> Result<(), Error> {
        if !(1024..=65536).contains(&self.block_size) {
            return Err(corrupt("block size", self.block_size));
        }
        if !self.inode_size.is_power_of_two() || !(128..=self.block_size).contains(&self.inode_size) {
            return Err(corrupt("inode size", self.inode_size));
        }
        if !self.descriptor_size.is_power_of_two() || !(32..=1024).contains(&self.descriptor_size) {
            return Err(corrupt("size of group descriptors", self.descriptor_size));
        }
        if self.blocks <= self.first_block {
            return Err(corrupt("number of blocks", self.blocks));
        }
        if self.blocks_per_group == 0 || self.inodes_per_group == 0 {
            return Err(corrupt("group size", 0));
        }
        Ok(())
    }
}

/// What the checksums begin with, after that of the superblock itself was verified.
fn seed(features: Features, bytes: &[u8], uuid: &[u8; 16]) -> Result<Seed, Error> {
    if !features.has(Feature::METADATA_CHECKSUM) {
        return Ok(Seed::NONE);
    }
    match bytes.get(0x175) {
        Some(&CRC32C) => {}
        other => return Err(Error::unsupported("superblock", format!("unknown type of checksums {other:?}"))),
    }
    let (summed, sum) = bytes.split_at_checked(0x3fc).unwrap_or_default();
    Seed::NEW.and(summed).verify(le::u32_at(sum, 0), "superblock")?;
    Ok(if features.has(Feature::CHECKSUM_SEED) { Seed::kept(le::u32_at(bytes, 0x270)) } else { Seed::NEW.and(uuid) })
}

/// Whether a number is a power of another.
fn is_power(mut number: u64, base: u64) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

fn corrupt(what: &str, value: impl std::fmt::Display) -> Error {
    Error::corrupt("superblock", format!("invalid {what} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superblock of ext2 with 1,024 blocks of 1,024 bytes, and some fields changed.
    fn parse(changed: &[(usize, u32)]) -> Result<Option<Superblock>, Error> {
        let mut bytes = vec![0; LEN];
        let usual = [(0x00, 128), (0x04, 1024), (0x14, 1), (0x20, 8192), (0x28, 128), (0x38, 0x0001_ef53)];
        for (at, value) in usual.iter().chain(changed) {
            bytes[*at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        Superblock::parse(&bytes)
    }

    #[test]
    fn the_first_revision_is_read() {
        let superblock = parse(&[]).expect("valid").expect("the magic is there");
        assert_eq!((superblock.inode_size, superblock.first_inode, superblock.groups()), (128, 11, 1));
        assert_eq!((superblock.block_size, superblock.len(), superblock.is_clean), (1024, Ok(1 << 20), true));
        assert_eq!(parse(&[(0x38, 0)]), Ok(None));
        assert_eq!(Superblock::parse(&[]), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_corrupt() {
        let wrong = [(0x18, 7), (0x18, u32::MAX), (0x04, 1), (0x14, 1024), (0x20, 0), (0x28, 0)];
        for field in wrong {
            assert!(matches!(parse(&[field]), Err(Error::Corrupt(_))), "{field:x?}");
        }
        for inode_size in [0, 64, 129, 2048] {
            let parsed = parse(&[(0x4c, 1), (0x58, inode_size)]);
            assert!(matches!(parsed, Err(Error::Corrupt(_))), "{inode_size}");
        }
        for descriptor_size in [0, 16, 63, 2048] {
            let parsed = parse(&[(0x60, 0x80), (0xfc, descriptor_size << 16)]);
            assert!(matches!(parsed, Err(Error::Corrupt(_))), "{descriptor_size}");
        }
        assert!(
            matches!(parse(&[(0x60, 0x8)]), Err(Error::Unsupported(text)) if text.to_string().contains("journal_dev"))
        );
        assert!(
            matches!(parse(&[(0x64, 0x400)]), Err(Error::Unsupported(text)) if text.to_string().contains("type of checksums"))
        );
        assert!(
            matches!(parse(&[(0x64, 0x400), (0x174, 0x100)]), Err(Error::Corrupt(text)) if text.to_string().contains("superblock"))
        );
    }

    #[test]
    fn copies_are_where_linux_keeps_them() {
        let copies = |fields: &[(usize, u32)]| {
            let superblock = parse(fields).expect("valid").expect("the magic is there");
            (0..50).filter(|group| superblock.has_superblock(*group)).collect::<Vec<_>>()
        };
        assert_eq!(copies(&[]).len(), 50);
        assert_eq!(copies(&[(0x64, 1)]), [0, 1, 3, 5, 7, 9, 25, 27, 49]);
        assert_eq!(copies(&[(0x64, 1), (0x5c, 0x200), (0x24c, 1), (0x250, 40)]), [0, 1, 40]);
    }
}
