//! Path resolution: finds the file that a requested path names, symbolic links included.
//!
//! Every component is looked up separately, so that no link is followed by anything else (such as the kernel of this machine).
//! Links on a disk cannot lead out of the directory that is served.

use std::fmt;

use rtftp_core::wire::path::RequestPath;

use super::{
    Error, FileType,
    limits::{Budget, MAX_NAMES, MAX_SYMLINKS},
};

/// A directory tree. Paths are absolute, and their directories are real ones, not links.
#[allow(async_fn_in_trait, reason = "used and implemented in this workspace only")]
pub trait Namespace {
    /// The result of a lookup besides the type.
    type Node;
    /// The error of a lookup that failed.
    type Error;

    /// Looks up `path` without following it if it is a link; `None` if it does not exist.
    async fn lstat(&mut self, path: &[u8]) -> Result<Option<(FileType, Self::Node)>, Self::Error>;

    /// Reads the target of the link at `path`; `None` if the backend does not support such a name.
    async fn readlink(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// The reason why a path could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError<E = Error> {
    /// The path does not exist.
    NotFound,
    /// The path exists, but is not a regular file.
    NotRegularFile,
    /// The path exists, but is not a directory.
    NotDirectory,
    /// The path goes through more than 40 symbolic links.
    TooManyLinks,
    /// The file system could not be read.
    FileSystem(E),
}

impl<E> From<E> for ResolveError<E> {
    fn from(error: E) -> Self {
        Self::FileSystem(error)
    }
}

impl<E: fmt::Display> fmt::Display for ResolveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::NotRegularFile => f.write_str("not a regular file"),
            Self::NotDirectory => f.write_str("not a directory"),
            Self::TooManyLinks => f.write_str("too many symbolic links"),
            Self::FileSystem(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ResolveError<E> {}

/// The directory of a disk that is served.
#[derive(Debug, Clone)]
pub struct Root {
    /// The real path, links resolved; empty for the top directory.
    real: Vec<u8>,
    /// The path in the description of the disk; empty for the top directory.
    configured: Vec<u8>,
}

impl Root {
    /// Resolves the directory at the absolute path `path`.
    pub async fn find<N: Namespace>(namespace: &mut N, path: &str) -> Result<Self, ResolveError<N::Error>> {
        Ok(Self { real: directory(namespace, path).await?, configured: path.trim_end_matches('/').into() })
    }

    /// Returns the real path, links resolved; empty for the top directory.
    pub fn path(&self) -> &[u8] {
        &self.real
    }

    /// Resolves the path of a regular file below this root, and returns its real path and node.
    ///
    /// A relative link starts at its directory. An absolute link that begins with the path of this root means the same as on the
    /// machine that boots from the disk; any other absolute link is resolved as if this root were `/`. `..` stops at this root.
    pub async fn file<N: Namespace>(
        &self,
        namespace: &mut N,
        path: &RequestPath,
    ) -> Result<(Vec<u8>, N::Node), ResolveError<N::Error>> {
        match walk(namespace, &self.real, &[&self.configured, &self.real], path.as_bytes()).await? {
            Position { path, node: Some(node), file_type: FileType::File } => Ok((path, node)),
            _ => Err(ResolveError::NotRegularFile),
        }
    }
}

/// Resolves the directory at the absolute path `path`, and returns its real path; empty for the top directory.
pub async fn directory<N: Namespace>(namespace: &mut N, path: &str) -> Result<Vec<u8>, ResolveError<N::Error>> {
    let position = walk(namespace, b"", &[], path.as_bytes()).await?;
    if position.file_type == FileType::Directory { Ok(position.path) } else { Err(ResolveError::NotDirectory) }
}

/// The position of a walk along a path.
struct Position<N> {
    /// The real path.
    path: Vec<u8>,
    file_type: FileType,
    /// `None` for the directory in which the walk started or to which it returned.
    node: Option<N>,
}

/// Walks from the directory `top` along `path`, component by component. An absolute link continues at `top`; if its target
/// begins with one of `prefixes`, that prefix is removed first.
async fn walk<N: Namespace>(
    namespace: &mut N,
    top: &[u8],
    prefixes: &[&[u8]],
    path: &[u8],
) -> Result<Position<N::Node>, ResolveError<N::Error>> {
    let mut here = Position { path: top.to_vec(), file_type: FileType::Directory, node: None };
    // The components that remain, in reverse order.
    let mut rest = components(path);
    let (mut links, mut names) = (Budget::new(MAX_SYMLINKS), Budget::new(MAX_NAMES));
    while let Some(name) = rest.pop() {
        if here.file_type != FileType::Directory {
            return Err(ResolveError::NotFound);
        }
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if here.path.len() > top.len() {
                    here.path.truncate(here.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                }
                continue;
            }
            _ => {}
        }
        let parent = here.path.len();
        here.path.push(b'/');
        here.path.extend_from_slice(&name);
        let (file_type, node) = namespace.lstat(&here.path).await?.ok_or(ResolveError::NotFound)?;
        if file_type != FileType::Link {
            (here.file_type, here.node) = (file_type, Some(node));
            continue;
        }
        if !links.spend(1) {
            return Err(ResolveError::TooManyLinks);
        }
        let target = namespace.readlink(&here.path).await?.ok_or(ResolveError::NotFound)?;
        here.path.truncate(parent);
        let mut target = target.as_slice();
        if target.starts_with(b"/") {
            here.path.truncate(top.len());
            target = prefixes.iter().find_map(|prefix| below(target, prefix)).unwrap_or(target);
        }
        let mut names_of_target = components(target);
        if !names.spend(names_of_target.len() as u64) {
            return Err(ResolveError::TooManyLinks);
        }
        rest.append(&mut names_of_target);
        here.file_type = FileType::Directory;
    }
    Ok(here)
}

/// Returns the components of a path in reverse order.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|&byte| byte == b'/').map(<[u8]>::to_vec).collect()
}

/// Returns the rest of `path` below the directory `prefix`.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests;
