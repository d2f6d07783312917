use super::*;

/// Returns the entries of an empty file with a long and a short name.
pub(in super::super) fn records(long: &str, short: &[u8]) -> Vec<u8> {
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<_> = long.encode_utf16().collect();
    if units.len() % 13 != 0 {
        units.push(0);
    }
    units.resize(units.len().next_multiple_of(13), 0xFFFF);
    let parts = units.chunks(13).enumerate().map(|(index, part)| {
        let last = if (index + 1) * 13 == units.len() { 0x40 } else { 0 };
        let mut bytes: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        bytes.splice(22..22, [0, 0]);
        bytes.splice(10..10, [0x0F, 0, sum]);
        [&[(index as u8 + 1) | last], &bytes[..]].concat()
    });
    let parts: Vec<_> = parts.collect();
    [parts.into_iter().rev().flatten().collect(), record(short, 0x20, 0)].concat()
}

/// Returns an entry with a short name, attributes and flags for lower case.
fn record(short: &[u8], attributes: u8, lower: u8) -> Vec<u8> {
    [short, &[attributes, lower], &[0; 19]].concat()
}

/// Returns the names that a directory shows.
fn shown(records: &[Vec<u8>]) -> Vec<String> {
    let mut directory = Directory::default();
    directory.add(0, &records.concat());
    directory.found.iter().map(|entry| entry.name().to_owned()).collect()
}

#[test]
fn short_names_are_shown_like_linux() {
    for (short, lower, expected) in [
        (b"KERNEL  IMG", 0, "KERNEL.IMG"),
        (b"KERNEL  IMG", 0x08, "kernel.IMG"),
        (b"KERNEL  IMG", 0x10, "KERNEL.img"),
        (b"KERNEL  IMG", 0x18, "kernel.img"),
        (b"VMLINUZ    ", 0x18, "vmlinuz"),
        (b"A B C D E F", 0, "A B C D.E F"),
        (b"LONGNAMEEXT", 0, "LONGNAME.EXT"),
        (b"        EXT", 0, ".EXT"),
        (b"N\0LNAMEXE\0T", 0, "N.E"),
        (b"\x05ABC       ", 0, "σABC"),
        (b"\x80\x81\x8E     \xE1\xFF ", 0, "ÇüÄ.ß\u{A0}"),
        (b"\x80\x81\x8E     \xE1\xFF ", 0x08, "çüä.ß\u{A0}"),
    ] {
        assert_eq!(shown(&[record(short, 0x20, lower)]), [expected]);
    }
}

#[test]
fn unnamed_entries_are_not_shown() {
    let file = || record(b"FILE       ", 0x20, 0);
    for unnamed in [
        record(b"A VOLUME   ", 0x08, 0),
        record(b"A VOLUME   ", 0x28, 0),
        record(b"A PART     ", 0x1F, 0),
        record(b".          ", 0x10, 0),
        record(b"..         ", 0x10, 0),
        record(b"           ", 0x20, 0),
        record(b"\xE5ELETED    ", 0x20, 0),
        record(b"\xE5ELETED    ", 0x0F, 0),
    ] {
        assert_eq!(shown(&[unnamed, file()]), ["FILE"]);
    }
    assert_eq!(shown(&[file(), vec![0; 32], record(b"LEFT OVER  ", 0x20, 0)]), ["FILE"]);
    assert_eq!(shown(&[file(), vec![b'A'; 31]]), ["FILE"]);
}

#[test]
fn long_name_must_match_its_short_name() {
    let short = b"KERNEL~1IMG";
    for long in ["a", "thirteen char", "a kernel of its own.image", "ядро", "日本語", "😀.img", &"x".repeat(255)]
    {
        assert_eq!(shown(&[records(long, short)]), [long]);
    }
    let whole = records("a kernel of its own.image", short);
    let parts: Vec<_> = whole.chunks(32).map(<[u8]>::to_vec).collect();
    let [last, first, entry] = [0, 1, 2].map(|at| parts[at].clone());
    let other = record(b"OTHER      ", 0x20, 0);
    let changed = |part: &[u8], at: usize| {
        let mut part = part.to_vec();
        part[at] ^= 2;
        part
    };
    let deleted = |part: &[u8]| [&[0xE5], &part[1..]].concat();
    for orphaned in [
        vec![first.clone(), entry.clone()],
        vec![last.clone(), entry.clone()],
        vec![first.clone(), last.clone(), entry.clone()],
        vec![last.clone(), last.clone(), first.clone(), first.clone(), entry.clone()],
        vec![last.clone(), changed(&first, 0), entry.clone()],
        vec![last.clone(), changed(&first, 13), entry.clone()],
        vec![changed(&last, 13), first.clone(), entry.clone()],
        vec![changed(&last, 13), changed(&first, 13), entry.clone()],
        vec![last.clone(), deleted(&first), entry.clone()],
        vec![last.clone(), first.clone(), deleted(&entry), entry.clone()],
        vec![last.clone(), first.clone(), record(b"A VOLUME   ", 0x08, 0), entry.clone()],
    ] {
        assert_eq!(shown(&orphaned), ["KERNEL~1.IMG"], "{orphaned:?}");
    }
    assert_eq!(shown(&[last.clone(), first.clone(), other, entry.clone()]), ["OTHER", "KERNEL~1.IMG"]);
    // An incomplete name does not affect the next one.
    assert_eq!(shown(&[last.clone(), whole.clone()]), ["a kernel of its own.image"]);
    assert_eq!(shown(&[first, whole]), ["a kernel of its own.image"]);
    let mut longest = records("x", short);
    longest[0] = 0x40 | 21;
    assert_eq!(shown(&[longest]), ["KERNEL~1.IMG"]);
}

#[test]
fn invalid_utf_16_is_left_out() {
    let with = |units: [u16; 3]| {
        let mut records = records("abc", b"ABC        ");
        for (at, unit) in [1, 3, 5].into_iter().zip(units) {
            records[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        shown(&[records]).concat()
    };
    assert_eq!(with([0xD83D, 0xDE00, 0x63]), "😀c");
    assert_eq!(with([0xD83D, 0x62, 0x63]), "bc");
    assert_eq!(with([0x61, 0xDE00, 0x63]), "ac");
    assert_eq!(with([0xDE00, 0xD83D, 0xD83D]), "ABC");
    assert_eq!(with([0, 0x62, 0x63]), "ABC");
    assert_eq!(with([0x61, 0x2F, 0x63]), "ABC");
}

#[test]
fn comparison_ignores_case() {
    for (a, b) in [("kernel.img", "KERNEL.IMG"), ("ä", "Ä"), ("ядро", "ЯДРО"), ("K", "k"), ("straße", "STRAße")]
    {
        assert!(is_same(a, b) && is_same(b, a), "{a} {b}");
    }
    for (a, b) in [("kernel", "kernels"), ("a", "ä"), ("", "a"), ("[", "{"), ("@", "`")] {
        assert!(!is_same(a, b) && !is_same(b, a), "{a} {b}");
    }
}

#[test]
fn times_count_from_1980() {
    let unix = |(year, month, day): (u16, u16, u16), (hour, minute, second): (u16, u16, u16)| {
        let found = time((year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | (second >> 1));
        found.map(|time| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
    };
    assert_eq!(unix((1980, 1, 1), (0, 0, 0)), Some(315_532_800));
    assert_eq!(unix((2000, 2, 29), (23, 59, 58)), Some(951_868_798));
    assert_eq!(unix((2026, 11, 29), (3, 1, 34)), Some(1_795_921_294));
    assert_eq!(unix((2100, 3, 1), (12, 0, 0)), Some(4_107_585_600));
    assert_eq!(unix((1980, 0, 0), (0, 0, 0)), None, "not set");
    assert_eq!(unix((1980, 13, 1), (0, 0, 0)), None);
}
