//! Groups: where the inodes are.

use crc::{CRC_16_MODBUS, Crc};

use super::{
    super::{Error, bytes::le},
    blocks::Blocks,
    checksum::{Seed, mismatch},
    features::Feature,
    superblock::{self, Superblock},
};

static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// Where the checksum of a group descriptor is in it.
const SUM: usize = 0x1e;

/// Reads an inode's bytes.
///
/// # Errors
///
/// [`Error::Corrupt`] also if there is no inode of this number.
pub(super) async fn read_inode(blocks: &Blocks, superblock: &Superblock, number: u32) -> Result<Vec<u8>, Error> {
    let none = || Error::corrupt(("inode", number), "does not exist");
    let index = number.checked_sub(1).filter(|_| number <= superblock.inodes).ok_or_else(none)?;
    let group = u64::from(index / superblock.inodes_per_group);
    if group >= superblock.groups() {
        return Err(none());
    }
    let table = inode_table(blocks, superblock, group).await?;
    let offset = u64::from(index % superblock.inodes_per_group) * u64::from(superblock.inode_size);
    let block = table.saturating_add(offset / u64::from(blocks.size));
    if !blocks.are_usable(&(block..block.saturating_add(1))) {
        return Err(Error::corrupt(("group", group), format!("invalid block {table} of its inode table")));
    }
    blocks.read(block, offset % u64::from(blocks.size), superblock.inode_size as usize).await
}

/// The block where the inodes of a group begin.
async fn inode_table(blocks: &Blocks, superblock: &Superblock, group: u64) -> Result<u64, Error> {
    let size = u64::from(superblock.descriptor_size);
    let in_block = u64::from(blocks.size) / size;
    let block = descriptors(superblock, group / in_block, in_block)?;
    let bytes = blocks.read(block, group % in_block * size, superblock.descriptor_size as usize).await?;
    verify(superblock, group, &bytes)?;
    Ok(le::split_u64_at(&bytes, 0x08, 0x28))
}

/// The block that is the `part`th of the descriptors of all groups, `in_block` of them in each.
fn descriptors(superblock: &Superblock, part: u64, in_block: u64) -> Result<u64, Error> {
    let home = superblock::PLACE / u64::from(superblock.block_size);
    if !superblock.features.has(Feature::META_BG) || part < u64::from(superblock.first_meta_bg) {
        return Ok(home + 1 + part);
    }
    // Each part is at the beginning of the groups that it describes, after a copy of the superblock if they have one.
    let group = part * in_block;
    let start = group.checked_mul(superblock.blocks_per_group.into());
    let start = start.and_then(|start| start.checked_add(superblock.first_block));
    let start =
        start.ok_or_else(|| Error::corrupt(("group", group), "descriptor lies beyond the end of the file system"))?;
    // The first group begins with block 0 even if its superblock is in block 1.
    let before = if group == 0 { home - superblock.first_block.min(home) } else { 0 };
    Ok(start.saturating_add(before + u64::from(superblock.has_superblock(group))))
}

/// Compares a group descriptor with its checksum.
fn verify(superblock: &Superblock, group: u64, bytes: &[u8]) -> Result<(), Error> {
    let (before, rest) = bytes.split_at_checked(SUM).unwrap_or_default();
    let after = rest.get(2..).unwrap_or_default();
    let number = (group as u32).to_le_bytes();
    let what = ("descriptor of group", group);
    let kept = le::u16_at(bytes, SUM);
    if superblock.seed != Seed::NONE {
        return superblock.seed.and(&number).and(before).and(&[0; 2]).and(after).verify_half(kept, what);
    }
    if superblock.features.has(Feature::GROUP_CHECKSUM) {
        let mut sum = CRC16.digest();
        [&superblock.uuid[..], &number, before, after].iter().for_each(|part| sum.update(part));
        if sum.finalize() != kept {
            return Err(mismatch(what));
        }
    }
    Ok(())
}
