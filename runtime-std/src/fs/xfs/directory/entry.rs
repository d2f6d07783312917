//! Entries of directories.

use crate::fs::FileType;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Entry<'a> {
    pub(in super::super) name: &'a [u8],
    pub(in super::super) inode: u64,
    /// `None` if the directory does not record types.
    pub(in super::super) file_type: Option<FileType>,
}

/// An entry that was found: its inode and its type, as in [`Entry`].
pub(in super::super) type Found = (u64, Option<FileType>);

/// Converts a type in a directory entry; `None` if it is unknown.
pub(super) fn file_type(value: u8) -> Option<FileType> {
    match value {
        1 => Some(FileType::File),
        2 => Some(FileType::Directory),
        3..=6 => Some(FileType::Other),
        7 => Some(FileType::Link),
        _ => None,
    }
}
