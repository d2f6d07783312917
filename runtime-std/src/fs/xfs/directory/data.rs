//! Blocks of directory entries (`struct xfs_dir2_data_hdr`).

use super::{
    content::Content,
    entry::{Entry, file_type},
};
use crate::fs::{Error, bytes::be};

/// The sizes of the header without and with a checksum, in bytes.
const HEADER_V4: usize = 16;
const HEADER_V5: usize = 64;
/// The first two bytes of unused space.
const UNUSED: u16 = 0xffff;
/// The units in which entries start, in bytes.
pub(super) const ALIGNMENT: usize = 8;

/// Returns the entries of a block of a directory except unused ones, `.` and `..`.
pub(super) fn entries<'a>(content: &'a Content<'_>, block: &'a [u8]) -> impl Iterator<Item = Result<Entry<'a>, Error>> {
    let has_ftype = content.blocks.superblock.features.has_ftype;
    let area = area(block, content.is_v5());
    // Once: a block without entries is invalid.
    let mut invalid = area.is_none().then(|| Err(content.inconsistent()));
    let mut rest = area.unwrap_or_default();
    std::iter::from_fn(move || {
        if let Some(error) = invalid.take() {
            return Some(error);
        }
        while !rest.is_empty() {
            if be::u16_at(rest, 0) == UNUSED {
                let len = usize::from(be::u16_at(rest, 2));
                let behind = rest.get(len..).filter(|_| len > 0 && len.is_multiple_of(ALIGNMENT));
                let Some(behind) = behind else {
                    rest = &[];
                    return Some(Err(content.inconsistent()));
                };
                rest = behind;
                continue;
            }
            let Some((entry, behind)) = entry(rest, has_ftype) else {
                rest = &[];
                return Some(Err(content.inconsistent()));
            };
            rest = behind;
            if entry.name != b"." && entry.name != b".." {
                return Some(Ok(entry));
            }
        }
        None
    })
}

/// Returns the entry at offset `at` of a block.
pub(super) fn entry_at<'a>(content: &Content<'_>, block: &'a [u8], at: usize) -> Result<Entry<'a>, Error> {
    let has_ftype = content.blocks.superblock.features.has_ftype;
    let header = if content.is_v5() { HEADER_V5 } else { HEADER_V4 };
    let found = area(block, content.is_v5()).and_then(|area| entry(area.get(at.checked_sub(header)?..)?, has_ftype));
    found.map(|(entry, _)| entry).ok_or_else(|| content.inconsistent())
}

/// Returns the part of a block that consists of entries.
fn area(block: &[u8], is_v5: bool) -> Option<&[u8]> {
    let header = if is_v5 { HEADER_V5 } else { HEADER_V4 };
    let is_only_block = match (block.first_chunk()?, is_v5) {
        (b"XDB3", true) | (b"XD2B", false) => true,
        (b"XDD3", true) | (b"XD2D", false) => false,
        _ => return None,
    };
    let end = match is_only_block {
        // The only block of a directory ends with an index, whose length comes last.
        true => {
            let tail = block.len().checked_sub(8)?;
            tail.checked_sub((be::u32_at(block, tail) as usize).checked_mul(8)?)?
        }
        false => block.len(),
    };
    block.get(header..end)
}

/// Parses the first entry, and returns it with what follows.
fn entry(bytes: &[u8], has_ftype: bool) -> Option<(Entry<'_>, &[u8])> {
    let (header, behind) = bytes.split_at_checked(9)?;
    let (name, behind) = behind.split_at_checked(header[8].into())?;
    let kind = if has_ftype { file_type(*behind.first()?) } else { None };
    // The offset of the entry follows.
    let len = (9 + name.len() + usize::from(has_ftype) + 2).next_multiple_of(ALIGNMENT);
    let rest = bytes.get(len..)?;
    (!name.is_empty()).then_some((Entry { name, inode: be::u64_at(header, 0), file_type: kind }, rest))
}
