use std::{
    fs::{self, File},
    sync::OnceLock,
    time::Instant,
};

use smol::block_on;

use super::*;
use crate::fs::testing::{Disk, Random, run};

/// The disk that most tables are on, in sectors.
const SECTORS: usize = 65_536;

/// A partition as number, first sector and sectors.
type Shown = (u32, u64, u64);

fn read(disk: Vec<u8>) -> Result<Vec<Shown>, Error> {
    let found = block_on(partitions(&Disk::new(disk).volume()))?;
    Ok(found.into_iter().map(|found| (found.number, found.start / SECTOR, found.len / SECTOR)).collect())
}

#[track_caller]
fn check(disk: Vec<u8>, expected: &[Shown]) {
    assert_eq!(read(disk).as_deref(), Ok(expected));
}

/// A disk with the table that sfdisk makes of a script.
fn sfdisk(script: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, table) = (directory.path().join("disk"), directory.path().join("table"));
    File::create(&disk).and_then(|disk| disk.set_len(SECTORS as u64 * 512)).expect("make the disk");
    fs::write(&table, script).expect("write the script");
    let command = r#"sfdisk --quiet --no-reread --no-tell-kernel "$0" < "$1""#;
    run("sh", ["-c".as_ref(), command.as_ref(), disk.as_os_str(), table.as_os_str()]);
    fs::read(&disk).expect("read the disk")
}

/// Writes a table into a sector of a disk; an entry is flag, type, start and length.
fn table(disk: &mut [u8], sector: usize, entries: &[(u8, u8, u32, u32)]) {
    let sector = &mut disk[sector * 512..][..512];
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    for (slot, (flag, kind, start, len)) in entries.iter().enumerate() {
        let entry = &mut sector[446 + slot * 16..][..16];
        (entry[0], entry[4]) = (*flag, *kind);
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&len.to_le_bytes());
    }
}

fn mbr(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; SECTORS * 512];
    table(&mut disk, 0, entries);
    disk
}

/// A disk with a GPT whose entries 1, 3, 5 and 7 are in use.
fn gpt() -> Vec<u8> {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    let script = "label: gpt\n1: start=2048, size=2048\n3: start=4096, size=2048\n\
         5: start=8192, size=1000\n7: start=10240, size=1\n";
    MADE.get_or_init(|| sfdisk(script)).clone()
}

const GPT: [Shown; 4] = [(1, 2048, 2048), (3, 4096, 2048), (5, 8192, 1000), (7, 10240, 1)];

/// Makes the checksums of a GPT right again.
fn sign(disk: &mut [u8]) {
    let crc = |bytes: &[u8]| {
        // Bit by bit, in another way than what is tested.
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
        })
    };
    let number = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().expect("4 bytes")) as usize;
    let (start, len) = (number(512 + 72).saturating_mul(512), number(512 + 80).saturating_mul(128));
    if let Some(entries) = disk.get(start..).and_then(|disk| disk.get(..len)) {
        let crc = crc(entries);
        disk[512 + 88..][..4].copy_from_slice(&crc.to_le_bytes());
    }
    disk[512 + 16..][..4].fill(0);
    let crc = crc(&disk[512..][..92]);
    disk[512 + 16..][..4].copy_from_slice(&crc.to_le_bytes());
}

/// Changes bytes of a GPT's header and makes its checksums right again.
fn altered(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut disk = gpt();
    disk[512 + at..][..bytes.len()].copy_from_slice(bytes);
    sign(&mut disk);
    disk
}

#[test]
fn gpt_partitions_have_the_number_of_their_entry() {
    check(gpt(), &GPT);
    check(
        sfdisk("label: gpt\n1: start=40000, size=10\n2: start=2048, size=2048\n128: start=30000, size=10\n"),
        &[(1, 40_000, 10), (2, 2048, 2048), (128, 30_000, 10)],
    );
    check(sfdisk("label: gpt\n"), &[]);
}

#[test]
fn gpt_entries_out_of_the_disk_are_dropped() {
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
fn a_gpt_that_linux_does_not_believe_is_none() {
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
        // 32,769 entries are more than Linux makes room for; they would be in the disk.
        (80, &[1, 0x80]),
        (84, &[0, 1]),
        (84, &[64]),
        (84, &[0xFF; 4]),
    ] {
        check(altered(at, bytes), &[]);
    }
}

#[test]
fn only_the_first_255_entries_have_a_number() {
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
    // Entries are read in several pieces; all of them make the checksum.
    check(altered(80, &[0, 0x80]), &GPT);
}

#[test]
fn a_gpt_needs_its_protective_mbr() {
    let mut disk = gpt();
    disk[510] = 0;
    check(disk, &[]);
    let mut disk = gpt();
    disk[446 + 4] = 0x83;
    // What else could it be than a partition?
    check(disk, &[(1, 1, 65_535)]);
    // One that does not begin with the GPT hides everything.
    let mut disk = gpt();
    disk[446 + 8] = 2;
    check(disk, &[]);
    // The size and the flag do not matter, nor does its slot.
    let mut disk = gpt();
    table(&mut disk, 0, &[(7, 0x83, 2048, 2048), (0, 0xEE, 1, 3)]);
    check(disk, &GPT);
    let mut disk = mbr(&[(0, 0x83, 2048, 2048), (0, 0xEE, 1, 2047)]);
    disk[65_535 * 512..][..512].copy_from_slice(&gpt()[65_535 * 512..]);
    check(disk, &[]);
}

#[test]
fn a_gpt_for_longer_sectors_is_named() {
    let mut disk = mbr(&[(0, 0xEE, 1, u32::MAX)]);
    disk[4096..4104].copy_from_slice(b"EFI PART");
    let expected = "made for sectors of 4096 bytes, but the disk has sectors of 512";
    assert_eq!(read(disk), Err(Error::unsupported("partition table", expected)));
}

#[test]
fn mbr_partitions_have_the_number_of_their_slot() {
    let script = "label: dos\n1: start=2048, size=2048, type=c\n3: start=8192, size=2048, type=83\n";
    check(sfdisk(script), &[(1, 2048, 2048), (3, 8192, 2048)]);
    check(mbr(&[(0, 0x83, 9000, 10), (0x80, 0x0C, 2048, 10)]), &[(1, 9000, 10), (2, 2048, 10)]);
    check(sfdisk("label: dos\n"), &[]);
    // An entry is in use if it has a length, whatever its type.
    check(mbr(&[(0, 0x83, 2048, 0), (0, 0, 4096, 10)]), &[(2, 4096, 10)]);
}

#[test]
fn logical_partitions_follow_their_chain() {
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
fn a_chain_may_go_backwards_skip_and_use_all_entries() {
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
fn a_chain_that_does_not_end_is_left() {
    let circle = |data: u32| {
        let mut disk = mbr(&[(0, 0x05, 1000, 500)]);
        table(&mut disk, 1000, &[(0, 0x83, 1, data), (0, 0x05, 0, 500)]);
        disk
    };
    check(circle(0), &[(1, 1000, 2)]);
    let mut expected = vec![(1, 1000, 2)];
    expected.extend((5..=255).map(|number| (number, 1001, 7)));
    check(circle(7), &expected);
    // Its links: out of the disk, to a sector without a table, as many empty ones as are gone through, one more.
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
fn what_leaves_the_disk_is_cut_or_dropped() {
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
fn what_is_not_a_table_has_no_partitions() {
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
fn a_file_system_on_the_whole_disk_is_not_a_table() {
    for bits in ["12", "16", "32"] {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = directory.path().join("disk");
        File::create(&disk).and_then(|disk| disk.set_len(40 << 20)).expect("make the disk");
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
fn damaged_tables_are_read_in_bounded_steps() {
    let mut chained = mbr(&[(0, 0x83, 63, 10), (0, 0x05, 1, 500), (0, 0x0F, 100, 500)]);
    for sector in 1..32 {
        table(&mut chained, sector, &[(0, 0x83, 1, 1), (0, 0x05, sector as u32, 5)]);
    }
    chained.truncate(80 * 512);
    let mut protected = altered(40, &(79u128 << 64 | 40).to_le_bytes());
    protected[512 + 80] = 8;
    for (number, entry) in protected[1024..][..8 * 128].chunks_mut(128).enumerate() {
        entry[0] = 1;
        entry[32..40].copy_from_slice(&(40 + number as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&(50 + number as u64).to_le_bytes());
    }
    sign(&mut protected);
    // Short disks make quick tests.
    protected.truncate(80 * 512);
    assert_eq!(read(chained.clone()).map(|found| found.len()), Ok(33));
    assert_eq!(read(protected.clone()).map(|found| found.len()), Ok(8));
    let disks = [chained, protected];
    let started = Instant::now();
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        let mut disk = disks[random.below(2)].clone();
        for _ in 0..=random.below(6) {
            let (start, len) = [(446, 66), (512, 92), (1024, 1024), (0, 80 * 512)][random.below(4)];
            let at = start + random.below(len);
            disk[at] = random.byte();
        }
        if random.below(2) == 0 && disk.get(512..520) == Some(b"EFI PART") {
            sign(&mut disk);
        }
        let disk = Disk::new(disk);
        if let Ok(found) = block_on(partitions(&disk.volume())) {
            assert!(found.is_sorted_by(|a, b| a.number < b.number), "seed {seed}: {found:?}");
            for found in found {
                let fits = found.number <= 255 && found.len > 0 && found.start + found.len <= 80 * 512;
                assert!(fits, "seed {seed}: {found:?}");
            }
        }
        assert!(disk.reads() <= 300, "seed {seed}: {} reads", disk.reads());
    }
    assert!(started.elapsed().as_secs() < 60, "took {:?}", started.elapsed());
}
