//! Algorithms of checksums.

use blake2::{Blake2b256, Digest};
use ring::digest::{SHA256, digest};
use twox_hash::XxHash64;

/// An algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    /// Returns the length of a checksum in bytes.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::XxHash64 => 8,
            Self::Sha256 | Self::Blake2b => 32,
        }
    }

    /// Returns whether `sum` is the checksum of some bytes, or its first bytes.
    pub(super) fn matches(self, bytes: &[u8], sum: &[u8]) -> bool {
        match self {
            Self::Crc32c => crc32c::crc32c(bytes).to_le_bytes().starts_with(sum),
            Self::XxHash64 => XxHash64::oneshot(0, bytes).to_le_bytes().starts_with(sum),
            Self::Sha256 => digest(&SHA256, bytes).as_ref().starts_with(sum),
            Self::Blake2b => Blake2b256::digest(bytes).starts_with(sum),
        }
    }
}
