//! The metadata of XFS: superblocks, inodes, directories, trees of extents, links, and the records of the log.

use super::structure::Structure;

/// The unit of the log, and the smallest sector.
const SECTOR: usize = 512;
/// The data of a record that each of its header blocks covers.
const DATA_PER_HEADER: usize = 32 << 10;
const RECORD_MAGIC: u32 = 0xfeed_babe;

/// Structures of a file system block: the offset of the magic, the magic, and the offset of the checksum.
const BLOCKS: [(usize, &[u8], usize); 8] = [
    (0, b"XDB3", 4),
    (0, b"XDD3", 4),
    (0, b"XDF3", 4),
    (8, b"\x3d\xf1", 12),
    (8, b"\x3d\xff", 12),
    (8, b"\x3e\xbe", 12),
    (0, b"BMA3", 64),
    (0, b"XSLM", 12),
];
/// The same of version 4, without checksums.
const OLD_BLOCKS: [(usize, &[u8]); 6] =
    [(0, b"XD2B"), (0, b"XD2D"), (8, b"\xd2\xf1"), (8, b"\xd2\xff"), (8, b"\xfe\xbe"), (0, b"BMAP")];

/// Finds all structures of an image without errors.
pub fn find(disk: &[u8]) -> Vec<Structure> {
    let block = be32(disk, 4) as usize;
    let directory_block = block << disk[192];
    let inode = usize::from(u16::from_be_bytes([disk[104], disk[105]]));
    let sector = usize::from(u16::from_be_bytes([disk[102], disk[103]]));
    let is_v5 = disk[101] & 0xf == 5;
    let checksum = |at: usize| is_v5.then_some(at);
    let mut found = vec![Structure::new(disk, vec![(0, sector)], checksum(224))];
    let (log, log_len) = log_range(disk, block);
    for at in (0..disk.len() - directory_block).step_by(inode.min(SECTOR)) {
        if (log..log + log_len).contains(&at) {
            continue;
        }
        let has = |offset: usize, magic: &[u8]| disk[at + offset..].starts_with(magic);
        if at % inode == 0 && has(0, b"IN") && matches!(disk[at + 4], 1..=3) && disk[at + 2..at + 4] != [0, 0] {
            found.push(Structure::new(disk, vec![(at, inode)], checksum(at + 100)));
        } else if at % block == 0 {
            let new = BLOCKS.iter().find(|(offset, magic, _)| has(*offset, magic));
            let is_old = OLD_BLOCKS.iter().any(|(offset, magic)| has(*offset, magic));
            if let Some((_, magic, crc)) = new.filter(|_| is_v5) {
                let len = if matches!(*magic, b"BMA3" | b"XSLM") { block } else { directory_block };
                found.push(Structure::new(disk, vec![(at, len)], Some(at + crc)));
            } else if is_old && !is_v5 {
                found.push(Structure::new(disk, vec![(at, block)], None));
            }
        }
    }
    let is_valid = |structure: &Structure| structure.has_valid_checksum(disk);
    found.retain(is_valid);
    let records = (0..log_len).step_by(SECTOR).filter_map(|at| record(disk, log, log_len, at));
    found.extend(records.filter(is_valid));
    found
}

/// Returns the offset and the length of the log.
fn log_range(disk: &[u8], block: usize) -> (usize, usize) {
    let start = u64::from_be_bytes(disk[48..56].try_into().expect("8 bytes"));
    let group_bits = disk[124];
    let group = (start >> group_bits) * u64::from(be32(disk, 84));
    let number = group + (start & ((1 << group_bits) - 1));
    (number as usize * block, be32(disk, 96) as usize * block)
}

/// Returns the record whose header is at an offset of the log. It may continue at the start of the log.
fn record(disk: &[u8], log: usize, log_len: usize, at: usize) -> Option<Structure> {
    let header = log + at;
    let (len, size) = (be32(disk, header + 12) as usize, be32(disk, header + 320) as usize);
    let is_record = be32(disk, header) == RECORD_MAGIC && len <= 256 << 10 && size <= 256 << 10;
    if !is_record || disk[header + 32..header + 36] == [0; 4] {
        return None;
    }
    let headers = size.div_ceil(DATA_PER_HEADER).max(1);
    let place = |number: usize| log + (at + number * SECTOR) % log_len;
    let mut parts = vec![(header, 328)];
    parts.extend((1..headers.min(len.div_ceil(DATA_PER_HEADER))).map(|number| (place(number), 260)));
    let data = (0..len.div_ceil(SECTOR)).map(|number| (place(headers + number), SECTOR.min(len - number * SECTOR)));
    parts.extend(data);
    Some(Structure::new(disk, parts, Some(header + 32)))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
