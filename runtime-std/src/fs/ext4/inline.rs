//! Content that is in the inode itself (feature `inline_data`).
//!
//! Its first 60 bytes are where the map of blocks would be, the others are the attribute `system.data`. See Linux,
//! `Documentation/filesystems/ext4/inlinedata.rst` and `attributes.rst`.

use super::{
    super::{Error, bytes::le},
    inode::{Inode, corrupt, unsupported},
};

const MAGIC: u32 = 0xea02_0000;
/// How long the description of an attribute is before its name, in bytes.
const ENTRY: usize = 16;
/// The number that stands for `system.` in the name of an attribute.
const SYSTEM: u8 = 7;

/// The part of an inode's content that is in its attributes.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::Unsupported`] if it is not in the inode.
pub(super) fn rest(inode: &Inode) -> Result<&[u8], Error> {
    let elsewhere = || unsupported(inode.number, "inline data outside the inode");
    if le::u32_at(&inode.attributes, 0) != MAGIC {
        return Err(elsewhere());
    }
    let attributes = inode.attributes.get(4..).unwrap_or_default();
    let mut entry = attributes;
    // Four zeros end the list.
    while le::u32_at(entry, 0) != 0 {
        let name_len = usize::from(entry.first().copied().unwrap_or(0));
        let name = entry.get(ENTRY..ENTRY + name_len).ok_or_else(|| damaged(inode))?;
        if entry.get(1) == Some(&SYSTEM) && name == b"data" {
            let (from, len) = (usize::from(le::u16_at(entry, 2)), le::u32_at(entry, 8) as usize);
            if le::u32_at(entry, 4) != 0 {
                return Err(elsewhere());
            }
            return attributes.get(from..).and_then(|value| value.get(..len)).ok_or_else(|| damaged(inode));
        }
        entry = entry.get(ENTRY + name_len.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(elsewhere())
}

/// All of an inode's content.
///
/// # Errors
///
/// Those of [`rest`].
pub(super) fn content(inode: &Inode) -> Result<Vec<u8>, Error> {
    let mut content = [&inode.block[..], rest(inode)?].concat();
    content.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
    Ok(content)
}

fn damaged(inode: &Inode) -> Error {
    corrupt(inode.number, "extended attributes exceed the inode")
}

#[cfg(test)]
mod tests {
    use super::{super::checksum::Seed, *};

    /// An inode with these attributes in it, each a name and a value.
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
            let description = [name.len() as u8, *index, (value_end - 164) as u8, 0, 0, 0, 0, 0, value.len() as u8];
            bytes[entry..][..description.len()].copy_from_slice(&description);
            bytes[entry + ENTRY..][..name.len()].copy_from_slice(name);
            entry += ENTRY + name.len().next_multiple_of(4);
        }
        Inode::parse(12, &bytes, Seed::NONE).expect("valid")
    }

    #[test]
    fn the_rest_is_found_among_other_attributes() {
        let inode = inode(&[(1, b"data", b"other"), (6, b"selinux", b"none"), (SYSTEM, b"data", b"the rest")]);
        assert_eq!(rest(&inode), Ok(&b"the rest"[..]));
        assert_eq!(content(&inode), Ok([&[b'x'; 60][..], b"the rest"].concat()));
        let shorter = Inode { size: 62, ..inode };
        assert_eq!(content(&shorter), Ok([&[b'x'; 60][..], b"th"].concat()));
    }

    #[test]
    fn a_list_without_it_or_without_end_is_an_error() {
        assert!(matches!(rest(&inode(&[])), Err(Error::Unsupported(_))));
        assert!(matches!(rest(&inode(&[(1, b"data", b"")])), Err(Error::Unsupported(_))));
        let mut long = inode(&[(SYSTEM, b"data", b"the rest")]);
        long.attributes[12] = 200;
        assert!(matches!(rest(&long), Err(Error::Corrupt(_))));
        long.attributes[4] = 255;
        assert!(matches!(rest(&long), Err(Error::Corrupt(_))));
        long.attributes.truncate(20);
        assert!(matches!(rest(&long), Err(Error::Corrupt(_))));
    }
}
