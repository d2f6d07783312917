//! The files of a disk, as the sources of boot entries read them.

/// The files of a disk, by absolute path.
#[allow(async_fn_in_trait, reason = "used and implemented in this crate only")]
pub trait DiskTree {
    /// The error of a disk that cannot be read.
    type Error;

    /// Returns the names in a directory; none if it does not exist.
    async fn list(&self, directory: &str) -> Result<Vec<String>, Self::Error>;

    /// Reads a small text file; `None` if there is none, or only one that is too large.
    async fn read(&self, path: &str) -> Result<Option<String>, Self::Error>;

    /// Reads up to `len` bytes of a file from `offset` on; fewer at its end, none if it does not exist.
    async fn read_part(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>, Self::Error>;

    /// Returns the path under which clients get a file.
    async fn served_file(&self, path: &str) -> Result<Served, Self::Error>;

    /// Returns the path under which clients get the files of a directory.
    async fn served_directory(&self, path: &str) -> Result<Served, Self::Error>;

    /// Returns the mountpoint of the file system that contains a path; empty for the top directory.
    async fn mountpoint(&self, path: &str) -> Result<String, Self::Error>;
}

/// The location of a file for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// The path below the directory that is served, without a leading slash.
    At(String),
    /// The file is not below the directory that is served.
    Elsewhere,
    /// The file does not exist.
    Missing,
}

/// Reads the first of these files that exists.
pub(super) async fn read_first<T: DiskTree>(
    disk: &T,
    paths: &[&'static str],
) -> Result<Option<(&'static str, String)>, T::Error> {
    for path in paths {
        if let Some(text) = disk.read(path).await? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}
