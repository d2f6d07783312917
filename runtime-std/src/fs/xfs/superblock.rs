//! The superblock: features, and the geometry of blocks, allocation groups and inodes (Linux, `struct xfs_dsb`).

use std::fmt::Display;

use super::{checksum, features::Features};
use crate::fs::{
    Error, Volume,
    bytes::{array_at, be},
};

/// The number of bytes that contain all fields.
const LEN: usize = 512;
const MAGIC: u32 = 0x5846_5342;
/// The offset of the checksum.
const CRC: usize = 224;
/// The flag of a file system that mkfs has not finished (`sb_inprogress`).
const IN_PROGRESS: u8 = 1;

/// The fields of a superblock that the driver uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) features: Features,
    /// The binary logarithm of the size of a block in bytes: 9 to 16.
    block_log: u32,
    /// The binary logarithm of the size of an inode in bytes: 8 to 11, at most `block_log`.
    inode_log: u32,
    /// The binary logarithm of the size of a directory block in bytes: `block_log` to 16.
    directory_block_log: u32,
    /// The size of a sector in bytes.
    pub(super) sector_size: u32,
    block_count: u64,
    ag_count: u32,
    /// The number of blocks of an allocation group. The last one may have fewer.
    ag_blocks: u32,
    /// The number of bits of a block number that count blocks in a group.
    ag_block_log: u32,
    /// The first block of the log; 0 if the log is on another device.
    pub(super) log_start: u64,
    /// The length of the log in blocks.
    pub(super) log_blocks: u32,
    pub(super) root_inode: u64,
    pub(super) uuid: [u8; 16],
    /// The UUID in the headers of metadata.
    pub(super) meta_uuid: [u8; 16],
}

impl Superblock {
    /// Reads the superblock of a volume; `None` if the volume contains no XFS.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub(super) async fn read(volume: &Volume) -> Result<Option<Self>, Error> {
        if volume.size() < LEN as u64 {
            return Ok(None);
        }
        let bytes = volume.read(0, LEN).await?;
        let Some(superblock) = Self::parse(&bytes)? else { return Ok(None) };
        if superblock.features.is_v5 {
            let sector = volume.read(0, superblock.sector_size as usize).await?;
            checksum::verify(&sector, CRC, "superblock")?;
        }
        if superblock.len() > volume.size() {
            let what = format!("the file system has {} bytes, but its volume only {}", superblock.len(), volume.size());
            return Err(Error::corrupt("superblock", what));
        }
        Ok(Some(superblock))
    }

    /// Parses a superblock without its checksum; `None` if the magic number differs.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        if be::u32_at(bytes, 0) != MAGIC {
            return Ok(None);
        }
        let features = Features::parse(bytes);
        let unsupported = features.unsupported();
        if !unsupported.is_empty() {
            return Err(Error::unsupported("superblock", format!("unsupported features {}", unsupported.join(", "))));
        }
        let byte = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0));
        let uuid = array_at(bytes, 32);
        let superblock = Self {
            features,
            block_log: byte(120),
            inode_log: byte(122),
            directory_block_log: byte(120) + byte(192),
            sector_size: be::u16_at(bytes, 102).into(),
            block_count: be::u64_at(bytes, 8),
            ag_count: be::u32_at(bytes, 88),
            ag_blocks: be::u32_at(bytes, 84),
            ag_block_log: byte(124),
            log_start: be::u64_at(bytes, 48),
            log_blocks: be::u32_at(bytes, 96),
            root_inode: be::u64_at(bytes, 56),
            uuid,
            meta_uuid: if features.has_meta_uuid { array_at(bytes, 248) } else { uuid },
        };
        superblock.check(bytes)?;
        Ok(Some(superblock))
    }

    /// Checks the ranges that the other functions rely on.
    fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        let block_size = be::u32_at(bytes, 4);
        if !(9..=16).contains(&self.block_log) || block_size != 1 << self.block_log {
            return Err(invalid("block size", block_size));
        }
        if !self.sector_size.is_power_of_two() || !(512..=32_768).contains(&self.sector_size) {
            return Err(invalid("sector size", self.sector_size));
        }
        if !(8..=11).contains(&self.inode_log) || self.inode_log > self.block_log {
            return Err(invalid("inode size", self.inode_log));
        }
        // An inode of version 3 has 176 bytes in front of its data.
        if self.features.is_v5 && self.inode_log < 9 {
            return Err(invalid("inode size", 1 << self.inode_log));
        }
        if self.directory_block_log > 16 {
            return Err(invalid("size of directory blocks", self.directory_block_log));
        }
        let is_ag_valid = self.ag_block_log < 32 && u64::from(self.ag_blocks) <= 1 << self.ag_block_log;
        if self.ag_blocks == 0 || !is_ag_valid {
            return Err(invalid("size of allocation groups", self.ag_blocks));
        }
        let groups = self.block_count.div_ceil(self.ag_blocks.into());
        if self.block_count == 0 || groups != u64::from(self.ag_count) || self.block_count >= 1 << (63 - self.block_log)
        {
            return Err(invalid("number of blocks", self.block_count));
        }
        if bytes.get(126) == Some(&IN_PROGRESS) {
            return Err(Error::corrupt("superblock", "mkfs.xfs did not finish the file system"));
        }
        Ok(())
    }

    /// Returns whether the blocks and inodes of `other` are at the same places. The file system may have grown.
    pub(super) fn has_geometry_of(&self, other: &Self) -> bool {
        let geometry =
            |superblock: &Self| Self { features: self.features, block_count: 0, ag_count: 0, ..superblock.clone() };
        geometry(self) == geometry(other) && self.features.is_v5 == other.features.is_v5
    }

    /// Returns the size of the file system in bytes.
    pub(super) fn len(&self) -> u64 {
        self.block_count << self.block_log
    }

    /// Returns the size of a block in bytes.
    pub(super) fn block_size(&self) -> usize {
        1 << self.block_log
    }

    /// Returns the size of a directory block in bytes.
    pub(super) fn directory_block_size(&self) -> usize {
        1 << self.directory_block_log
    }

    /// Returns the size of an inode in bytes.
    pub(super) fn inode_size(&self) -> usize {
        1 << self.inode_log
    }

    /// Returns the offset of a run of blocks in the volume, in bytes; `None` if it exceeds the allocation group of its first block.
    pub(super) fn block_offset(&self, block: u64, count: u64) -> Option<u64> {
        let (group, in_group) = (block >> self.ag_block_log, block & ((1 << self.ag_block_log) - 1));
        let is_in_group = group < self.ag_count.into() && in_group.checked_add(count)? <= self.ag_blocks.into();
        let first = group * u64::from(self.ag_blocks) + in_group;
        (is_in_group && first + count <= self.block_count).then(|| first << self.block_log)
    }

    /// Returns the offset of an inode in the volume, in bytes; `None` if there is no such inode.
    pub(super) fn inode_offset(&self, number: u64) -> Option<u64> {
        let per_block_log = self.block_log - self.inode_log;
        let in_block = number & ((1 << per_block_log) - 1);
        Some(self.block_offset(number >> per_block_log, 1)? + (in_block << self.inode_log))
    }

    /// Returns the offset of a block of an allocation group in the volume, in bytes.
    pub(super) fn group_block_offset(&self, group: u32, block: u32, count: u32) -> Option<u64> {
        if u64::from(block) >> self.ag_block_log != 0 {
            return None;
        }
        self.block_offset(u64::from(group) << self.ag_block_log | u64::from(block), count.into())
    }
}

fn invalid(field: &str, value: impl Display) -> Error {
    Error::corrupt("superblock", format!("invalid {field} {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a superblock with four groups of 1,000 blocks of 4,096 bytes, after setting the bytes in `changed`.
    fn parse(changed: &[(usize, &[u8])]) -> Result<Option<Superblock>, Error> {
        let mut bytes = vec![0; LEN];
        let defaults: [(usize, &[u8]); 12] = [
            (0, b"XFSB"),
            (4, &4096u32.to_be_bytes()),
            (8, &3900u64.to_be_bytes()),
            (84, &1000u32.to_be_bytes()),
            (88, &4u32.to_be_bytes()),
            (96, &512u32.to_be_bytes()),
            (100, &0xb4a5u16.to_be_bytes()),
            (102, &512u16.to_be_bytes()),
            (104, &512u16.to_be_bytes()),
            (120, &[12]),
            (122, &[9]),
            (124, &[10]),
        ];
        for (at, value) in defaults.iter().chain(changed) {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        Superblock::parse(&bytes)
    }

    #[test]
    fn locates_blocks_and_inodes() {
        let superblock = parse(&[]).expect("valid").expect("the magic is there");
        assert_eq!(superblock.block_offset(0, 1000), Some(0));
        assert_eq!(superblock.block_offset(3 << 10 | 899, 1), Some(3899 << 12));
        for (block, count) in [(0, 1001), (1000, 1), (3 << 10 | 900, 1), (4 << 10, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(superblock.block_offset(block, count), None, "{block}+{count}");
        }
        assert_eq!(superblock.inode_offset(1 << 13 | 17), Some((1002 << 12) + 512));
        assert_eq!(superblock.inode_offset(u64::MAX), None);
        assert_eq!(superblock.group_block_offset(1, 999, 1), Some(1999 << 12));
        assert_eq!(superblock.group_block_offset(1, 1 << 10, 1), None);
    }

    #[test]
    fn rejects_invalid_fields() {
        assert_eq!(parse(&[(0, b"X")]).map(|parsed| parsed.is_some()), Ok(true));
        assert_eq!(parse(&[(0, b"Y")]), Ok(None));
        let invalid: [(usize, &[u8]); 12] = [
            (4, &[0; 4]),
            (8, &[0; 8]),
            (8, &[255; 8]),
            (8, &4001u64.to_be_bytes()),
            (84, &[0; 4]),
            (84, &1025u32.to_be_bytes()),
            (102, &[0, 1]),
            (120, &[255]),
            (122, &[13]),
            (124, &[255]),
            (126, &[1]),
            (192, &[5]),
        ];
        for field in invalid {
            assert!(matches!(parse(&[field]), Err(Error::Corrupt(_))), "{field:x?}");
        }
        assert!(matches!(parse(&[(216, &[1, 0, 0, 0x10])]), Err(Error::Unsupported(text))
            if text.to_string().contains("needsrepair") && text.to_string().contains("0x1000000")));
    }
}
