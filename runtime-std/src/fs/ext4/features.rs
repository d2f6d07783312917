//! Feature flags of the superblock.

use crate::fs::bytes::le;

/// A feature: the word of the superblock that contains its flag, and the flag (Linux, `fs/ext4/ext4.h`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature(Word, u32);

#[derive(Debug, Clone, Copy)]
enum Word {
    /// `s_feature_compat`: an unknown feature prevents neither reading nor writing.
    Compat,
    /// `s_feature_incompat`: an unknown feature prevents reading and writing.
    Incompat,
    /// `s_feature_ro_compat`: an unknown feature prevents writing.
    RoCompat,
}

impl Feature {
    pub(super) const HAS_JOURNAL: Self = Self(Word::Compat, 0x4);
    pub(super) const DIR_INDEX: Self = Self(Word::Compat, 0x20);
    pub(super) const SPARSE_SUPER2: Self = Self(Word::Compat, 0x200);
    pub(super) const RECOVER: Self = Self(Word::Incompat, 0x4);
    pub(super) const META_BG: Self = Self(Word::Incompat, 0x10);
    pub(super) const BIT64: Self = Self(Word::Incompat, 0x80);
    pub(super) const CSUM_SEED: Self = Self(Word::Incompat, 0x2000);
    pub(super) const SPARSE_SUPER: Self = Self(Word::RoCompat, 0x1);
    pub(super) const GDT_CSUM: Self = Self(Word::RoCompat, 0x10);
    pub(super) const METADATA_CSUM: Self = Self(Word::RoCompat, 0x400);
}

/// The incompatible features: flag, name in e2fsprogs, and whether this driver supports it.
const INCOMPAT: [(u32, &str, bool); 16] = [
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

/// The feature flags of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    compat: u32,
    incompat: u32,
    ro_compat: u32,
}

impl Features {
    /// Parses the flags in a superblock.
    pub(super) fn parse(superblock: &[u8]) -> Self {
        let [compat, incompat, ro_compat] = [0x5c, 0x60, 0x64].map(|at| le::u32_at(superblock, at));
        Self { compat, incompat, ro_compat }
    }

    /// Returns whether the file system has a feature.
    pub(super) fn has(self, Feature(word, flag): Feature) -> bool {
        let word = match word {
            Word::Compat => self.compat,
            Word::Incompat => self.incompat,
            Word::RoCompat => self.ro_compat,
        };
        word & flag != 0
    }

    /// Returns the names of the features that prevent reading because this driver does not support them.
    pub(super) fn unsupported(self) -> Vec<String> {
        let flags = (0..u32::BITS).map(|bit| 1 << bit).filter(|flag| self.incompat & flag != 0);
        flags
            .filter_map(|flag| match INCOMPAT.iter().find(|known| known.0 == flag) {
                Some((_, _, true)) => None,
                Some((_, name, false)) => Some((*name).to_owned()),
                None => Some(format!("incompatible feature {flag:#x}")),
            })
            .collect()
    }

    /// Returns the type that `blkid` reports for these features: `ext2`, `ext3` or `ext4`.
    pub(super) fn type_name(self) -> &'static str {
        // filetype, needs_recovery and meta_bg
        const EXT3_INCOMPAT: u32 = 0x16;
        // sparse_super, large_file and btree_dir
        const EXT3_RO_COMPAT: u32 = 0x7;
        let is_ext4 = self.incompat & !EXT3_INCOMPAT != 0 || self.ro_compat & !EXT3_RO_COMPAT != 0;
        match self.has(Feature::HAS_JOURNAL) {
            _ if is_ext4 => "ext4",
            true => "ext3",
            false => "ext2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_unsupported_features() {
        let features = |incompat| Features { compat: 0, incompat, ro_compat: u32::MAX };
        assert_eq!(features(0x0003_e7d6).unsupported(), [""; 0]);
        assert_eq!(features(0x8000_1002).unsupported(), ["dirdata", "incompatible feature 0x80000000"]);
        assert_eq!(features(u32::MAX).unsupported().len(), 32 - 13);
    }

    #[test]
    fn type_names_are_those_of_blkid() {
        let name = |compat, incompat, ro_compat| Features { compat, incompat, ro_compat }.type_name();
        assert_eq!(name(0x38, 0x2, 0x3), "ext2");
        assert_eq!(name(0x3c, 0x6, 0x3), "ext3");
        assert_eq!(name(0x3c, 0x46, 0x3), "ext4");
        assert_eq!(name(0x38, 0x2, 0x8), "ext4");
    }
}
