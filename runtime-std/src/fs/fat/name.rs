//! Names: the short one of an entry, the long one before it, and what is the same name.

use crate::fs::bytes::{array_at, le};

/// The upper half of code page 437, which short names are in unless somebody has said otherwise to Linux.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}";
/// How many pieces a long name can have: 255 characters and the zero that ends it.
const MOST_PIECES: u8 = 20;
/// Marks the piece that is the last one of a name, and the first one on the disk.
const LAST: u8 = 0x40;

/// The short name of an entry, as Linux shows it: letters in lower case where Windows NT has marked them so.
pub(super) fn short_name(record: &[u8; 32]) -> String {
    let mut name: [u8; 11] = array_at(record, 0);
    if let [first @ 0x05, ..] = &mut name {
        // The character whose byte would say that the entry is free.
        *first = 0xE5;
    }
    let [lower] = array_at(record, 12);
    let (base, extension) = name.split_at(8);
    let mut shown = part(base, lower & 0x08 != 0);
    let extension = part(extension, lower & 0x10 != 0);
    if !extension.is_empty() {
        shown.push('.');
        shown.push_str(&extension);
    }
    shown
}

/// One of the two parts of a short name, which is filled with spaces.
fn part(bytes: &[u8], lower: bool) -> String {
    let text: String = bytes.iter().take_while(|byte| **byte != 0).map(|byte| decode(*byte)).collect();
    let text = text.trim_end_matches(' ');
    if lower { text.to_lowercase() } else { text.into() }
}

fn decode(byte: u8) -> char {
    byte.checked_sub(0x80).and_then(|upper| CODE_PAGE_437.chars().nth(upper.into())).unwrap_or(byte.into())
}

/// Whether two names are the same on FAT.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    let lower = |name: &str| name.to_lowercase();
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && lower(a) == lower(b))
}

/// A long name of which pieces have been read; they come in reverse.
#[derive(Debug, Default)]
pub(super) struct LongName {
    pieces: Vec<[u16; 13]>,
    /// How many pieces are to come.
    missing: u8,
    /// The checksum of the short name that it belongs to.
    checksum: u8,
}

impl LongName {
    /// Adds the next piece; one that does not continue what is there, and does not begin a name, ends it.
    pub(super) fn add(&mut self, record: &[u8; 32]) {
        let [number] = array_at(record, 0);
        let [checksum] = array_at(record, 13);
        let begins = number & LAST != 0;
        if begins {
            *self = Self { pieces: Vec::new(), missing: number & !LAST, checksum };
        }
        let continues = number & !LAST == self.missing && checksum == self.checksum;
        if !continues || !(1..=MOST_PIECES).contains(&self.missing) {
            *self = Self::default();
            return;
        }
        self.missing -= 1;
        self.pieces.push(PLACES.map(|at| le::u16_at(record, at)));
    }

    /// The name, if it is whole and belongs to this entry. What is not UTF-16 in it is left out, as in Linux.
    pub(super) fn of(self, record: &[u8; 32]) -> Option<String> {
        if self.pieces.is_empty() || self.missing != 0 || self.checksum != checksum(&array_at(record, 0)) {
            return None;
        }
        let units = self.pieces.into_iter().rev().flatten().take_while(|unit| *unit != 0);
        let name: String = char::decode_utf16(units).flatten().collect();
        // Nobody could ask for such ones.
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}

/// Where the characters of a piece are in its entry.
const PLACES: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The checksum of a short name that the pieces of its long name carry.
fn checksum(name: &[u8; 11]) -> u8 {
    name.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}
