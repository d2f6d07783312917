//! The little-endian numbers in the structures of a file system.
//!
//! What lies behind the end of a structure reads as zeros: that is what the fields mean that an older, shorter one does not have.

/// The 16 bits at a place.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

/// The 32 bits at a place.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

/// The 64 bits whose lower and upper halves are at two places.
pub(super) fn split64(bytes: &[u8], low: usize, high: usize) -> u64 {
    u64::from(le32(bytes, high)) << 32 | u64::from(le32(bytes, low))
}

/// As many bytes at a place as are wanted.
pub(super) fn array<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    bytes.get(at..)?.first_chunk().copied()
}
