//! The table of file systems that are read natively, and the signatures of others.

use super::{BoxedFileSystem, Detected, Driver, Error, Problem, Volume, ext4, fat};

/// The file systems that are read natively, in the order in which they are probed.
///
/// To add a file system, add its directory to this module and its driver to this table.
pub const DRIVERS: &[Driver] = &[ext4::DRIVER, fat::DRIVER];

/// Opens the file system in a volume.
///
/// # Errors
///
/// [`Error::Unsupported`] if no driver supports the file system (its name is in the text if it is known) or if it uses features
/// that the driver does not support, [`Error::Corrupt`], [`Error::Io`].
pub async fn open(volume: Volume) -> Result<BoxedFileSystem, Error> {
    open_with(DRIVERS, volume).await
}

/// Opens the file system in a volume with one of `drivers`.
///
/// # Errors
///
/// Those of [`open`].
pub async fn open_with(drivers: &[Driver], volume: Volume) -> Result<BoxedFileSystem, Error> {
    for driver in drivers {
        if let Some(filesystem) = (driver.open)(volume.clone()).await? {
            return Ok(filesystem);
        }
    }
    Err(Error::Unsupported(match find_signature(&volume).await? {
        Some(name) => Problem::new(format!("{name} is not supported natively")),
        None => Problem::new("no known file system"),
    }))
}

/// Recognises the contents of a volume while reading as little as possible; `None` if they are unknown.
///
/// # Errors
///
/// Those of [`open`], except that a file system without a driver is no error.
pub async fn probe(volume: &Volume) -> Result<Option<Detected>, Error> {
    for driver in DRIVERS {
        if let Some(detected) = (driver.probe)(volume).await? {
            return Ok(Some(detected));
        }
    }
    Ok(find_signature(volume).await?.map(|name| Detected { name, in_use: None }))
}

/// Contents that are recognised but not read natively: offset of the signature in bytes, signature, name.
const SIGNATURES: [(u64, &[u8], &str); 14] = [
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (512, b"LABELONE", "an LVM volume"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a member of a RAID (md)"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS"),
    (0x400, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (0, b"hsqs", "squashfs"),
    (0x8001, b"CD001", "ISO 9660"),
    (0x1_0034, b"ReIsEr", "ReiserFS"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "bcachefs"),
];

/// Returns the name of contents that are recognised but not read natively.
async fn find_signature(volume: &Volume) -> Result<Option<&'static str>, Error> {
    for (offset, signature, name) in SIGNATURES {
        let is_inside = offset + signature.len() as u64 <= volume.size();
        if is_inside && volume.read(offset, signature.len()).await? == signature {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smol::block_on;

    use super::*;

    #[test]
    fn recognises_signatures() {
        for (offset, signature, name) in SIGNATURES {
            let mut disk = vec![0; 1 << 17];
            disk[offset as usize..][..signature.len()].copy_from_slice(signature);
            let volume = Volume::new(Arc::new(disk));
            let opened = block_on(open(volume.clone()));
            assert_eq!(
                opened.err(),
                Some(Error::Unsupported(Problem::new(format!("{name} is not supported natively"))))
            );
            assert_eq!(block_on(probe(&volume)), Ok(Some(Detected { name, in_use: None })));
        }
    }

    #[test]
    fn unknown_contents_are_unsupported() {
        for size in [0, 1, 512, 5000, 1 << 17] {
            let opened = block_on(open(Volume::new(Arc::new(vec![0; size]))));
            assert_eq!(opened.err(), Some(Error::Unsupported(Problem::new("no known file system"))), "{size} bytes");
        }
    }
}
