//! Looking for files anywhere on a disk, not only below the directory that is served.

use rtftp_core::RequestPath;

use super::{MountedDisk, MountedNode, PATH_WORK, Walk, metered};
use crate::fs::{DirectoryEntry, Error, ResolveError, resolve, resolve::Root, work::count_read};

/// The work of listing a directory, in bytes read. The memory for its names is proportional to it.
const LIST_WORK: u64 = 1 << 20;
/// The memory for the names of a directory in bytes, reserved while they are listed.
const LIST_MEMORY: usize = 8 << 20;
/// The memory for what else an operation keeps of small files, in bytes.
const OPERATION_MEMORY: usize = 4 << 20;

impl MountedDisk {
    /// Runs an operation that calls other functions of this disk, with the budget of work of one path for all of them, and with memory
    /// for what it keeps.
    ///
    /// # Errors
    ///
    /// Those of the operation, and [`Error::OutOfMemory`].
    pub(crate) async fn with_budget<T>(&self, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let _memory = self.memory.reserve(OPERATION_MEMORY).map_err(Error::OutOfMemory)?;
        metered(&self.work, PATH_WORK, operation).await
    }

    /// Returns the names in the directory at this absolute path; none if there is no such directory.
    ///
    /// # Errors
    ///
    /// [`Error`], also if the directory is larger than 1 MiB.
    pub(crate) async fn list_directory(&self, path: &str) -> Result<Vec<Vec<u8>>, Error> {
        let list = async {
            let Some(real) = self.real_directory(path).await? else { return Ok(vec![]) };
            let Some((filesystem, node)) = Walk::new(&self.mounts).find(&real).await? else { return Ok(vec![]) };
            let _memory = self.memory.reserve(LIST_MEMORY).map_err(Error::OutOfMemory)?;
            let entries = filesystem.read_directory(node).await?;
            Ok(entries.into_iter().map(|DirectoryEntry { name, .. }| name).collect())
        };
        metered(&self.work, LIST_WORK, list).await
    }

    /// Reads the file at this absolute path; `None` if there is no such file, or if it has more than `max` bytes.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn read_file(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some((_, (filesystem, node))) = self.resolve(path).await? else { return Ok(None) };
        let map = filesystem.map(node).await?;
        if map.size > max as u64 {
            return Ok(None);
        }
        count_read(max).await?;
        Ok(Some(map.read(&*self.device, 0, max).await?.to_vec()))
    }

    /// Reads up to `len` bytes from `offset` on of the file at this absolute path; none if there is no such file.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn read_file_part(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let Some((_, (filesystem, node))) = self.resolve(path).await? else { return Ok(vec![]) };
        let map = filesystem.map(node).await?;
        count_read(len).await?;
        Ok(map.read(&*self.device, offset, len).await?.to_vec())
    }

    /// Returns the real path of the file at this absolute path; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn real_path(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.resolve(path).await?.map(|(real, _)| real))
    }

    /// Returns the real path of the directory at this absolute path, empty for the top directory; `None` if there is no such directory.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn real_directory(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match resolve::directory(&mut Walk::new(&self.mounts), path).await {
            Ok(real) => Ok(Some(real)),
            Err(ResolveError::FileSystem(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Returns the part of a real path below the `tftp_root`; `None` if it is elsewhere.
    pub(crate) fn below_root<'p>(&self, real: &'p [u8]) -> Option<&'p [u8]> {
        real.strip_prefix(self.root.path())?.strip_prefix(b"/")
    }

    /// Returns the mountpoint of the file system that contains the directory at this absolute path; empty for the top directory.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub(crate) async fn mountpoint(&self, path: &str) -> Result<&[u8], Error> {
        let Some(real) = self.real_directory(path).await? else { return Ok(b"") };
        let contains = |mountpoint: &[u8]| {
            real.strip_prefix(mountpoint).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let mountpoints = self.mounts.iter().map(|mount| mount.mountpoint.as_slice());
        Ok(mountpoints
            .filter(|mountpoint| contains(mountpoint))
            .max_by_key(|mountpoint| mountpoint.len())
            .unwrap_or(b""))
    }

    /// Resolves the absolute path of a regular file.
    async fn resolve(&self, path: &str) -> Result<Option<(Vec<u8>, MountedNode<'_>)>, Error> {
        let Ok(path) = RequestPath::parse(path.as_bytes()) else { return Ok(None) };
        let mut walk = Walk::new(&self.mounts);
        let found = async { Root::find(&mut walk, "/").await?.file(&mut walk, &path).await };
        match found.await {
            Ok(found) => Ok(Some(found)),
            Err(ResolveError::FileSystem(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}
