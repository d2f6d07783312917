//! Integers in structures on disks. Bytes beyond the end of a structure read as zero.

/// Little-endian integers.
pub(super) mod le {
    use super::array_at;

    /// Returns the 16-bit integer at offset `at`.
    pub(in super::super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_le_bytes(array_at(bytes, at))
    }

    /// Returns the 32-bit integer at offset `at`.
    pub(in super::super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(array_at(bytes, at))
    }

    /// Returns the 64-bit integer at offset `at`.
    pub(in super::super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(array_at(bytes, at))
    }

    /// Returns the 64-bit integer whose low and high halves are stored separately.
    pub(in super::super) fn split_u64_at(bytes: &[u8], low: usize, high: usize) -> u64 {
        u64::from(u32_at(bytes, high)) << 32 | u64::from(u32_at(bytes, low))
    }
}

/// Big-endian integers.
pub(super) mod be {
    use super::array_at;

    /// Returns the 16-bit integer at offset `at`.
    pub(in super::super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(array_at(bytes, at))
    }

    /// Returns the 32-bit integer at offset `at`.
    pub(in super::super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(array_at(bytes, at))
    }

    /// Returns the 64-bit integer at offset `at`.
    pub(in super::super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(array_at(bytes, at))
    }
}

/// Returns the `N` bytes at offset `at`.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}
