//! The superblock (Linux, `Documentation/filesystems/ext4/super.rst`).

use super::{
    checksum::Checksum,
    features::{Feature, Features},
};
use crate::fs::{
    Error, MountMarks, Shows, Volume,
    bytes::{array_at, le},
};

/// The offset of the superblock in its volume, in bytes.
pub(super) const OFFSET: u64 = 1024;
/// The size of the superblock in bytes.
pub(super) const LEN: usize = 1024;

const MAGIC: u16 = 0xef53;
/// The flag of `s_state` that a clean unmount sets and a read-write mount clears (`EXT4_VALID_FS`).
const VALID_FS: u16 = 1;
/// The only defined value of `s_checksum_type` (`EXT4_CRC32C_CHKSUM`).
const CRC32C: u8 = 1;

/// The backup of the journal inode's `i_block` and `i_size` (`s_jnl_blocks`).
pub(super) type JournalBackup = [u8; 68];

/// The fields of a superblock that the driver uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) features: Features,
    /// The size of a block in bytes, a power of two from 1,024 to 65,536.
    pub(super) block_size: u32,
    pub(super) block_count: u64,
    /// The first block of group 0.
    pub(super) first_data_block: u64,
    pub(super) blocks_per_group: u32,
    /// The number of inodes; the first inode has the number 1.
    pub(super) inode_count: u32,
    pub(super) inodes_per_group: u32,
    /// The first inode that is not reserved (`s_first_ino`).
    pub(super) first_inode: u32,
    /// The size of an inode in bytes, a power of two from 128 to the block size.
    pub(super) inode_size: u32,
    /// The size of a group descriptor in bytes, a power of two from 32 to 1,024.
    pub(super) descriptor_size: u32,
    /// The first block of the descriptor table that is stored in its own groups (feature `meta_bg`).
    pub(super) first_meta_bg: u32,
    /// The groups with a backup of the superblock (feature `sparse_super2`).
    pub(super) backup_groups: [u32; 2],
    pub(super) uuid: [u8; 16],
    /// The seed of the checksums of metadata (`s_csum_seed`).
    pub(super) checksum_seed: Checksum,
    /// Whether the file system was unmounted cleanly; not kept up to date in a file system with a journal.
    pub(super) is_clean: bool,
    /// The inode of the journal; 0 if the journal is on another device.
    pub(super) journal_inode: u32,
    /// `None` if there is no backup of the journal inode.
    pub(super) journal_backup: Option<JournalBackup>,
}

/// Reads the marks of mounts: `s_mtime` and `s_mnt_count`, which a read-write mount or remount writes at once, and whether the file
/// system is in use.
pub(super) async fn mount_marks(volume: &Volume) -> Result<Option<MountMarks>, Error> {
    if volume.size() < OFFSET + LEN as u64 {
        return Ok(None);
    }
    let bytes = volume.read(OFFSET, LEN).await?;
    let marks = |superblock: Superblock| MountMarks {
        name: superblock.features.type_name(),
        last_mount: [le::u32_at(&bytes, 0x2c).into(), le::u16_at(&bytes, 0x34).into()],
        is_in_use: superblock.is_in_use(),
        state: crc32c::crc32c(&bytes).into(),
        shows: Shows::Mounts,
    };
    Ok(Superblock::parse(&bytes)?.map(marks))
}

impl Superblock {
    /// Reads the superblock of a volume; `None` if the volume contains no ext file system.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn read(volume: &Volume) -> Result<Option<Self>, Error> {
        if volume.size() < OFFSET + LEN as u64 {
            return Ok(None);
        }
        Self::parse(&volume.read(OFFSET, LEN).await?)
    }

    /// Parses a superblock; `None` if the magic number differs.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        if le::u16_at(bytes, 0x38) != MAGIC {
            return Ok(None);
        }
        let features = Features::parse(bytes);
        let unsupported = features.unsupported();
        if !unsupported.is_empty() {
            return Err(Error::unsupported("superblock", format!("unsupported features {}", unsupported.join(", "))));
        }
        let uuid = array_at(bytes, 0x68);
        let has_64bit = features.has(Feature::BIT64);
        // The first revision (`s_rev_level` 0) has no fields for the first inode and the inode size.
        let is_first_revision = le::u32_at(bytes, 0x4c) == 0;
        let superblock = Self {
            features,
            block_size: 1024u32.checked_shl(le::u32_at(bytes, 0x18)).unwrap_or(0),
            block_count: le::split_u64_at(bytes, 0x04, if has_64bit { 0x150 } else { bytes.len() }),
            first_data_block: le::u32_at(bytes, 0x14).into(),
            blocks_per_group: le::u32_at(bytes, 0x20),
            inode_count: le::u32_at(bytes, 0x00),
            inodes_per_group: le::u32_at(bytes, 0x28),
            first_inode: if is_first_revision { 11 } else { le::u32_at(bytes, 0x54) },
            inode_size: if is_first_revision { 128 } else { le::u16_at(bytes, 0x58).into() },
            descriptor_size: if has_64bit { le::u16_at(bytes, 0xfe).into() } else { 32 },
            first_meta_bg: le::u32_at(bytes, 0x104),
            backup_groups: [le::u32_at(bytes, 0x24c), le::u32_at(bytes, 0x250)],
            uuid,
            checksum_seed: checksum_seed(features, bytes, &uuid)?,
            is_clean: le::u16_at(bytes, 0x3a) & VALID_FS != 0,
            journal_inode: le::u32_at(bytes, 0xe0),
            journal_backup: Some(array_at(bytes, 0x10c))
                .filter(|backup| bytes.get(0xfd) == Some(&1) && *backup != [0; 68]),
        };
        superblock.check()?;
        Ok(Some(superblock))
    }

    /// Returns whether the file system is mounted read-write elsewhere, or was not unmounted cleanly.
    pub(super) fn is_in_use(&self) -> bool {
        self.features.has(Feature::RECOVER) || !self.features.has(Feature::HAS_JOURNAL) && !self.is_clean
    }

    /// Returns the size of the file system in bytes.
    pub(super) fn len(&self) -> Result<u64, Error> {
        let len = self.block_count.checked_mul(self.block_size.into());
        len.ok_or_else(|| invalid("size in blocks", self.block_count))
    }

    /// Returns the number of block groups.
    pub(super) fn group_count(&self) -> u64 {
        let blocks = self.block_count.saturating_sub(self.first_data_block);
        blocks.div_ceil(self.blocks_per_group.max(1).into())
    }

    /// Returns whether a group starts with a superblock, the primary one or a backup.
    pub(super) fn group_has_superblock(&self, group: u64) -> bool {
        match group {
            0 => true,
            _ if self.features.has(Feature::SPARSE_SUPER2) => {
                self.backup_groups.iter().any(|&backup| u64::from(backup) == group)
            }
            1 => true,
            _ if !self.features.has(Feature::SPARSE_SUPER) => true,
            _ => [3, 5, 7].iter().any(|&base| is_power_of(base, group)),
        }
    }

    /// Checks the ranges that the other functions rely on.
    fn check(&self) -> Result<(), Error> {
        if !(1024..=65536).contains(&self.block_size) {
            return Err(invalid("block size", self.block_size));
        }
        if !self.inode_size.is_power_of_two() || !(128..=self.block_size).contains(&self.inode_size) {
            return Err(invalid("inode size", self.inode_size));
        }
        if !self.descriptor_size.is_power_of_two() || !(32..=1024).contains(&self.descriptor_size) {
            return Err(invalid("size of group descriptors", self.descriptor_size));
        }
        if self.block_count <= self.first_data_block {
            return Err(invalid("number of blocks", self.block_count));
        }
        if self.blocks_per_group == 0 || self.inodes_per_group == 0 {
            return Err(invalid("group size", 0));
        }
        Ok(())
    }
}

/// Verifies the checksum of the superblock and returns the seed of the other checksums.
fn checksum_seed(features: Features, bytes: &[u8], uuid: &[u8; 16]) -> Result<Checksum, Error> {
    if !features.has(Feature::METADATA_CSUM) {
        return Ok(Checksum::NONE);
    }
    match bytes.get(0x175) {
        Some(&CRC32C) => {}
        Some(other) => return Err(Error::unsupported("superblock", format!("unknown checksum type {other}"))),
        None => return Err(Error::corrupt("superblock", "truncated")),
    }
    let (summed, stored) = bytes.split_at_checked(0x3fc).unwrap_or_default();
    Checksum::INIT.update(summed).verify(le::u32_at(stored, 0), "superblock")?;
    Ok(match features.has(Feature::CSUM_SEED) {
        true => Checksum::from_seed(le::u32_at(bytes, 0x270)),
        false => Checksum::INIT.update(uuid),
    })
}

/// Returns whether `number` is a power of `base`.
fn is_power_of(base: u64, mut number: u64) -> bool {
    while number > 1 && number.is_multiple_of(base) {
        number /= base;
    }
    number == 1
}

fn invalid(field: &str, value: impl std::fmt::Display) -> Error {
    Error::corrupt("superblock", format!("invalid {field} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a superblock of ext2 with 1,024 blocks of 1,024 bytes, after setting the 32-bit fields in `changed`.
    fn parse(changed: &[(usize, u32)]) -> Result<Option<Superblock>, Error> {
        let mut bytes = vec![0; LEN];
        let defaults = [(0x00, 128), (0x04, 1024), (0x14, 1), (0x20, 8192), (0x28, 128), (0x38, 0x0001_ef53)];
        for (at, value) in defaults.iter().chain(changed) {
            bytes[*at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        Superblock::parse(&bytes)
    }

    #[test]
    fn parses_first_revision() {
        let superblock = parse(&[]).expect("valid").expect("the magic is there");
        assert_eq!((superblock.inode_size, superblock.first_inode, superblock.group_count()), (128, 11, 1));
        assert_eq!((superblock.block_size, superblock.len(), superblock.is_clean), (1024, Ok(1 << 20), true));
        assert_eq!(parse(&[(0x38, 0)]), Ok(None));
        assert_eq!(Superblock::parse(&[]), Ok(None));
    }

    #[test]
    fn rejects_invalid_fields() {
        let invalid = [(0x18, 7), (0x18, u32::MAX), (0x04, 1), (0x14, 1024), (0x20, 0), (0x28, 0)];
        for field in invalid {
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
            matches!(parse(&[(0x64, 0x400)]), Err(Error::Unsupported(text)) if text.to_string().contains("checksum type"))
        );
        assert!(
            matches!(parse(&[(0x64, 0x400), (0x174, 0x100)]), Err(Error::Corrupt(text)) if text.to_string().contains("superblock"))
        );
    }

    #[test]
    fn backups_are_in_the_groups_linux_uses() {
        let groups = |fields: &[(usize, u32)]| {
            let superblock = parse(fields).expect("valid").expect("the magic is there");
            (0..50).filter(|group| superblock.group_has_superblock(*group)).collect::<Vec<_>>()
        };
        assert_eq!(groups(&[]).len(), 50);
        assert_eq!(groups(&[(0x64, 1)]), [0, 1, 3, 5, 7, 9, 25, 27, 49]);
        assert_eq!(groups(&[(0x64, 1), (0x5c, 0x200), (0x24c, 1), (0x250, 40)]), [0, 1, 40]);
    }
}
