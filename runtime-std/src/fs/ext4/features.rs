//! What a file system uses that the first of its kind did not have.

use crate::fs::bytes::le;

/// A feature: in which word of the superblock it is named, and by which bit. The numbers are those of Linux, `fs/ext4/ext4.h`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature(Word, u32);

#[derive(Debug, Clone, Copy)]
enum Word {
    /// Features that one need not know.
    Compatible,
    /// Features that one must know to read.
    Incompatible,
    /// Features that one must know to write.
    ReadOnly,
}

impl Feature {
    pub(super) const HAS_JOURNAL: Self = Self(Word::Compatible, 0x4);
    pub(super) const DIR_INDEX: Self = Self(Word::Compatible, 0x20);
    pub(super) const SPARSE_SUPER2: Self = Self(Word::Compatible, 0x200);
    pub(super) const NEEDS_RECOVERY: Self = Self(Word::Incompatible, 0x4);
    pub(super) const META_BG: Self = Self(Word::Incompatible, 0x10);
    pub(super) const SIXTY_FOUR: Self = Self(Word::Incompatible, 0x80);
    pub(super) const CHECKSUM_SEED: Self = Self(Word::Incompatible, 0x2000);
    pub(super) const SPARSE_SUPER: Self = Self(Word::ReadOnly, 0x1);
    pub(super) const GROUP_CHECKSUM: Self = Self(Word::ReadOnly, 0x10);
    pub(super) const METADATA_CHECKSUM: Self = Self(Word::ReadOnly, 0x400);
}

/// The features that must be known to read, with their names, and whether they are.
const INCOMPATIBLE: [(u32, &str, bool); 16] = [
    (0x1, "compression", false),
    (0x2, "filetype", true),
    (0x4, "needs_recovery", true),
    (0x8, "journal_dev", false),
    (0x10, "meta_bg", true),
    (0x40, "extent", true),
    (0x80, "64bit", true),
    (0x100, "mmp", true),
    (0x200, "flex_bg", true),
    (0x400, "ea_inode", true),
    (0x1000, "dirdata", false),
    (0x2000, "metadata_csum_seed", true),
    (0x4000, "large_dir", true),
    (0x8000, "inline_data", true),
    (0x1_0000, "encrypt", true),
    (0x2_0000, "casefold", true),
];

/// Which features a superblock names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    compatible: u32,
    incompatible: u32,
    read_only: u32,
}

impl Features {
    /// Reads them from a superblock.
    pub(super) fn parse(superblock: &[u8]) -> Self {
        let [compatible, incompatible, read_only] = [0x5c, 0x60, 0x64].map(|at| le::u32_at(superblock, at));
        Self { compatible, incompatible, read_only }
    }

    pub(super) fn has(self, Feature(word, bit): Feature) -> bool {
        let word = match word {
            Word::Compatible => self.compatible,
            Word::Incompatible => self.incompatible,
            Word::ReadOnly => self.read_only,
        };
        word & bit != 0
    }

    /// The names of those that must be known to read, and are not.
    pub(super) fn unknown(self) -> Vec<String> {
        let bits = (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| self.incompatible & bit != 0);
        bits.filter_map(|bit| match INCOMPATIBLE.iter().find(|known| known.0 == bit) {
            Some((_, _, true)) => None,
            Some((_, name, false)) => Some((*name).to_owned()),
            None => Some(format!("incompatible feature {bit:#x}")),
        })
        .collect()
    }

    /// What `blkid` calls a file system with these features.
    pub(super) fn name(self) -> &'static str {
        // filetype, needs_recovery, meta_bg; sparse_super, large_file, and one that was never used
        let is_old = self.incompatible & !0x16 == 0 && self.read_only & !0x7 == 0;
        match self.has(Feature::HAS_JOURNAL) {
            _ if !is_old => "ext4",
            true => "ext3",
            false => "ext2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named() {
        let features = |incompatible| Features { compatible: 0, incompatible, read_only: u32::MAX };
        assert_eq!(features(0x0003_e7d6).unknown(), [""; 0]);
        assert_eq!(features(0x8000_1002).unknown(), ["dirdata", "incompatible feature 0x80000000"]);
        assert_eq!(features(u32::MAX).unknown().len(), 32 - 13);
    }

    #[test]
    fn names_are_those_of_blkid() {
        let name = |compatible, incompatible, read_only| Features { compatible, incompatible, read_only }.name();
        assert_eq!(name(0x38, 0x2, 0x3), "ext2");
        assert_eq!(name(0x3c, 0x6, 0x3), "ext3");
        assert_eq!(name(0x3c, 0x46, 0x3), "ext4");
        assert_eq!(name(0x38, 0x2, 0x8), "ext4");
    }
}
