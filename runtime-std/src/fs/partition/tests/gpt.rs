use super::*;

#[test]
fn partition_number_is_the_entry_index() {
    check(gpt(), &GPT);
    check(
        sfdisk("label: gpt\n1: start=40000, size=10\n2: start=2048, size=2048\n128: start=30000, size=10\n"),
        &[(1, 40_000, 10), (2, 2048, 2048), (128, 30_000, 10)],
    );
    check(sfdisk("label: gpt\n"), &[]);
}

#[test]
fn entries_beyond_the_disk_are_dropped() {
    let entries = |changed: &[(usize, u64)]| {
        let mut disk = gpt();
        for (at, value) in changed {
            disk[1024 + at..][..8].copy_from_slice(&value.to_le_bytes());
        }
        sign(&mut disk);
        disk
    };
    check(entries(&[(40, 65_535)]), &[(1, 2048, 63_488), GPT[1], GPT[2], GPT[3]]);
    check(entries(&[(40, 65_536)]), &GPT[1..]);
    check(entries(&[(32, 65_536)]), &GPT[1..]);
    check(entries(&[(32, 5000)]), &GPT[1..]);
    check(entries(&[(32, u64::MAX), (40, u64::MAX)]), &GPT[1..]);
    check(entries(&[(32, 0), (40, u64::MAX)]), &GPT[1..]);
    check(entries(&[(0, 0), (8, 0)]), &GPT[1..]);
}

#[test]
fn invalid_header_yields_no_partitions() {
    check(altered(16, &[0; 4]), &GPT);
    let mut disk = gpt();
    disk[512 + 56] ^= 1;
    check(disk, &[]);
    let mut disk = gpt();
    disk[1024 + 56] ^= 1;
    check(disk, &[]);
    for (at, bytes) in [
        (0, &b"EFI PARX"[..]),
        (12, &[91, 0]),
        (12, &[1, 2]),
        (24, &[2]),
        (40, &[0, 0, 1]),
        (48, &[33, 0, 0]),
        (48, &[0, 0, 1]),
        (72, &[0, 0, 1]),
        (72, &[0xFF; 8]),
        (80, &[0; 4]),
        (80, &[0xFF; 4]),
        // Linux allocates memory for fewer than 32,769 entries; the disk has room for them.
        (80, &[1, 0x80]),
        (84, &[0, 1]),
        (84, &[64]),
        (84, &[0xFF; 4]),
    ] {
        check(altered(at, bytes), &[]);
    }
}

#[test]
fn only_the_first_255_entries_are_numbered() {
    let mut disk = altered(80, &[44, 1]);
    for number in 8..=300 {
        let entry = &mut disk[1024 + (number - 1) * 128..][..128];
        entry[0] = 1;
        entry[32..40].copy_from_slice(&(20_000 + number as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&(20_000 + number as u64).to_le_bytes());
    }
    sign(&mut disk);
    let mut expected = GPT.to_vec();
    expected.extend((8..=255).map(|number| (number, 20_000 + u64::from(number), 1)));
    check(disk, &expected);
    // The checksum covers all chunks of the entries.
    check(altered(80, &[0, 0x80]), &GPT);
}

#[test]
fn gpt_requires_a_protective_mbr() {
    let mut disk = gpt();
    disk[510] = 0;
    check(disk, &[]);
    let mut disk = gpt();
    disk[446 + 4] = 0x83;
    // Without type 0xEE, it is an ordinary partition.
    check(disk, &[(1, 1, 65_535)]);
    // A protective entry with another start hides everything.
    let mut disk = gpt();
    disk[446 + 8] = 2;
    check(disk, &[]);
    // Its length, boot flag and slot do not matter.
    let mut disk = gpt();
    table(&mut disk, 0, &[(7, 0x83, 2048, 2048), (0, 0xEE, 1, 3)]);
    check(disk, &GPT);
    let mut disk = mbr(&[(0, 0x83, 2048, 2048), (0, 0xEE, 1, 2047)]);
    disk[65_535 * 512..][..512].copy_from_slice(&gpt()[65_535 * 512..]);
    check(disk, &[]);
}

#[test]
fn gpt_for_longer_sectors_is_read() {
    for unit in [1024, 2048, 4096] {
        let table = altered(48, &8000u64.to_le_bytes());
        let mut disk = table.clone();
        disk[512..unit].fill(0);
        disk[unit..unit + 512].copy_from_slice(&table[512..1024]);
        disk[2 * unit..2 * unit + 128 * 128].copy_from_slice(&table[1024..1024 + 128 * 128]);
        let factor = unit as u64 / 512;
        let inside = GPT.into_iter().filter(|(_, start, _)| (start + 2048) * factor <= SECTORS as u64);
        let expected: Vec<_> = inside.map(|(number, start, len)| (number, start * factor, len * factor)).collect();
        assert!(expected.len() >= 2, "{expected:?}");
        check(disk, &expected);
    }
}

#[test]
fn missing_table_is_described() {
    let described = |disk: Vec<u8>| {
        assert_eq!(read(disk.clone()), Ok(vec![]));
        block_on(describe_missing(&Disk::new(disk).volume())).expect("readable")
    };
    assert_eq!(described(vec![0; 1 << 20]), None);
    let mut damaged = gpt();
    damaged[512 + 40] ^= 1;
    let shrunk = gpt()[..4 << 20].to_vec();
    for disk in [damaged, shrunk] {
        assert!(described(disk).is_some_and(|text| text.starts_with("a GPT that is damaged, or larger")));
    }
    let mut backup = gpt();
    backup[512..1024].fill(0);
    assert!(described(backup).is_some_and(|text| text.contains("backup")));
    for (at, bytes, name) in [
        (512, &b"PM\0\0"[..], "Apple"),
        (0x1fc, b"\xda\xbe", "Sun"),
        (512, b"\x57\x45\x56\x82", "BSD"),
        (0, b"RDSK", "Amiga"),
        (0x8001, b"CD001", "\"partition\": 0"),
    ] {
        let mut disk = vec![0; 1 << 20];
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(described(disk).is_some_and(|text| text.contains(name)), "{name}");
    }
}
