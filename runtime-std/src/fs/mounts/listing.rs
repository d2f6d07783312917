//! Looking through all of what is served, for who wants to know what there is.

use super::{Kind, Place, View, Walk};
use crate::fs::Error;

/// Something on a disk with its file systems mounted.
#[derive(Debug)]
pub(crate) struct Entry<'v> {
    /// Its real path; empty for the top of the disk.
    path: Vec<u8>,
    place: Place<'v>,
}

impl View {
    /// The directory that is the description's `tftp_root`.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn top(&self) -> Result<Entry<'_>, Error> {
        let path = self.root.as_ref().map(|root| root.path().to_vec()).unwrap_or_default();
        let place = Walk::of(self).find(&path).await?;
        let place = place.ok_or_else(|| Error::Corrupt("tftp_root: not found".into()))?;
        Ok(Entry { path, place })
    }

    /// What is in a directory, in the order of the disk, with what is mounted in place of what it is mounted on.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn list<'v>(&'v self, directory: &Entry<'v>) -> Result<Vec<Entry<'v>>, Error> {
        let (filesystem, node) = directory.place;
        let walk = Walk::of(self);
        let entries = filesystem.list(node).await?.into_iter().map(|(name, node)| {
            let path = [&directory.path, &b"/"[..], &name].concat();
            let place = walk.mounted_on(&path).unwrap_or((filesystem, node));
            Entry { path, place }
        });
        Ok(entries.collect())
    }
}

impl Entry<'_> {
    /// Its name in its directory.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.place.1.kind
    }

    /// How long a regular file is, in bytes, found as it is for a client.
    ///
    /// # Errors
    ///
    /// [`Error`], also if its bytes could not be read.
    pub(crate) async fn size(&self) -> Result<u64, Error> {
        let (filesystem, node) = self.place;
        Ok(filesystem.file(node).await?.size)
    }
}
