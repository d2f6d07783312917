//! Directories whose entries are in the inode (`struct xfs_dir2_sf_hdr`).

use super::entry::{Entry, file_type};
use crate::fs::{
    Error,
    bytes::be,
    xfs::inode::{Inode, corrupt},
};

/// Returns the entries of a short directory.
///
/// # Errors
///
/// [`Error::Corrupt`].
pub(super) fn entries(directory: &Inode, has_ftype: bool) -> Result<Vec<Entry<'_>>, Error> {
    parse(&directory.data_fork, directory.size, has_ftype)
        .ok_or_else(|| corrupt(directory.number, "inconsistent directory"))
}

fn parse(fork: &[u8], size: u64, has_ftype: bool) -> Option<Vec<Entry<'_>>> {
    let fork = fork.get(..usize::try_from(size).ok()?)?;
    // The number of entries, and how many need inode numbers of eight bytes: then all have them.
    let (&[count, long_count], mut rest) = fork.split_first_chunk()?;
    let inode_len = if long_count > 0 { 8 } else { 4 };
    // The inode of the parent directory.
    rest = rest.get(inode_len..)?;
    let mut entries = Vec::with_capacity(count.into());
    for _ in 0..count {
        // The length of the name, and its offset in a block.
        let (&[name_len, _, _], behind) = rest.split_first_chunk()?;
        let (name, behind) = behind.split_at_checked(name_len.into())?;
        let (kind, behind) = behind.split_at_checked(has_ftype.into())?;
        let (inode, behind) = behind.split_at_checked(inode_len)?;
        let inode = if inode_len == 8 { be::u64_at(inode, 0) } else { be::u32_at(inode, 0).into() };
        entries.push(Entry { name, inode, file_type: kind.first().and_then(|kind| file_type(*kind)) });
        rest = behind;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FileType;

    #[test]
    fn parses_both_lengths_of_inode_numbers() {
        let short = b"\x02\x00\0\0\0\x80\x01\0\x30a\x01\0\0\0\x83\x02\0\x40bc\x07\0\0\0\x84";
        let names = |fork: &[u8], has_ftype| {
            let entries = parse(fork, fork.len() as u64, has_ftype)?;
            Some(entries.iter().map(|entry| (entry.name.to_vec(), entry.inode, entry.file_type)).collect::<Vec<_>>())
        };
        let expected = vec![(b"a".to_vec(), 0x83, Some(FileType::File)), (b"bc".to_vec(), 0x84, Some(FileType::Link))];
        assert_eq!(names(short, true), Some(expected));
        let long = b"\x01\x01\0\0\0\0\0\0\0\x80\x01\0\x30a\x01\0\0\0\0\0\0\x83";
        assert_eq!(names(long, false), Some(vec![(b"a".to_vec(), 0x0100_0000_0000_0083, None)]));
        for len in 0..short.len() {
            assert_eq!(names(&short[..len], true), None, "{len}");
        }
        assert_eq!(parse(short, 1 << 40, true), None);
    }
}
