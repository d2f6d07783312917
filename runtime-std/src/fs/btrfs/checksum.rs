//! The checksums of metadata (Linux, `fs/btrfs/fs.c`, `btrfs_csums`).

use crate::fs::{Error, Object, checksum::Checksum};

/// The size of the field in front of a structure in bytes, whatever the algorithm.
const FIELD: usize = 32;

/// Returns the algorithm with a number in a superblock.
///
/// # Errors
///
/// [`Error::Unsupported`] if it is unknown.
pub(super) fn from_number(number: u16) -> Result<Checksum, Error> {
    match number {
        0 => Ok(Checksum::Crc32c),
        1 => Ok(Checksum::XxHash64),
        2 => Ok(Checksum::Sha256),
        3 => Ok(Checksum::Blake2b),
        _ => Err(Error::unsupported("superblock", format!("unsupported features checksum type {number}"))),
    }
}

/// Compares the checksum of a structure with that in its first bytes.
///
/// # Errors
///
/// [`Error::Corrupt`], naming `object`.
pub(super) fn verify(checksum: Checksum, structure: &[u8], object: impl Into<Object>) -> Result<(), Error> {
    let intact = structure
        .split_at_checked(FIELD)
        .is_some_and(|(field, bytes)| field.get(..checksum.len()).is_some_and(|sum| checksum.matches(bytes, sum)));
    match intact {
        true => Ok(()),
        false => Err(Error::corrupt(object, "checksum mismatch: damaged, or being written")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_checksums_are_rejected_by_their_number() {
        let error = from_number(4).expect_err("unknown");
        assert_eq!(error.to_string(), "superblock: unsupported features checksum type 4");
    }
}
