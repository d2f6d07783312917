//! CRC-32C checksums of metadata (Linux, `fs/xfs/libxfs/xfs_cksum.h`): each is stored in the structure that it covers, as a
//! little-endian integer, and computed with zeros in its place.

use crate::fs::{Error, Object, bytes::le};

/// Returns the checksum of `bytes` with zeros in place of the checksum at offset `at`.
pub(super) fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let (before, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default())
}

/// Compares `bytes` with the checksum that they store at offset `at`.
///
/// # Errors
///
/// [`Error::Corrupt`], naming `object`.
pub(super) fn verify(bytes: &[u8], at: usize, object: impl Into<Object>) -> Result<(), Error> {
    if crc_without(bytes, at) == le::u32_at(bytes, at) {
        Ok(())
    } else {
        Err(Error::corrupt(object, "checksum mismatch: damaged, or being written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_not_part_of_itself() {
        let mut bytes = b"1234....56789".to_vec();
        let crc = crc32c::crc32c(b"1234\0\0\0\x0056789");
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(verify(&bytes, 4, "it"), Ok(()));
        bytes[0] = b'0';
        assert!(verify(&bytes, 4, "it").is_err_and(|error| error.to_string().starts_with("it: checksum mismatch")));
        assert_eq!(crc_without(b"12", 4), crc32c::crc32c(b"12\0\0\0\0"));
    }
}
