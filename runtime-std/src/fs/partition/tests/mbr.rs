use super::*;

#[test]
fn partition_number_is_the_slot() {
    let script = "label: dos\n1: start=2048, size=2048, type=c\n3: start=8192, size=2048, type=83\n";
    check(sfdisk(script), &[(1, 2048, 2048), (3, 8192, 2048)]);
    check(mbr(&[(0, 0x83, 9000, 10), (0x80, 0x0C, 2048, 10)]), &[(1, 9000, 10), (2, 2048, 10)]);
    check(sfdisk("label: dos\n"), &[]);
    // An entry with a length is in use, whatever its type.
    check(mbr(&[(0, 0x83, 2048, 0), (0, 0, 4096, 10)]), &[(2, 4096, 10)]);
}

#[test]
fn logical_partitions_are_numbered_along_the_chain() {
    let script = "label: dos\n1: start=2048, size=2048\n2: start=4096, size=40960, type=5\n3: start=47104, size=2048\n\
         5: start=6144, size=2048\n6: start=20480, size=100\n7: start=30000, size=1000\n";
    let expected =
        [(1, 2048, 2048), (2, 4096, 2), (3, 47_104, 2048), (5, 6144, 2048), (6, 20_480, 100), (7, 30_000, 1000)];
    check(sfdisk(script), &expected);
    for kind in [0x0F, 0x85] {
        let mut disk = mbr(&[(0, kind, 1000, 1)]);
        table(&mut disk, 1000, &[(0, 0x83, 63, 10), (0, 0x05, 5000, 10)]);
        table(&mut disk, 6000, &[(0, 0x83, 1, 20)]);
        check(disk, &[(1, 1000, 1), (5, 1063, 10), (6, 6001, 20)]);
    }
}

#[test]
fn chain_may_go_backwards_and_use_all_slots() {
    let mut disk = mbr(&[(0, 0x05, 1000, 9000)]);
    table(&mut disk, 1000, &[(0, 0x05, 8000, 500)]);
    table(&mut disk, 9000, &[(0, 0x83, 1, 2), (0, 0x05, 100, 600), (0, 0x83, 10, 20), (0, 0x83, 400, 101)]);
    table(&mut disk, 1100, &[(0, 0, 0, 0), (0, 0x83, 70_000, 5), (0, 0x83, 1, 600), (0, 0x83, 2, 598)]);
    check(disk, &[(1, 1000, 2), (5, 9001, 2), (6, 9010, 20), (8, 1102, 598)]);
}

#[test]
fn two_extended_partitions_share_the_numbers() {
    let mut disk = mbr(&[(0, 0x05, 1000, 500), (0, 0x83, 1, 2), (0, 0x0F, 2000, 500)]);
    table(&mut disk, 1000, &[(0, 0x83, 1, 2)]);
    table(&mut disk, 2000, &[(0, 0x83, 1, 2)]);
    check(disk, &[(1, 1000, 2), (2, 1, 2), (3, 2000, 2), (5, 1001, 2), (6, 2001, 2)]);
}

#[test]
fn endless_chains_end() {
    let looped = |data: u32| {
        let mut disk = mbr(&[(0, 0x05, 1000, 500)]);
        table(&mut disk, 1000, &[(0, 0x83, 1, data), (0, 0x05, 0, 500)]);
        disk
    };
    check(looped(0), &[(1, 1000, 2)]);
    let mut expected = vec![(1, 1000, 2)];
    expected.extend((5..=255).map(|number| (number, 1001, 7)));
    check(looped(7), &expected);
    // A link beyond the disk, a link to a sector without a table, the maximum number of empty tables, and one more.
    let mut disk = mbr(&[(0, 0x05, 65_536, 500), (0, 0x05, 2000, 500)]);
    table(&mut disk, 2000, &[(0, 0x83, 1, 2), (0, 0x05, 100, 500)]);
    check(disk, &[(2, 2000, 2), (5, 2001, 2)]);
    for (links, expected) in [(99, &[(1, 1000, 2), (5, 1100, 3)][..]), (100, &[(1, 1000, 2)])] {
        let mut disk = mbr(&[(0, 0x05, 1000, 500)]);
        for link in 0..links {
            table(&mut disk, 1000 + link, &[(0, 0x05, link as u32 + 1, 1)]);
        }
        table(&mut disk, 1000 + links, &[(0, 0x83, 1, 3)]);
        check(disk, expected);
    }
}

#[test]
fn partitions_beyond_the_disk_are_truncated_or_dropped() {
    let disk =
        mbr(&[(0, 0x83, 65_536, 10), (0, 0x83, 65_535, 10), (0, 0x83, u32::MAX, u32::MAX), (0, 0x83, 1, u32::MAX)]);
    check(disk, &[(2, 65_535, 1), (4, 1, 65_535)]);
    let mut disk = mbr(&[(0, 0x83, 0, 65_536)]);
    disk.truncate(SECTORS * 512 - 1);
    check(disk, &[(1, 0, 65_535)]);
    let disk = mbr(&[(0, 0x05, 65_535, 10)]);
    check(disk, &[(1, 65_535, 1)]);
}

#[test]
fn invalid_tables_yield_no_partitions() {
    check(vec![0; SECTORS * 512], &[]);
    for flag in [0x01, 0x7F, 0x81, 0xFF] {
        check(mbr(&[(0, 0x83, 2048, 10), (flag, 0x83, 4096, 10)]), &[]);
        check(mbr(&[(0, 0x83, 2048, 10), (0, 0, 0, 0), (0, 0, 0, 0), (flag, 0, 0, 0)]), &[]);
    }
    let disk = mbr(&[(0, 0x83, 0, 1)]);
    for (len, expected) in [(0, &[][..]), (511, &[]), (512, &[(1, 0, 1)])] {
        check(disk[..len].to_vec(), expected);
    }
    check(mbr(&[(0, 0xEE, 1, 1)])[..512].to_vec(), &[]);
    check(mbr(&[(0, 0xEE, 1, 1)])[..1024].to_vec(), &[]);
}

#[test]
fn file_system_on_the_whole_disk_is_not_a_table() {
    for bits in ["12", "16", "32"] {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = directory.path().join("disk");
        File::create(&disk).and_then(|disk| disk.set_len(40 << 20)).expect("create the disk");
        let cluster = match bits {
            "12" => "32",
            "16" => "4",
            _ => "1",
        };
        run("mkfs.vfat", ["-F".as_ref(), bits.as_ref(), "-s".as_ref(), cluster.as_ref(), disk.as_os_str()]);
        check(fs::read(&disk).expect("read the disk"), &[]);
    }
}

#[test]
fn tables_for_larger_sectors_are_recognised_by_what_their_entries_lead_to() {
    for unit in [1024, 2048, 4096] {
        let per_unit = (unit / 512) as u64;
        let mut disk = mbr(&[(0, 0x83, 256, 100), (0, 0x83, 400, 200)]);
        check(disk.clone(), &[(1, 256, 100), (2, 400, 200)]);
        disk[400 * unit + 3..][..8].copy_from_slice(b"NTFS    ");
        check(disk.clone(), &[(1, 256 * per_unit, 100 * per_unit), (2, 400 * per_unit, 200 * per_unit)]);
        // What is there with sectors of 512 bytes takes precedence.
        disk[256 * 512 + 3..][..8].copy_from_slice(b"NTFS    ");
        check(disk, &[(1, 256, 100), (2, 400, 200)]);

        let mut disk = mbr(&[(0, 0x05, 256, 1000)]);
        table(&mut disk, 256 * unit / 512, &[(0, 0x83, 10, 100), (0, 0x05, 300, 200)]);
        table(&mut disk, 556 * unit / 512, &[(0, 0x83, 20, 50)]);
        let expected =
            [(5, 266, 100), (6, 576, 50)].map(|(number, start, len)| (number, start * per_unit, len * per_unit));
        check(disk, &[&[(1, 256 * per_unit, per_unit.max(2))], &expected[..]].concat());
    }
}

#[test]
fn usual_disk_needs_one_read_for_its_table() {
    let disk = Disk::new(mbr(&[(0x80, 0x0c, 2048, 8192), (0, 0x83, 10_240, 55_296)]));
    assert_eq!(block_on(partitions(&disk.volume())).map(|found| found.len()), Ok(2));
    assert_eq!(disk.reads(), 1);
}
