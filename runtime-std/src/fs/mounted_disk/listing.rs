//! Listing the files that are served from a disk, for the configuration check.

use super::{FileType, MountedDisk, MountedNode, Walk};
use crate::fs::{DirectoryEntry, Error};

/// A file, directory or link of a [`MountedDisk`].
#[derive(Debug)]
pub(crate) struct MountedEntry<'v> {
    /// The real path; empty for the top directory.
    path: Vec<u8>,
    node: MountedNode<'v>,
}

impl MountedDisk {
    /// Returns the directory that is the `tftp_root` of the description.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn root_directory(&self) -> Result<MountedEntry<'_>, Error> {
        let path = self.root.path().to_vec();
        let node = Walk::new(&self.mounts).find(&path).await?;
        let node = node.ok_or_else(|| Error::corrupt("tftp_root", "not found"))?;
        Ok(MountedEntry { path, node })
    }

    /// Returns the entries of a directory in the order of the disk, with mounted file systems in place of their mountpoints.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn read_directory<'v>(
        &'v self,
        directory: &MountedEntry<'v>,
    ) -> Result<Vec<MountedEntry<'v>>, Error> {
        let (filesystem, node) = directory.node;
        let walk = Walk::new(&self.mounts);
        let entries = filesystem.read_directory(node).await?.into_iter().map(|DirectoryEntry { name, node }| {
            let path = [&directory.path, &b"/"[..], &name].concat();
            let node = walk.mounted_on(&path).unwrap_or((filesystem, node));
            MountedEntry { path, node }
        });
        Ok(entries.collect())
    }
}

impl MountedEntry<'_> {
    /// Returns the name in the directory.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Returns the type.
    pub(crate) fn file_type(&self) -> FileType {
        self.node.1.file_type
    }

    /// Returns the size in bytes of a regular file, mapped as for a transfer.
    ///
    /// # Errors
    ///
    /// [`Error`], also if the contents could not be read.
    pub(crate) async fn size(&self) -> Result<u64, Error> {
        let (filesystem, node) = self.node;
        Ok(filesystem.map(node).await?.size)
    }
}
