//! File content stored in the inode (feature `inline_data`).
//!
//! The first 60 bytes are in `i_block`, the rest is the value of the extended attribute `system.data` (Linux,
//! `Documentation/filesystems/ext4/inlinedata.rst` and `attributes.rst`).

use super::inode::{Inode, corrupt, unsupported};
use crate::fs::{Error, bytes::le};

/// The magic number of extended attributes (`h_magic`).
const MAGIC: u32 = 0xea02_0000;
/// The size of an attribute entry without its name, in bytes.
const ENTRY_HEADER: usize = 16;
/// The name index (`e_name_index`) of the prefix `system.`.
const SYSTEM: u8 = 7;

/// Returns the content of an inode.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if a part is not stored in the inode.
pub(super) fn content(inode: &Inode) -> Result<Vec<u8>, Error> {
    let mut content = [&inode.block[..], system_data(inode)?].concat();
    content.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
    Ok(content)
}

/// Returns the value of the attribute `system.data`, which continues the content in `i_block`.
///
/// # Errors
///
/// As [`content`].
pub(super) fn system_data(inode: &Inode) -> Result<&[u8], Error> {
    let outside = || unsupported(inode.number, "inline data outside the inode");
    if le::u32_at(&inode.xattrs, 0) != MAGIC {
        return Err(outside());
    }
    let entries = inode.xattrs.get(4..).unwrap_or_default();
    let mut entry = entries;
    // Four zero bytes end the list.
    while le::u32_at(entry, 0) != 0 {
        let name_len = usize::from(entry.first().copied().unwrap_or(0));
        let name = entry.get(ENTRY_HEADER..ENTRY_HEADER + name_len).ok_or_else(|| exceeds_inode(inode))?;
        if entry.get(1) == Some(&SYSTEM) && name == b"data" {
            let (value_offset, value_len) = (usize::from(le::u16_at(entry, 2)), le::u32_at(entry, 8) as usize);
            let value_inode = le::u32_at(entry, 4);
            if value_inode != 0 {
                return Err(outside());
            }
            let value = entries.get(value_offset..).and_then(|value| value.get(..value_len));
            return value.ok_or_else(|| exceeds_inode(inode));
        }
        entry = entry.get(ENTRY_HEADER + name_len.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(outside())
}

fn exceeds_inode(inode: &Inode) -> Error {
    corrupt(inode.number, "extended attributes exceed the inode")
}

#[cfg(test)]
mod tests {
    use super::{super::checksum::Checksum, *};

    /// Returns an inode with these extended attributes: name index, name and value.
    fn inode(attributes: &[(u8, &[u8], &[u8])]) -> Inode {
        let mut bytes = vec![0; 256];
        bytes[0x1a] = 1;
        bytes[0x04] = 100;
        bytes[0x28..0x64].fill(b'x');
        bytes[0x80] = 32;
        bytes[160..164].copy_from_slice(&MAGIC.to_le_bytes());
        let (mut entry, mut value_end) = (164, 256);
        for (index, name, value) in attributes {
            value_end -= value.len().next_multiple_of(4);
            bytes[value_end..][..value.len()].copy_from_slice(value);
            let header = [name.len() as u8, *index, (value_end - 164) as u8, 0, 0, 0, 0, 0, value.len() as u8];
            bytes[entry..][..header.len()].copy_from_slice(&header);
            bytes[entry + ENTRY_HEADER..][..name.len()].copy_from_slice(name);
            entry += ENTRY_HEADER + name.len().next_multiple_of(4);
        }
        Inode::parse(12, &bytes, Checksum::NONE).expect("valid")
    }

    #[test]
    fn finds_system_data_among_other_attributes() {
        let inode = inode(&[(1, b"data", b"other"), (6, b"selinux", b"none"), (SYSTEM, b"data", b"the rest")]);
        assert_eq!(system_data(&inode), Ok(&b"the rest"[..]));
        assert_eq!(content(&inode), Ok([&[b'x'; 60][..], b"the rest"].concat()));
        let shorter = Inode { size: 62, ..inode };
        assert_eq!(content(&shorter), Ok([&[b'x'; 60][..], b"th"].concat()));
    }

    #[test]
    fn rejects_missing_and_oversized_attributes() {
        assert!(matches!(system_data(&inode(&[])), Err(Error::Unsupported(_))));
        assert!(matches!(system_data(&inode(&[(1, b"data", b"")])), Err(Error::Unsupported(_))));
        let mut oversized = inode(&[(SYSTEM, b"data", b"the rest")]);
        oversized.xattrs[12] = 200;
        assert!(matches!(system_data(&oversized), Err(Error::Corrupt(_))));
        oversized.xattrs[4] = 255;
        assert!(matches!(system_data(&oversized), Err(Error::Corrupt(_))));
        oversized.xattrs.truncate(20);
        assert!(matches!(system_data(&oversized), Err(Error::Corrupt(_))));
    }
}
