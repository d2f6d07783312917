//! Feature flags of the superblock (Linux, `fs/xfs/libxfs/xfs_format.h`).

use crate::fs::bytes::be;

/// The incompatible features of version 5: flag, name in xfsprogs, and whether this driver supports it.
const INCOMPAT: [(u32, &str, bool); 11] = [
    (FTYPE, "ftype", true),
    (0x2, "spinodes", true),
    (META_UUID, "meta_uuid", true),
    (0x8, "bigtime", true),
    (0x10, "needsrepair (run xfs_repair)", false),
    (0x20, "nrext64", true),
    (0x40, "exchange", true),
    (0x80, "parent", true),
    (0x100, "metadir", true),
    (0x200, "zoned", false),
    (0x400, "zone_gaps", false),
];
const FTYPE: u32 = 0x1;
const META_UUID: u32 = 0x4;
/// The features that matter only if the log is replayed: logged extended attributes, which this driver ignores.
const KNOWN_LOG_INCOMPAT: u32 = 0x1;

// Flags of `sb_versionnum`, whose low four bits are the version.
const VERSION_MASK: u16 = 0xf;
const DIRV2: u16 = 0x2000;
const ASCII_CI: u16 = 0x4000;
const MORE_BITS: u16 = 0x8000;
/// The flag of `sb_features2` for file types in directories of version 4.
const FEATURES2_FTYPE: u32 = 0x200;

/// The features of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    /// Whether this is version 5: all metadata has checksums, and inodes are of version 3. Otherwise this is version 4.
    pub(super) is_v5: bool,
    /// Whether directory entries have a file type.
    pub(super) has_ftype: bool,
    /// Whether metadata has a UUID other than the one of the file system.
    pub(super) has_meta_uuid: bool,
    versionnum: u16,
    incompat: u32,
    log_incompat: u32,
}

impl Features {
    /// Parses the flags in a superblock.
    pub(super) fn parse(superblock: &[u8]) -> Self {
        let versionnum = be::u16_at(superblock, 100);
        let is_v5 = versionnum & VERSION_MASK == 5;
        let features2 = if versionnum & MORE_BITS != 0 { be::u32_at(superblock, 200) } else { 0 };
        let incompat = if is_v5 { be::u32_at(superblock, 216) } else { 0 };
        let log_incompat = if is_v5 { be::u32_at(superblock, 220) } else { 0 };
        Self {
            is_v5,
            has_ftype: if is_v5 { incompat & FTYPE != 0 } else { features2 & FEATURES2_FTYPE != 0 },
            has_meta_uuid: incompat & META_UUID != 0,
            versionnum,
            incompat,
            log_incompat,
        }
    }

    /// Returns the names of the features that prevent reading because this driver does not support them.
    pub(super) fn unsupported(self) -> Vec<String> {
        let version = self.versionnum & VERSION_MASK;
        if !matches!(version, 4 | 5) {
            return vec![format!("version {version}")];
        }
        let mut names = Vec::new();
        if self.versionnum & DIRV2 == 0 {
            names.push("directories of version 1".to_owned());
        }
        if self.versionnum & ASCII_CI != 0 {
            names.push("ascii-ci (case-insensitive names)".to_owned());
        }
        let flags = (0..u32::BITS).map(|bit| 1 << bit).filter(|flag| self.incompat & flag != 0);
        names.extend(flags.filter_map(|flag| match INCOMPAT.iter().find(|known| known.0 == flag) {
            Some((_, _, true)) => None,
            Some((_, name, false)) => Some((*name).to_owned()),
            None => Some(format!("incompatible feature {flag:#x}")),
        }));
        names
    }

    /// Returns the flags of unknown features that prevent a replay of the log.
    pub(super) fn unknown_log_features(self) -> u32 {
        self.log_incompat & !KNOWN_LOG_INCOMPAT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(versionnum: u16, incompat: u32) -> Features {
        let mut bytes = vec![0; 512];
        bytes[100..102].copy_from_slice(&versionnum.to_be_bytes());
        bytes[216..220].copy_from_slice(&incompat.to_be_bytes());
        Features::parse(&bytes)
    }

    #[test]
    fn names_unsupported_features() {
        assert_eq!(features(0xb4a5, 0x1ef).unsupported(), [""; 0]);
        assert_eq!(
            features(0xb4a5, 0x8000_0011).unsupported(),
            ["needsrepair (run xfs_repair)", "incompatible feature 0x80000000"]
        );
        assert_eq!(
            features(0x84a4, u32::MAX).unsupported(),
            ["directories of version 1"],
            "version 4 has no such word"
        );
        assert_eq!(features(0xf4a5, 0).unsupported(), ["ascii-ci (case-insensitive names)"]);
        assert_eq!(features(0xb4a3, 0).unsupported(), ["version 3"]);
    }
}
