//! The superblock: features, geometry, and the roots of the first trees (Linux, `struct btrfs_super_block`).

use super::checksum;
use crate::fs::{
    Error, Volume,
    bytes::{array_at, le},
    checksum::Checksum,
};

/// The offset in the volume. There are copies elsewhere, but Linux mounts only what this one describes.
pub(super) const OFFSET: u64 = 0x1_0000;
/// The size in bytes.
pub(super) const LEN: usize = 4096;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
/// The array of the chunks that contain the chunk tree: its offset and maximum length.
const SYSTEM_CHUNKS: usize = 811;
const MAX_SYSTEM_CHUNKS: usize = 2048;

/// The flag of a separate UUID in metadata (`BTRFS_FEATURE_INCOMPAT_METADATA_UUID`).
const METADATA_UUID: u64 = 1 << 10;
/// The incompatible features that the driver supports.
const SUPPORTED: u64 = 0x1_0f7f;
/// The names of the others, by bit.
const UNSUPPORTED: [(u32, &str); 5] =
    [(7, "RAID5 and RAID6"), (12, "zoned"), (13, "extent tree v2"), (14, "RAID stripe tree"), (17, "remap tree")];
/// The flags of an image without the contents of files (`btrfs-image`), and of a change of the UUID that is not complete.
const METADUMP: u64 = 0b11 << 33;
const CHANGING_UUID: u64 = 0b11 << 35;

/// The fields of a superblock that the driver uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) checksum: Checksum,
    pub(super) uuid: [u8; 16],
    /// The UUID in the headers of metadata.
    pub(super) metadata_uuid: [u8; 16],
    /// The number of the last commit.
    pub(super) generation: u64,
    /// The addresses and levels of the roots of the root tree, the chunk tree and the log root tree; 0 if there is no log.
    pub(super) root: (u64, u8),
    pub(super) chunk_root: (u64, u8),
    pub(super) log_root: (u64, u8),
    pub(super) chunk_root_generation: u64,
    /// The directory in the root tree that names the default subvolume.
    pub(super) root_directory: u64,
    pub(super) device_count: u64,
    pub(super) device: u64,
    pub(super) device_uuid: [u8; 16],
    /// The sizes of a block of data and of a node in bytes.
    pub(super) sector_size: u32,
    pub(super) node_size: u32,
    /// Pairs of a key and a chunk item.
    pub(super) system_chunks: Vec<u8>,
}

impl Superblock {
    /// Reads the bytes of the superblock past the cache; `None` if the volume is too small.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) async fn read_bytes(volume: &Volume) -> Result<Option<Vec<u8>>, Error> {
        if volume.size() < OFFSET + LEN as u64 {
            return Ok(None);
        }
        let at = volume.disk_offset(OFFSET, LEN as u64)?;
        Ok(Some(volume.device().read(at, LEN).await?.into_vec()))
    }

    /// Parses and verifies a superblock; `None` if the magic number differs.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Unsupported`].
    pub(super) fn parse(bytes: &[u8], volume_size: u64) -> Result<Option<Self>, Error> {
        if bytes.get(64..72) != Some(MAGIC) {
            return Ok(None);
        }
        let checksum = checksum::from_number(le::u16_at(bytes, 196))?;
        checksum::verify(checksum, bytes, "superblock")?;
        check_features(bytes)?;
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let uuid = array_at(bytes, 32);
        let has_metadata_uuid = le::u64_at(bytes, 188) & METADATA_UUID != 0;
        let system_chunks = le::u32_at(bytes, 160) as usize;
        let superblock = Self {
            checksum,
            uuid,
            metadata_uuid: if has_metadata_uuid { array_at(bytes, 571) } else { uuid },
            generation: le::u64_at(bytes, 72),
            root: (le::u64_at(bytes, 80), byte(198)),
            chunk_root: (le::u64_at(bytes, 88), byte(199)),
            log_root: (le::u64_at(bytes, 96), byte(200)),
            chunk_root_generation: le::u64_at(bytes, 164),
            root_directory: le::u64_at(bytes, 128),
            device_count: le::u64_at(bytes, 136),
            device: le::u64_at(bytes, 201),
            device_uuid: array_at(bytes, 267),
            sector_size: le::u32_at(bytes, 144),
            node_size: le::u32_at(bytes, 148),
            system_chunks: bytes.get(SYSTEM_CHUNKS..).and_then(|bytes| bytes.get(..system_chunks)).map_or_else(
                || Err(Error::corrupt("superblock", "invalid size of the system chunks")),
                |chunks| Ok(chunks.to_vec()),
            )?,
        };
        let is_size = |size: u32| size.is_power_of_two() && (4096..=65536).contains(&size);
        if le::u64_at(bytes, 48) != OFFSET
            || !is_size(superblock.sector_size)
            || !is_size(superblock.node_size)
            || superblock.node_size < superblock.sector_size
            || superblock.system_chunks.len() > MAX_SYSTEM_CHUNKS
            || superblock.generation >= u64::MAX - 1
        {
            return Err(Error::corrupt("superblock", "invalid geometry"));
        }
        let size = le::u64_at(bytes, 209);
        if size > volume_size {
            let what = format!("the file system has {size} bytes, but its volume only {volume_size}");
            return Err(Error::corrupt("superblock", what));
        }
        Ok(Some(superblock))
    }
}

/// Rejects features that the driver does not support.
fn check_features(bytes: &[u8]) -> Result<(), Error> {
    let unknown = le::u64_at(bytes, 188) & !SUPPORTED;
    let name = |bit: u32| match UNSUPPORTED.iter().find(|(known, _)| *known == bit) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("unknown incompatible feature {:#x}", 1u64 << bit),
    };
    let mut names: Vec<String> = (0..64).filter(|bit| unknown >> bit & 1 == 1).map(name).collect();
    let flags = le::u64_at(bytes, 56);
    if flags & METADUMP != 0 {
        names.push("image of metadata only".into());
    }
    if flags & CHANGING_UUID != 0 {
        names.push("unfinished change of the UUID".into());
    }
    match names.is_empty() {
        true => Ok(()),
        false => Err(Error::unsupported("superblock", format!("unsupported features {}", names.join(", ")))),
    }
}
