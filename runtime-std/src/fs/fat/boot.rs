//! The boot sector and the layout of a volume (fatgen103, "Boot sector and BPB").

use std::ops::Range;

use crate::fs::{
    Error, Volume,
    bytes::{array_at, le},
};

/// The number of bytes of the first sector that are used, whatever its size.
const BOOT_SECTOR: usize = 512;
/// The number of the first cluster.
pub(super) const FIRST_CLUSTER: u32 = 2;
/// The size of a directory entry in bytes.
const ENTRY: u64 = 32;

/// The width of the entries of the FAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// Returns the name of the file system.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    /// Returns the number of bits of an entry of the FAT.
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// Returns the maximum number of clusters (`MAX_FAT12` and others in fs/fat/fat.h of Linux).
    fn max_clusters(self) -> u64 {
        match self {
            Self::Fat12 => 0xFF4,
            Self::Fat16 => 0xFFF4,
            Self::Fat32 => 0x0FFF_FFF6,
        }
    }
}

/// The location of the root directory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root {
    /// A fixed part of the volume, in bytes (FAT12 and FAT16).
    Fixed { offset: u64, len: u64 },
    /// The chain that starts with this cluster (FAT32).
    Chain(u32),
}

/// The layout of a volume. Offsets and sizes are in bytes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) width: Width,
    pub(super) cluster_size: u64,
    /// The number of clusters.
    pub(super) clusters: u32,
    /// The offset of the first FAT, which has entries for all clusters.
    pub(super) fat_offset: u64,
    pub(super) root: Root,
    /// The offset of the first cluster.
    data_offset: u64,
    /// Whether it is mounted, or was not unmounted cleanly.
    pub(super) is_dirty: bool,
    /// The serial number.
    pub(super) serial: u32,
}

impl Layout {
    /// Reads the boot sector of a volume; `None` if the first sector is not a FAT boot sector.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if its fields are inconsistent, [`Error::Io`].
    pub(super) async fn read(volume: &Volume) -> Result<Option<Self>, Error> {
        if volume.size() < BOOT_SECTOR as u64 {
            return Ok(None);
        }
        let sector = volume.read(0, BOOT_SECTOR).await?;
        if is_boot_sector(&sector) { Self::parse(&sector).map(Some) } else { Ok(None) }
    }

    /// Computes the layout like `fat_fill_super` in fs/fat/inode.c, with the same checks.
    fn parse(boot: &[u8]) -> Result<Self, Error> {
        let sector = u64::from(le::u16_at(boot, 11));
        let [cluster_sectors] = array_at(boot, 13);
        let reserved = u64::from(le::u16_at(boot, 14));
        let [fats] = array_at(boot, 16);
        let root_len = u64::from(le::u16_at(boot, 17)) * ENTRY;
        let is_fat32 = le::u16_at(boot, 22) == 0;
        let fat_sectors = if is_fat32 { le::u32_at(boot, 36).into() } else { u64::from(le::u16_at(boot, 22)) };
        let sectors = match le::u16_at(boot, 19) {
            0 => le::u32_at(boot, 32).into(),
            sectors => u64::from(sectors),
        };
        if !root_len.is_multiple_of(sector) {
            return Err(Error::corrupt("boot sector", "the root directory does not end at a sector boundary"));
        }
        let root = reserved + u64::from(fats) * fat_sectors;
        let data = root + root_len / sector;
        let Some(data_sectors) = sectors.checked_sub(data) else {
            let what = format!("the first cluster is in sector {data} of {sectors}");
            return Err(Error::corrupt("boot sector", what));
        };
        let clusters = data_sectors / u64::from(cluster_sectors);
        let width = if is_fat32 {
            Width::Fat32
        } else if clusters <= Width::Fat12.max_clusters() {
            Width::Fat12
        } else {
            Width::Fat16
        };
        // A FAT may be too short for all clusters. Clusters without an entry are not used.
        let entries = fat_sectors * sector * 8 / u64::from(width.bits());
        let clusters = clusters.min(entries.saturating_sub(FIRST_CLUSTER.into()));
        if clusters > width.max_clusters() {
            let what = format!("{clusters} clusters, which exceeds the maximum of {}", width.name());
            return Err(Error::corrupt("boot sector", what));
        }
        let (state, serial) = if is_fat32 { (0x41, 0x43) } else { (0x25, 0x27) };
        let [state] = array_at(boot, state);
        Ok(Self {
            width,
            cluster_size: sector * u64::from(cluster_sectors),
            clusters: clusters as u32,
            fat_offset: reserved * sector,
            root: if is_fat32 {
                Root::Chain(le::u32_at(boot, 44))
            } else {
                Root::Fixed { offset: root * sector, len: root_len }
            },
            data_offset: data * sector,
            is_dirty: state & 1 != 0,
            serial: le::u32_at(boot, serial),
        })
    }

    /// Returns whether there is a cluster with this number.
    pub(super) fn has(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..FIRST_CLUSTER + self.clusters).contains(&cluster)
    }

    /// Returns the offset in the volume and the total length of contiguous clusters.
    pub(super) fn clusters_at(&self, clusters: &Range<u32>) -> (u64, u64) {
        let before = u64::from(clusters.start.saturating_sub(FIRST_CLUSTER));
        (self.data_offset + before * self.cluster_size, clusters.len() as u64 * self.cluster_size)
    }
}

/// Returns whether a sector is a FAT boot sector, with the checks of `fat_read_bpb` in fs/fat/inode.c. NTFS and exFAT have zeros in
/// place of the number of FATs.
fn is_boot_sector(boot: &[u8]) -> bool {
    let [cluster_sectors, reserved, reserved_high, fats] = array_at(boot, 13);
    let [media] = array_at(boot, 21);
    let sector = le::u16_at(boot, 11);
    (512..=4096).contains(&sector)
        && sector.is_power_of_two()
        && cluster_sectors.is_power_of_two()
        && (reserved, reserved_high) != (0, 0)
        && fats != 0
        && matches!(media, 0xF0 | 0xF8..)
        && (le::u16_at(boot, 22) != 0 || le::u32_at(boot, 36) != 0)
}
