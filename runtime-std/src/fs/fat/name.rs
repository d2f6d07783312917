//! Short and long names, and their comparison.

use crate::fs::bytes::{array_at, le};

/// The upper half of code page 437, the default encoding of short names in Linux.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}";
/// The maximum number of parts of a long name: 255 UTF-16 units and a terminating zero.
const MAX_PARTS: u8 = 20;
/// The flag of the last part of a name, which comes first on the disk.
const LAST: u8 = 0x40;
/// The offsets of the UTF-16 units in an entry with a part of a long name.
const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// Returns the short name of an entry as Linux shows it: in lower case where Windows NT recorded so.
pub(super) fn short_name(record: &[u8; 32]) -> String {
    let mut name: [u8; 11] = array_at(record, 0);
    if let [first @ 0x05, ..] = &mut name {
        // 0x05 stands for 0xE5, which would mark the entry as unused.
        *first = 0xE5;
    }
    let [lower] = array_at(record, 12);
    let (base, extension) = name.split_at(8);
    let mut shown = decode_padded(base, lower & 0x08 != 0);
    let extension = decode_padded(extension, lower & 0x10 != 0);
    if !extension.is_empty() {
        shown.push('.');
        shown.push_str(&extension);
    }
    shown
}

/// Decodes the base or the extension of a short name, which is padded with spaces.
fn decode_padded(bytes: &[u8], lower: bool) -> String {
    let text: String = bytes.iter().take_while(|byte| **byte != 0).map(|byte| decode(*byte)).collect();
    let text = text.trim_end_matches(' ');
    if lower { text.to_lowercase() } else { text.into() }
}

fn decode(byte: u8) -> char {
    byte.checked_sub(0x80).and_then(|upper| CODE_PAGE_437.chars().nth(upper.into())).unwrap_or(byte.into())
}

/// Returns whether two names are equal on FAT, which ignores case.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    let lower = |name: &str| name.to_lowercase();
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && lower(a) == lower(b))
}

/// The parts of a long name that were read so far. They come in reverse order.
#[derive(Debug, Default)]
pub(super) struct LongName {
    parts: Vec<[u16; 13]>,
    /// The number of parts that are still missing.
    missing: u8,
    /// The checksum of the short name of the same entry.
    checksum: u8,
}

impl LongName {
    /// Adds the next part. A part that neither continues the name nor starts one discards the name.
    pub(super) fn add(&mut self, record: &[u8; 32]) {
        let [number] = array_at(record, 0);
        let [checksum] = array_at(record, 13);
        if number & LAST != 0 {
            *self = Self { parts: Vec::new(), missing: number & !LAST, checksum };
        }
        let continues = number & !LAST == self.missing && checksum == self.checksum;
        if !continues || !(1..=MAX_PARTS).contains(&self.missing) {
            *self = Self::default();
            return;
        }
        self.missing -= 1;
        self.parts.push(UNITS.map(|at| le::u16_at(record, at)));
    }

    /// Returns the name if it is complete and belongs to this entry. Like Linux, leaves out invalid UTF-16.
    pub(super) fn finish(self, record: &[u8; 32]) -> Option<String> {
        if self.parts.is_empty() || self.missing != 0 || self.checksum != checksum(&array_at(record, 0)) {
            return None;
        }
        let units = self.parts.into_iter().rev().flatten().take_while(|unit| *unit != 0);
        let name: String = char::decode_utf16(units).flatten().collect();
        // No path can contain an empty name or a slash.
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}

/// Computes the checksum of a short name, which is stored with the parts of the long name.
fn checksum(name: &[u8; 11]) -> u8 {
    name.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}
