//! Block group descriptors, which locate the inode tables (Linux, `Documentation/filesystems/ext4/group_descr.rst`).

use crc::{CRC_16_MODBUS, Crc};

use super::{
    block_reader::BlockReader,
    checksum::{Checksum, mismatch},
    features::Feature,
    superblock::{self, Superblock},
};
use crate::fs::{Error, bytes::le};

static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// The offset of `bg_checksum`.
const CHECKSUM: usize = 0x1e;

/// Reads an inode from the inode table of its group.
///
/// # Errors
///
/// [`Error::Corrupt`] also if the inode number is out of range.
pub(super) async fn read_inode(
    blocks: &BlockReader,
    superblock: &Superblock,
    inode_number: u32,
) -> Result<Vec<u8>, Error> {
    let out_of_range = || Error::corrupt(("inode", inode_number), "does not exist");
    let index = inode_number.checked_sub(1).filter(|_| inode_number <= superblock.inode_count);
    let index = index.ok_or_else(out_of_range)?;
    let group = u64::from(index / superblock.inodes_per_group);
    if group >= superblock.group_count() {
        return Err(out_of_range());
    }
    let table = inode_table(blocks, superblock, group).await?;
    let offset = u64::from(index % superblock.inodes_per_group) * u64::from(superblock.inode_size);
    let block = table.saturating_add(offset / u64::from(blocks.block_size));
    if !blocks.are_data_blocks(&(block..block.saturating_add(1))) {
        return Err(Error::corrupt(("group", group), format!("inode table at invalid block {table}")));
    }
    blocks.read(block, offset % u64::from(blocks.block_size), superblock.inode_size as usize).await
}

/// Returns the first block of a group's inode table (`bg_inode_table`).
async fn inode_table(blocks: &BlockReader, superblock: &Superblock, group: u64) -> Result<u64, Error> {
    let size = u64::from(superblock.descriptor_size);
    let descriptors_per_block = u64::from(blocks.block_size) / size;
    let block = descriptor_block(superblock, group / descriptors_per_block, descriptors_per_block)?;
    let offset = group % descriptors_per_block * size;
    let descriptor = blocks.read(block, offset, superblock.descriptor_size as usize).await?;
    verify(superblock, group, &descriptor)?;
    Ok(le::split_u64_at(&descriptor, 0x08, 0x28))
}

/// Returns the block number of the descriptor table's block `index`.
fn descriptor_block(superblock: &Superblock, index: u64, descriptors_per_block: u64) -> Result<u64, Error> {
    let superblock_block = superblock::OFFSET / u64::from(superblock.block_size);
    if !superblock.features.has(Feature::META_BG) || index < u64::from(superblock.first_meta_bg) {
        return Ok(superblock_block + 1 + index);
    }
    // With meta_bg, each block of the table is in the first of the groups that it describes, after the group's superblock if any.
    let group = index * descriptors_per_block;
    let start = group.checked_mul(superblock.blocks_per_group.into());
    let start = start.and_then(|start| start.checked_add(superblock.first_data_block));
    let start =
        start.ok_or_else(|| Error::corrupt(("group", group), "descriptor lies beyond the end of the file system"))?;
    // Group 0 starts at block 0 even if its superblock is in block 1.
    let before = if group == 0 { superblock_block - superblock.first_data_block.min(superblock_block) } else { 0 };
    Ok(start.saturating_add(before + u64::from(superblock.group_has_superblock(group))))
}

/// Verifies the checksum of a group descriptor.
fn verify(superblock: &Superblock, group: u64, descriptor: &[u8]) -> Result<(), Error> {
    let (before, rest) = descriptor.split_at_checked(CHECKSUM).unwrap_or_default();
    let after = rest.get(2..).unwrap_or_default();
    let group_number = (group as u32).to_le_bytes();
    let object = ("descriptor of group", group);
    let stored = le::u16_at(descriptor, CHECKSUM);
    let seed = superblock.checksum_seed;
    if seed != Checksum::NONE {
        return seed.update(&group_number).update(before).update(&[0; 2]).update(after).verify_low(stored, object);
    }
    if superblock.features.has(Feature::GDT_CSUM) {
        let mut crc = CRC16.digest();
        [&superblock.uuid[..], &group_number, before, after].iter().for_each(|part| crc.update(part));
        if crc.finalize() != stored {
            return Err(mismatch(object));
        }
    }
    Ok(())
}
