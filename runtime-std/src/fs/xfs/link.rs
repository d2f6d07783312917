//! Symbolic links.

use super::{
    block_reader::BlockReader,
    checksum,
    inode::{Format, Inode, corrupt},
    map::map,
};
use crate::fs::{Error, bytes::be, limits::MAX_LINK_TARGET};

/// The size of the header in front of each run of blocks of a target in version 5 (`struct xfs_dsymlink_hdr`), in bytes.
const HEADER: usize = 56;
/// The offset of the checksum.
const CRC: usize = 12;

/// Returns the target of a symbolic link.
///
/// # Errors
///
/// [`Error::Corrupt`] also if the target is empty or longer than 4,096 bytes, [`Error::Unsupported`], [`Error::TooMuchWork`],
/// [`Error::OutOfMemory`], [`Error::Io`].
pub(super) async fn target(blocks: &BlockReader, link: &Inode) -> Result<Vec<u8>, Error> {
    let number = link.number;
    if !(1..=MAX_LINK_TARGET).contains(&link.size) {
        return Err(corrupt(number, format!("symbolic link with a target of {} bytes", link.size)));
    }
    let len = link.size as usize;
    let inconsistent = || corrupt(number, "inconsistent symbolic link");
    if link.format == Format::Local {
        return link.data_fork.get(..len).map(<[u8]>::to_vec).ok_or_else(inconsistent);
    }
    // With headers, the target occupies more blocks than its length says.
    let (map, _memory) = map(blocks, link, 0..4 * MAX_LINK_TARGET + blocks.superblock.block_size() as u64).await?;
    let mut target = Vec::with_capacity(len);
    let mut position = 0;
    while target.len() < len {
        let run = blocks.read_mapped(&map, position, usize::MAX).await?;
        if run.bytes.is_empty() {
            return Err(inconsistent());
        }
        position += run.bytes.len() as u64;
        let rest = len - target.len();
        let part = if blocks.superblock.features.is_v5 {
            if !run.is_changed {
                checksum::verify(&run.bytes, CRC, ("symbolic link of inode", number))?;
            }
            let (start, count) = (be::u32_at(&run.bytes, 4) as usize, be::u32_at(&run.bytes, 8) as usize);
            let is_next = run.bytes.starts_with(b"XSLM") && start == target.len() && count <= rest && count > 0;
            run.bytes.get(HEADER..).and_then(|bytes| bytes.get(..count)).filter(|_| is_next).ok_or_else(inconsistent)?
        } else {
            run.bytes.get(..rest).unwrap_or(&run.bytes)
        };
        target.extend_from_slice(part);
    }
    Ok(target)
}
