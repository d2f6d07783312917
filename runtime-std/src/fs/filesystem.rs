//! A file system of any kind that is read here.

use super::{Error, File, Node, Volume, ext4::Ext, fat::Fat};

/// A file system that is read natively.
#[derive(Debug)]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext(Ext),
    /// FAT12, FAT16 or FAT32.
    Fat(Fat),
}

/// What a volume holds, as [`FileSystem::probe`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is called: `ext4`, `XFS`.
    pub name: &'static str,
    /// Whether its owner has it mounted, or never unmounted it; `None` if that cannot be told.
    pub in_use: Option<bool>,
}

impl FileSystem {
    /// Opens what a volume holds.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] names what else it holds, if that is known.
    pub async fn open(volume: Volume) -> Result<Self, Error> {
        if let Some(ext) = Ext::open(volume.clone()).await? {
            return Ok(Self::Ext(ext));
        }
        if let Some(fat) = Fat::open(volume.clone()).await? {
            return Ok(Self::Fat(fat));
        }
        Err(Error::Unsupported(match identify(&volume).await? {
            Some(name) => format!("{name}, which is not read natively"),
            None => "no file system that is known".into(),
        }))
    }

    /// Tells what a volume holds without reading more of it than that takes; `None` if that is nothing known.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but a file system that is not read natively is none.
    pub async fn probe(volume: &Volume) -> Result<Option<Found>, Error> {
        if let Some((name, in_use)) = Ext::probe(volume).await? {
            return Ok(Some(Found { name, in_use: Some(in_use) }));
        }
        if let Some(fat) = Fat::open(volume.clone()).await? {
            return Ok(Some(Found { name: fat.name(), in_use: Some(fat.is_in_use()) }));
        }
        Ok(identify(volume).await?.map(|name| Found { name, in_use: None }))
    }

    /// What it is called: `ext4`, `FAT32`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ext(ext) => ext.name(),
            Self::Fat(fat) => fat.name(),
        }
    }

    /// Whether its owner has it mounted, or never unmounted it.
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Ext(ext) => ext.is_in_use(),
            Self::Fat(fat) => fat.is_in_use(),
        }
    }

    /// The top directory.
    pub fn root(&self) -> Node {
        match self {
            Self::Ext(ext) => ext.root(),
            Self::Fat(fat) => fat.root(),
        }
    }

    /// Finds a name in a directory; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn lookup(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Error> {
        match self {
            Self::Ext(ext) => ext.lookup(directory, name).await,
            Self::Fat(fat) => fat.lookup(directory, name).await,
        }
    }

    /// All names of a directory but `.` and `..`, in the order of the disk.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn list(&self, directory: Node) -> Result<Vec<(Vec<u8>, Node)>, Error> {
        match self {
            Self::Ext(ext) => ext.list(directory).await,
            Self::Fat(fat) => fat.list(directory).await,
        }
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    ///
    /// [`Error`]; FAT has no links.
    pub async fn link(&self, link: Node) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ext(ext) => ext.link(link).await,
            Self::Fat(_) => Err(Error::Corrupt("a link on a FAT file system".into())),
        }
    }

    /// A regular file and where its bytes are.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn file(&self, file: Node) -> Result<File, Error> {
        match self {
            Self::Ext(ext) => ext.file(file).await,
            Self::Fat(fat) => fat.file(file).await,
        }
    }
}

/// Where what is not read natively shows itself: at this byte are these bytes.
const SIGNATURES: [(u64, &[u8], &str); 14] = [
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (512, b"LABELONE", "an LVM volume"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a part of a RAID (md)"),
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

/// Says what a volume holds that is not read natively.
async fn identify(volume: &Volume) -> Result<Option<&'static str>, Error> {
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
    use crate::fs::Cache;

    #[test]
    fn what_is_not_read_is_named() {
        for (offset, signature, name) in SIGNATURES {
            let mut disk = vec![0; 1 << 17];
            disk[offset as usize..][..signature.len()].copy_from_slice(signature);
            let volume = Volume::whole(&Cache::new(Arc::new(disk)));
            let opened = block_on(FileSystem::open(volume.clone()));
            assert_eq!(opened.err(), Some(Error::Unsupported(format!("{name}, which is not read natively"))));
            assert_eq!(block_on(FileSystem::probe(&volume)), Ok(Some(Found { name, in_use: None })));
        }
    }

    #[test]
    fn nothing_known_is_said_to_be_that() {
        for size in [0, 1, 512, 5000, 1 << 17] {
            let opened = block_on(FileSystem::open(Volume::whole(&Cache::new(Arc::new(vec![0; size])))));
            assert_eq!(opened.err(), Some(Error::Unsupported("no file system that is known".into())), "{size}");
        }
    }
}
