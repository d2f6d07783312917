//! CRC-32C checksums of metadata (feature `metadata_csum`; Linux, `Documentation/filesystems/ext4/checksums.rst`).

use crate::fs::{Error, Object};

/// The initial value of a CRC-32C.
pub(super) const CRC32C_INIT: u32 = u32::MAX;

/// Continues a CRC-32C from an earlier result, without the final inversion, as Linux's `crc32c` does.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!crc, bytes)
}

/// A running CRC-32C over metadata, or nothing in a file system without `metadata_csum`: then every comparison succeeds.
///
/// The value over the file system's UUID seeds the checksums of its structures (`s_csum_seed`); continued over an inode's number and
/// generation, it seeds those of the inode's blocks (`i_csum_seed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum(Option<u32>);

impl Checksum {
    /// Metadata has no checksums.
    pub(super) const NONE: Self = Self(None);
    /// The checksum of no bytes.
    pub(super) const INIT: Self = Self(Some(CRC32C_INIT));

    /// Continues from a stored value (`s_checksum_seed`).
    pub(super) fn from_seed(seed: u32) -> Self {
        Self(Some(seed))
    }

    /// Returns the checksum continued over `bytes`.
    #[must_use]
    pub(super) fn update(self, bytes: &[u8]) -> Self {
        Self(self.0.map(|crc| crc32c(crc, bytes)))
    }

    /// Compares with the checksum that `object` stores.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], naming `object`.
    pub(super) fn verify(self, stored: u32, object: impl Into<Object>) -> Result<(), Error> {
        if self.0.is_none_or(|crc| crc == stored) { Ok(()) } else { Err(mismatch(object)) }
    }

    /// Compares the low 16 bits with those that `object` stores.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], naming `object`.
    pub(super) fn verify_low(self, stored: u16, object: impl Into<Object>) -> Result<(), Error> {
        Self(self.0.map(|crc| crc & 0xffff)).verify(stored.into(), object)
    }
}

/// Returns the error for a structure that differs from its checksum.
pub(super) fn mismatch(object: impl Into<Object>) -> Error {
    Error::corrupt(object, "checksum mismatch: damaged, or being written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_over_consecutive_parts() {
        let whole = Checksum::INIT.update(b"123456789");
        assert_eq!(whole, Checksum::from_seed(!0xe306_9283), "the check value of CRC-32/ISCSI");
        assert_eq!(Checksum::INIT.update(b"1234").update(b"").update(b"56789"), whole);
    }

    #[test]
    fn mismatch_names_object_and_problem() {
        let checksum = Checksum::from_seed(0x0001_0002);
        assert_eq!(checksum.verify(0x0001_0002, "it"), Ok(()));
        assert_eq!(checksum.verify_low(2, "it"), Ok(()));
        let text = checksum.verify(2, "inode 12").expect_err("the upper half differs").to_string();
        assert!(text.starts_with("inode 12: checksum mismatch"), "{text}");
        assert!(checksum.verify_low(3, "it").is_err());
        assert_eq!(Checksum::NONE.update(b"more").verify(7, "it"), Ok(()));
    }
}
