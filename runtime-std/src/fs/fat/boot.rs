//! The boot sector: what kind of FAT it is, and where what is (fatgen103, "Boot sector and BPB").

use std::ops::Range;

use crate::fs::{
    Error, Volume,
    bytes::{array_at, le},
};

/// How much of the first sector is read, in bytes; however long a sector is, no more of it matters.
const BOOT_SECTOR: usize = 512;
/// The number of the first cluster.
pub(super) const FIRST_CLUSTER: u32 = 2;
/// How long a directory entry is, in bytes.
const ENTRY: u64 = 32;

/// How wide the entries of the FAT are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FatKind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the root directory is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root {
    /// At a place of its own in the volume, of a fixed length, both in bytes.
    Fixed { place: u64, len: u64 },
    /// In a chain that begins with this cluster, like other directories.
    Chain(u32),
}

/// Where what is in a volume, in bytes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) kind: FatKind,
    /// How long a cluster is.
    pub(super) cluster: u64,
    /// How many clusters there are; the first has the number 2.
    pub(super) clusters: u32,
    /// Where the first FAT is. It has room for all clusters.
    pub(super) table: u64,
    pub(super) root: Root,
    /// Where the first cluster is.
    data: u64,
    /// Whether it is marked as mounted, or as not properly unmounted.
    pub(super) is_marked: bool,
    /// What `mkfs` tells one file system from another by.
    pub(super) serial: u32,
}

impl FatKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    /// How many bits an entry of the FAT has.
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// The greatest number of clusters, as in Linux (`MAX_FAT12` and so on of fs/fat/fat.h).
    fn most_clusters(self) -> u64 {
        match self {
            Self::Fat12 => 0xFF4,
            Self::Fat16 => 0xFFF4,
            Self::Fat32 => 0x0FFF_FFF6,
        }
    }
}

impl Layout {
    /// Reads the boot sector of a volume; `None` if its first sector is not one.
    pub(super) async fn read(volume: &Volume) -> Result<Option<Self>, Error> {
        if volume.size() < BOOT_SECTOR as u64 {
            return Ok(None);
        }
        let sector = volume.read(0, BOOT_SECTOR).await?;
        if is_boot_sector(&sector) { Self::new(&sector).map(Some) } else { Ok(None) }
    }

    /// The numbers of `fat_fill_super` of fs/fat/inode.c, refused where it refuses them.
    fn new(boot: &[u8]) -> Result<Self, Error> {
        let sector = u64::from(le::u16_at(boot, 11));
        let [cluster_sectors] = array_at(boot, 13);
        let reserved = u64::from(le::u16_at(boot, 14));
        let [tables] = array_at(boot, 16);
        let root_len = u64::from(le::u16_at(boot, 17)) * ENTRY;
        let long_table = le::u16_at(boot, 22) == 0;
        let table_sectors = if long_table { le::u32_at(boot, 36).into() } else { u64::from(le::u16_at(boot, 22)) };
        let sectors = match le::u16_at(boot, 19) {
            0 => le::u32_at(boot, 32).into(),
            sectors => u64::from(sectors),
        };
        if !root_len.is_multiple_of(sector) {
            return Err(Error::corrupt("boot sector", "the root directory does not end at a sector boundary"));
        }
        let root = reserved + u64::from(tables) * table_sectors;
        let data = root + root_len / sector;
        let Some(data_sectors) = sectors.checked_sub(data) else {
            let what = format!("the first cluster is in sector {data} of {sectors}");
            return Err(Error::corrupt("boot sector", what));
        };
        let clusters = data_sectors / u64::from(cluster_sectors);
        let kind = if long_table {
            FatKind::Fat32
        } else if clusters <= FatKind::Fat12.most_clusters() {
            FatKind::Fat12
        } else {
            FatKind::Fat16
        };
        // A FAT may be too short for all clusters; those that it has no entry for are not used.
        let entries = table_sectors * sector * 8 / u64::from(kind.bits());
        let clusters = clusters.min(entries.saturating_sub(FIRST_CLUSTER.into()));
        if clusters > kind.most_clusters() {
            return Err(Error::corrupt(
                "boot sector",
                format!("{clusters} clusters, which exceeds the maximum of {}", kind.name()),
            ));
        }
        let (state, serial) = if long_table { (0x41, 0x43) } else { (0x25, 0x27) };
        let [state] = array_at(boot, state);
        Ok(Self {
            kind,
            cluster: sector * u64::from(cluster_sectors),
            clusters: clusters as u32,
            table: reserved * sector,
            root: if long_table {
                Root::Chain(le::u32_at(boot, 44))
            } else {
                Root::Fixed { place: root * sector, len: root_len }
            },
            data: data * sector,
            is_marked: state & 1 != 0,
            serial: le::u32_at(boot, serial),
        })
    }

    /// Whether there is a cluster of this number.
    pub(super) fn has(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..FIRST_CLUSTER + self.clusters).contains(&cluster)
    }

    /// Where some neighbouring clusters are in the volume, and how long they are together.
    pub(super) fn place(&self, clusters: &Range<u32>) -> (u64, u64) {
        let before = u64::from(clusters.start.saturating_sub(FIRST_CLUSTER));
        (self.data + before * self.cluster, clusters.len() as u64 * self.cluster)
    }
}

/// Whether a sector is the boot sector of a FAT file system, by the checks of `fat_read_bpb` of fs/fat/inode.c. Those of NTFS and
/// exFAT have zeros where the FATs are counted.
fn is_boot_sector(boot: &[u8]) -> bool {
    let [cluster_sectors, reserved, reserved_high, tables] = array_at(boot, 13);
    let [media] = array_at(boot, 21);
    let sector = le::u16_at(boot, 11);
    (512..=4096).contains(&sector)
        && sector.is_power_of_two()
        && cluster_sectors.is_power_of_two()
        && (reserved, reserved_high) != (0, 0)
        && tables != 0
        && matches!(media, 0xF0 | 0xF8..)
        && (le::u16_at(boot, 22) != 0 || le::u32_at(boot, 36) != 0)
}
