//! The checksums of metadata (Linux, `fs/btrfs/fs.c`, `btrfs_csums`).

use blake2::{Blake2b256, Digest};
use ring::digest::{SHA256, digest};
use twox_hash::XxHash64;

use crate::fs::{Error, Object};

/// The size of the field in front of a structure in bytes, whatever the algorithm.
const FIELD: usize = 32;

/// The algorithm of the checksums of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    /// Parses the number of an algorithm in a superblock.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if it is unknown.
    pub(super) fn from_number(number: u16) -> Result<Self, Error> {
        match number {
            0 => Ok(Self::Crc32c),
            1 => Ok(Self::XxHash64),
            2 => Ok(Self::Sha256),
            3 => Ok(Self::Blake2b),
            _ => Err(Error::unsupported("superblock", format!("unsupported features checksum type {number}"))),
        }
    }

    /// Compares the checksum of a structure with that in its first bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], naming `object`.
    pub(super) fn verify(self, structure: &[u8], object: impl Into<Object>) -> Result<(), Error> {
        let is_intact = structure.split_at_checked(FIELD).is_some_and(|(field, bytes)| {
            let is_field = |sum: &[u8]| field.starts_with(sum);
            match self {
                Self::Crc32c => is_field(&crc32c::crc32c(bytes).to_le_bytes()),
                Self::XxHash64 => is_field(&XxHash64::oneshot(0, bytes).to_le_bytes()),
                Self::Sha256 => is_field(digest(&SHA256, bytes).as_ref()),
                Self::Blake2b => is_field(&Blake2b256::digest(bytes)),
            }
        });
        match is_intact {
            true => Ok(()),
            false => Err(Error::corrupt(object, "checksum mismatch: damaged, or being written")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_checksums_are_rejected_by_their_number() {
        let error = Checksum::from_number(4).expect_err("unknown");
        assert_eq!(error.to_string(), "superblock: unsupported features checksum type 4");
    }
}
