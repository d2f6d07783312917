//! The checksums of a file system's own structures (feature `metadata_csum`).

use crc::{CRC_32_ISCSI, Crc};

use super::super::{Error, Object};

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// What the checksum of a structure begins with: it stands for the file system and the inode that the structure belongs to.
/// Nothing is verified if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(Option<u32>);

impl Seed {
    /// There are no checksums.
    pub(super) const NONE: Self = Self(None);
    /// Nothing has gone in yet.
    pub(super) const NEW: Self = Self(Some(u32::MAX));

    /// A seed that is kept as a number.
    pub(super) fn kept(seed: u32) -> Self {
        Self(Some(seed))
    }

    /// The seed after some more bytes.
    #[must_use]
    pub(super) fn and(self, bytes: &[u8]) -> Self {
        Self(self.0.map(|seed| crc32c(seed, bytes)))
    }

    /// Compares with the checksum that was kept.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], which names what was compared.
    pub(super) fn verify(self, kept: u32, object: impl Into<Object>) -> Result<(), Error> {
        if self.0.is_none_or(|sum| sum == kept) { Ok(()) } else { Err(mismatch(object)) }
    }

    /// Compares with a checksum of which only the lower half was kept.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], which names what was compared.
    pub(super) fn verify_half(self, kept: u16, object: impl Into<Object>) -> Result<(), Error> {
        Self(self.0.map(|sum| sum & 0xffff)).verify(kept.into(), object)
    }
}

/// The error for something that is not what its checksum says.
pub(super) fn mismatch(object: impl Into<Object>) -> Error {
    Error::corrupt(object, "checksum mismatch: damaged, or being written")
}

/// CRC-32C going on from an earlier result, without the inversion at the end: so Linux counts it.
fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_where_it_stopped() {
        assert_eq!(Seed::NEW.and(b"123456789"), Seed::kept(!0xe306_9283), "the check value of the catalogue of CRCs");
        assert_eq!(Seed::NEW.and(b"1234").and(b"").and(b"56789"), Seed::NEW.and(b"123456789"));
    }

    #[test]
    fn a_mismatch_says_what_and_why() {
        let seed = Seed::kept(0x0001_0002);
        assert_eq!(seed.verify(0x0001_0002, "it"), Ok(()));
        assert_eq!(seed.verify_half(2, "it"), Ok(()));
        let text = seed.verify(2, "inode 12").expect_err("the upper half differs").to_string();
        assert!(text.starts_with("inode 12: checksum mismatch"), "{text}");
        assert!(seed.verify_half(3, "it").is_err());
        assert_eq!(Seed::NONE.and(b"more").verify(7, "it"), Ok(()));
    }
}
