//! A structure of metadata with a checksum.

/// The unit in which a structure is searched for bytes that mean something.
const WORD: usize = 8;

/// A changed byte of the disk.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub offset: usize,
    pub byte: u8,
}

/// The parts of a disk that a CRC-32C covers.
#[derive(Debug)]
pub struct Structure {
    /// Offsets and lengths of the parts.
    parts: Vec<(usize, usize)>,
    /// The offset of the checksum, a little-endian integer; the checksum covers zeros in its place.
    checksum: Option<usize>,
    /// The offsets of the bytes that are worth changing: those in words with something in them, and beside such words.
    used: Vec<usize>,
}

impl Structure {
    /// Creates a structure of an image.
    pub fn new(disk: &[u8], parts: Vec<(usize, usize)>, checksum: Option<usize>) -> Self {
        let is_used =
            |at: usize| disk[at.saturating_sub(WORD)..disk.len().min(at + 2 * WORD)].iter().any(|byte| *byte != 0);
        let words = parts
            .iter()
            .flat_map(|(start, len)| (*start..start + len).step_by(WORD).zip(std::iter::repeat(start + len)));
        let used = words.filter(|(at, _)| is_used(*at)).flat_map(|(at, end)| at..end.min(at + WORD)).collect();
        Self { parts, checksum, used }
    }

    /// Changes a byte, a bit, an integer of two bytes, one of four bytes to a limit, or a word to another one of the structure.
    pub fn change(&self, disk: &[u8], byte: usize, [kind, values @ ..]: [u8; 4], changes: &mut Vec<Change>) {
        if self.used.is_empty() {
            return;
        }
        let place = |number: usize| self.used[number % self.used.len()];
        let at = place(byte);
        let other = place(usize::from(u16::from_le_bytes([values[0], values[1]])));
        let bytes: &[u8] = match kind % 5 {
            0 => &values[..1],
            1 => &[disk[at] ^ (1 << (values[0] % 8))],
            2 => &values[..2],
            3 => &[[0, 0, 0, 0], [0, 0, 0, 1], [0x7f, 0xff, 0xff, 0xff], [0xff; 4]][usize::from(values[0]) % 4],
            _ => &disk[other..disk.len().min(other + WORD)],
        };
        changes.extend((at..disk.len()).zip(bytes).map(|(offset, byte)| Change { offset, byte: *byte }));
    }

    /// Adds changes that make the checksum correct.
    pub fn repair(&self, disk: &[u8], changes: &mut Vec<Change>) {
        let Some(at) = self.checksum else { return };
        let checksum = self.compute(disk, changes).to_le_bytes();
        changes.extend((at..).zip(checksum).map(|(offset, byte)| Change { offset, byte }));
    }

    /// Returns whether the checksum on the disk is correct.
    pub fn has_valid_checksum(&self, disk: &[u8]) -> bool {
        self.checksum.is_none_or(|at| disk[at..at + 4] == self.compute(disk, &[]).to_le_bytes())
    }

    fn compute(&self, disk: &[u8], changes: &[Change]) -> u32 {
        let mut crc = 0;
        for (start, len) in &self.parts {
            let mut bytes = disk[*start..start + len].to_vec();
            for change in changes {
                if let Some(byte) = change.offset.checked_sub(*start).and_then(|at| bytes.get_mut(at)) {
                    *byte = change.byte;
                }
            }
            if let Some(at) = self.checksum.and_then(|at| at.checked_sub(*start)).filter(|at| *at < *len) {
                bytes[at..at + 4].fill(0);
            }
            crc = crc32c::crc32c_append(crc, &bytes);
        }
        crc
    }
}
