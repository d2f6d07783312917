//! Disk images in the tree, without their empty sectors: `fuzz/images`, `fuzz/corpus/volume`.

/// The size of a sector in bytes.
const SECTOR: usize = 512;

/// Expands an image of `fuzz/images`: a sequence of the number of a sector, the number of sectors with the same contents from there
/// (both 32-bit integers), and these contents.
pub fn expand(image: &[u8]) -> Vec<u8> {
    expand_to(image, 2 << 20)
}

/// Expands an image of `fuzz/images` that has at least this size in bytes.
pub fn expand_to(image: &[u8], size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    for record in image.chunks_exact(8 + SECTOR) {
        let (first, count) = (number(record), number(&record[4..]));
        for sector in first..first + count {
            write(&mut disk, sector, &record[8..]);
        }
    }
    disk
}

/// Expands an input of the fuzz target `volume`: a sequence of the number of a sector as a 32-bit integer, and its contents.
pub fn expand_sectors(image: &[u8], size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    for record in image.chunks_exact(4 + SECTOR) {
        write(&mut disk, number(record), &record[4..]);
    }
    disk
}

fn number(bytes: &[u8]) -> usize {
    let bytes = bytes.first_chunk().expect("a complete record");
    u32::from_le_bytes(*bytes) as usize
}

/// Writes a sector; extends the disk if necessary.
fn write(disk: &mut Vec<u8>, sector: usize, bytes: &[u8]) {
    let at = sector * SECTOR;
    disk.resize(disk.len().max(at + SECTOR), 0);
    disk[at..at + SECTOR].copy_from_slice(bytes);
}
