//! Directory entries (Linux, `struct btrfs_dir_item`), and the names in references from inodes to directories.

use super::node::{INODE_ITEM, INODE_REF, Key, ROOT_ITEM};
use crate::fs::{Error, FileType, bytes::le};

/// The size of an entry without its name, in bytes.
const HEADER: usize = 30;
/// The sizes of references without their names, in bytes.
const REF_HEADER: usize = 10;
const EXTREF_HEADER: usize = 18;
/// The maximum length of a name in bytes.
const MAX_NAME: usize = 255;

/// What a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key of an inode, or of a subvolume.
    pub(super) location: Key,
    pub(super) file_type: FileType,
}

impl Entry {
    /// Creates the entry of an inode.
    pub(super) fn of_inode(number: u64, file_type: FileType) -> Self {
        Self { location: Key::new(number, INODE_ITEM, 0), file_type }
    }

    /// Returns the number of the inode; `None` for a subvolume.
    pub(super) fn inode(&self) -> Option<u64> {
        (self.location.item_type == INODE_ITEM).then_some(self.location.object)
    }

    /// Returns the number of the subvolume; `None` for an inode.
    pub(super) fn subvolume(&self) -> Option<u64> {
        (self.location.item_type == ROOT_ITEM).then_some(self.location.object)
    }
}

/// Returns the hash of a name in the keys of directory entries.
pub(super) fn hash(name: &[u8]) -> u64 {
    (!crc32c::crc32c_append(1, name)).into()
}

/// Parses an item, which has one entry for each name with the same hash.
///
/// # Errors
///
/// [`Error::Corrupt`], naming the inode of the directory.
pub(super) fn entries(item: &[u8], directory: u64) -> Result<Vec<(&[u8], Entry)>, Error> {
    let mut found = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let (data, len) = (usize::from(le::u16_at(rest, 25)), usize::from(le::u16_at(rest, 27)));
        let name = rest.get(HEADER..).and_then(|rest| rest.get(..len)).filter(|name| is_name(name));
        let name = name.ok_or_else(|| Error::corrupt(("directory", directory), "invalid entry"))?;
        let location = Key::at(rest, 0);
        if !matches!(location.item_type, INODE_ITEM | ROOT_ITEM) {
            return Err(Error::corrupt(("directory", directory), "invalid entry"));
        }
        let file_type = match rest.get(29) {
            Some(1) => FileType::File,
            Some(2) => FileType::Directory,
            Some(7) => FileType::Link,
            _ => FileType::Other,
        };
        found.push((name, Entry { location, file_type }));
        rest = rest.get(HEADER + len + data..).unwrap_or_default();
    }
    Ok(found)
}

/// Parses the item of references from an inode: the directories, and the names in them.
///
/// # Errors
///
/// [`Error::Corrupt`], naming the inode.
pub(super) fn references(key: Key, item: &[u8]) -> Result<Vec<(u64, &[u8])>, Error> {
    let mut found = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let (directory, header, len) = match key.item_type {
            INODE_REF => (key.offset, REF_HEADER, le::u16_at(rest, 8)),
            _ => (le::u64_at(rest, 0), EXTREF_HEADER, le::u16_at(rest, 16)),
        };
        let len = usize::from(len);
        let name = rest.get(header..).and_then(|rest| rest.get(..len)).filter(|name| !name.is_empty());
        found.push((directory, name.ok_or_else(|| Error::corrupt(("inode", key.object), "invalid reference"))?));
        rest = rest.get(header + len..).unwrap_or_default();
    }
    Ok(found)
}

fn is_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !matches!(name, b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_linux() {
        // The key of this name in the root tree of every file system.
        assert_eq!(hash(b"default"), 2_378_154_706);
    }
}
