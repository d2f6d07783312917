//! LZO1X, as Linux describes it (`Documentation/staging/lzo.rst`), in the segments of btrfs (`fs/btrfs/lzo.c`).

use crate::fs::bytes::le;

/// The size of a length in bytes.
const LEN: usize = 4;

/// Decodes segments, each of which has the contents of one sector, and returns the length of all.
///
/// The length of all comes first. A length never crosses the end of a sector: the rest of the sector is left out.
pub(super) fn decode_segments(bytes: &[u8], sector: usize, decoded: &mut [u8]) -> Option<usize> {
    let end = usize::try_from(le::u32_at(bytes, 0)).ok()?;
    let bytes = bytes.get(..end).filter(|_| end > LEN)?;
    let (mut at, mut len) = (LEN, 0);
    while at < end {
        let left = sector - at % sector;
        if left < LEN {
            at += left;
        }
        if at >= end {
            break;
        }
        let segment = usize::try_from(le::u32_at(bytes, at)).ok()?;
        let segment = bytes.get(at + LEN..)?.get(..segment)?;
        at += LEN + segment.len();
        let room = sector.min(decoded.len() - len);
        len += decode(segment, decoded.get_mut(len..len + room)?)?;
    }
    Some(len)
}

/// The bytes that are decoded.
struct Input<'b> {
    rest: &'b [u8],
}

impl<'b> Input<'b> {
    fn byte(&mut self) -> Option<usize> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(usize::from(*first))
    }

    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// Returns a length: that in an instruction, or, if it is zero, that which follows in bytes of zeros and another one.
    fn len(&mut self, short: usize, max_short: usize) -> Option<usize> {
        if short != 0 {
            return Some(short);
        }
        let mut len = max_short;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                last => return len.checked_add(last),
            }
        }
    }
}

/// Decodes one segment, and returns the length.
fn decode(bytes: &[u8], decoded: &mut [u8]) -> Option<usize> {
    let mut input = Input { rest: bytes };
    let mut len = 0;
    // The number of literals of the last instruction; 4 stands for more.
    let mut state = 0;
    if bytes.first().is_some_and(|first| *first > 17) {
        let literals = input.byte()? - 17;
        len = push(decoded, len, input.take(literals)?)?;
        state = literals.min(4);
    }
    loop {
        let instruction = input.byte()?;
        let (count, distance, literals);
        match instruction {
            0..16 if state == 0 => {
                let run = input.len(instruction, 15)? + 3;
                len = push(decoded, len, input.take(run)?)?;
                state = 4;
                continue;
            }
            0..16 => {
                let far = if state == 4 { 2049 } else { 1 };
                count = if state == 4 { 3 } else { 2 };
                distance = (input.byte()? << 2) + (instruction >> 2) + far;
                literals = instruction & 3;
            }
            16..32 => {
                count = input.len(instruction & 7, 7)? + 2;
                let low = input.byte()? | input.byte()? << 8;
                distance = 16384 + ((instruction & 8) << 11) + (low >> 2);
                if distance == 16384 {
                    // The end.
                    return Some(len);
                }
                literals = low & 3;
            }
            32..64 => {
                count = input.len(instruction & 31, 31)? + 2;
                let low = input.byte()? | input.byte()? << 8;
                distance = (low >> 2) + 1;
                literals = low & 3;
            }
            64..128 => {
                count = 3 + (instruction >> 5 & 1);
                distance = (input.byte()? << 3) + (instruction >> 2 & 7) + 1;
                literals = instruction & 3;
            }
            _ => {
                count = 5 + (instruction >> 5 & 3);
                distance = (input.byte()? << 3) + (instruction >> 2 & 7) + 1;
                literals = instruction & 3;
            }
        }
        let from = len.checked_sub(distance)?;
        if decoded.len() - len < count {
            return None;
        }
        for at in from..from + count {
            let byte = *decoded.get(at)?;
            *decoded.get_mut(at + distance)? = byte;
        }
        len = push(decoded, len + count, input.take(literals)?)?;
        state = literals;
    }
}

/// Copies literals to an offset, and returns the offset of their end.
fn push(decoded: &mut [u8], at: usize, literals: &[u8]) -> Option<usize> {
    let end = at + literals.len();
    decoded.get_mut(at..end)?.copy_from_slice(literals);
    Some(end)
}
