//! The paths of all subvolumes, for messages.

use std::ops::ControlFlow;

use super::{
    directory,
    node::{INODE_REF, Key, ROOT_REF},
    subvolume::{Subvolume, TOP},
    tree::Trees,
};
use crate::fs::{Error, bytes::le, limits::MAX_LINK_TARGET};

/// The maximum number of subvolumes that are listed; others are left out.
const MAX_LISTED: usize = 256;

/// Returns the paths of subvolumes below the one that contains all others, sorted. Those whose directory does not exist are left out.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::TooMuchWork`], [`Error::OutOfMemory`], [`Error::Io`].
pub(super) async fn subvolume_paths(trees: &Trees) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = vec![(TOP, Vec::new())];
    let mut next = 0;
    while let Some((parent, path)) = found.get(next).cloned() {
        next += 1;
        let Some(subvolume) = Subvolume::find(trees, parent).await? else { continue };
        for (child, directory, name) in children(trees, parent, MAX_LISTED.saturating_sub(found.len())).await? {
            if let Some(directory) = directory_path(trees, &subvolume, directory).await? {
                found.push((child, [&path[..], &directory, &name, b"/"].concat()));
            }
        }
    }
    let mut paths: Vec<Vec<u8>> = found.into_iter().skip(1).map(|(_, path)| path[..path.len() - 1].to_vec()).collect();
    paths.sort_unstable();
    Ok(paths)
}

/// Returns the subvolumes in a subvolume, at most `limit`: their numbers, directories and names.
async fn children(trees: &Trees, parent: u64, limit: usize) -> Result<Vec<(u64, u64, Vec<u8>)>, Error> {
    let mut children = Vec::new();
    let all = Key::new(parent, ROOT_REF, 0)..=Key::new(parent, ROOT_REF, u64::MAX);
    let visit = |key: Key, item: &[u8]| {
        if children.len() == limit {
            return Ok(ControlFlow::Break(()));
        }
        children.push((key.offset, le::u64_at(item, 0), item.get(18..).unwrap_or_default().to_vec()));
        Ok(ControlFlow::Continue(()))
    };
    trees.for_each(&trees.root_tree(), all, visit).await?;
    Ok(children)
}

/// Returns the path of a directory in a subvolume, with a slash at its end unless it is the root; `None` if it does not exist.
async fn directory_path(trees: &Trees, subvolume: &Subvolume, directory: u64) -> Result<Option<Vec<u8>>, Error> {
    let (mut at, mut path) = (directory, Vec::new());
    while at != subvolume.directory {
        let mut parent = None;
        let all = Key::new(at, INODE_REF, 0)..=Key::new(at, INODE_REF, u64::MAX);
        let visit = |key: Key, item: &[u8]| {
            parent = directory::references(key, item)?.first().map(|(parent, name)| (*parent, name.to_vec()));
            Ok(ControlFlow::Break(()))
        };
        trees.for_each(&subvolume.root, all, visit).await?;
        // Also ends a circle.
        let Some((parent, name)) = parent.filter(|_| path.len() as u64 <= MAX_LINK_TARGET) else { return Ok(None) };
        path = [&name[..], b"/", &path].concat();
        at = parent;
    }
    Ok(Some(path))
}
