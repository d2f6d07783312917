//! The signatures of contents that are recognised but not read natively.

use super::{Error, Volume, bytes::le};

/// A signature: its offset in bytes, its bytes, and the name of the contents.
pub(super) type Signature = (u64, &'static [u8], &'static str);

/// Containers of volumes. They take precedence over file systems, which may be left over from an earlier use of the volume.
pub(super) const CONTAINERS: [Signature; 13] = [
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (3, b"-FVE-FS-", "an encrypted volume (BitLocker)"),
    (0x018, b"LVM2 001", "an LVM volume"),
    (0x218, b"LVM2 001", "an LVM volume"),
    (0x418, b"LVM2 001", "an LVM volume"),
    (0x618, b"LVM2 001", "an LVM volume"),
    (0, b"\xfc\x4e\x2b\xa9\x01\0\0\0", MD),
    (0x1000, b"\xfc\x4e\x2b\xa9\x01\0\0\0", MD),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache or bcachefs device"),
    (0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9", "bcachefs"),
    // The first pair of the label, whose name is `version`.
    (0x4014, b"\0\0\0\x07version\0", "a member of a ZFS pool"),
    (0, b"VxFS", "VxFS"),
    (0x1000, b"\xef\xbe\xad\xde\xde\xc0\xad\xde", "a member of a Stratis pool"),
];

/// File systems and other contents without containers.
pub(super) const OTHERS: [Signature; 9] = [
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS"),
    (0x400, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (0, b"hsqs", "squashfs"),
    (0x8001, b"CD001", "ISO 9660"),
    (0x1_0034, b"ReIsEr", "ReiserFS"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0x1_0034, b"ReIsE2", "ReiserFS"),
];

const MD: &str = "a member of a RAID (md)";
/// The magic number of a member of an md array (`MD_SB_MAGIC`).
const MD_MAGIC: u32 = 0xa92b_4efc;

/// The signatures that were found in a volume.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) containers: Vec<&'static str>,
    pub(super) others: Vec<&'static str>,
}

/// The length in bytes of the front of a volume, which contains most signatures. Drivers read it in any case.
pub(super) const FRONT: u64 = 0x1200;

/// Finds the signatures at the front of a volume.
pub(super) async fn find_at_front(volume: &Volume) -> Result<Found, Error> {
    let front = volume.read(0, volume.size().min(FRONT) as usize).await?;
    let mut found = Found::default();
    found.add(0, &front);
    Ok(found)
}

/// Finds all signatures in a volume. Reads past the cache, since a driver needs other parts of the volume, and all at once.
pub(super) async fn find(volume: &Volume) -> Result<Found, Error> {
    let size = volume.size();
    let parts = [(0, FRONT), (0x4000, 0x200), (0x8000, 0x200), (0x1_0000, 0x200)];
    let ends = [md_offset(size), md_0_offset(size)].map(|offset| (offset.unwrap_or(size), 0x200));
    let mut reads = Vec::new();
    for (offset, len) in parts.into_iter().chain(ends) {
        let len = size.saturating_sub(offset).min(len);
        if len > 0 {
            let at = volume.disk_offset(offset, len)?;
            reads.push((offset, volume.device().read(at, len as usize)));
        }
    }
    let mut found = Found::default();
    for (offset, read) in reads {
        let bytes = read.await?;
        found.add(offset, &bytes);
        let (magic, version) = (le::u32_at(&bytes, 0), le::u32_at(&bytes, 4));
        let is_md_0 = md_0_offset(size) == Some(offset) && version == 0;
        let is_md = md_offset(size) == Some(offset) && version == 1 && le::u64_at(&bytes, 144) == offset / 512;
        if magic == MD_MAGIC && (is_md_0 || is_md) && !found.containers.contains(&MD) {
            found.containers.push(MD);
        }
    }
    Ok(found)
}

impl Found {
    /// Adds the signatures that the bytes at `offset` contain.
    fn add(&mut self, offset: u64, bytes: &[u8]) {
        add(&mut self.containers, &CONTAINERS, offset, bytes);
        add(&mut self.others, &OTHERS, offset, bytes);
    }
}

/// Adds the names of those signatures that the bytes at `offset` contain, without repetition.
fn add(found: &mut Vec<&'static str>, signatures: &[Signature], offset: u64, bytes: &[u8]) {
    for (at, signature, name) in signatures {
        let here = at.checked_sub(offset).and_then(|at| bytes.get(at as usize..));
        if here.is_some_and(|bytes| bytes.starts_with(signature)) && !found.contains(name) {
            found.push(*name);
        }
    }
}

/// Returns the offset of the superblock of an md array of version 0.90 in a member (`super0.c` of mdadm).
fn md_0_offset(size: u64) -> Option<u64> {
    const UNIT: u64 = 64 << 10;
    (size & !(UNIT - 1)).checked_sub(UNIT)
}

/// Returns the offset of the superblock of version 1.0 (`super1.c` of mdadm). Those of 1.1 and 1.2 are at the front.
fn md_offset(size: u64) -> Option<u64> {
    Some(((size / 512).checked_sub(16)? & !7) * 512)
}
