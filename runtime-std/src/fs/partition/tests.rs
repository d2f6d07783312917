mod gpt;
mod mbr;

use std::{
    fs::{self, File},
    sync::OnceLock,
    time::Instant,
};

use smol::block_on;

use super::*;
use crate::fs::testing::{Disk, Random, run};

/// The size of most disks in sectors.
const SECTORS: usize = 65_536;

/// The number, first sector and length in sectors of a partition.
type Numbers = (u32, u64, u64);

fn read(disk: Vec<u8>) -> Result<Vec<Numbers>, Error> {
    let found = block_on(partitions(&Disk::new(disk).volume()))?;
    Ok(found.into_iter().map(|found| (found.number, found.start / SECTOR, found.len / SECTOR)).collect())
}

#[track_caller]
fn check(disk: Vec<u8>, expected: &[Numbers]) {
    assert_eq!(read(disk).as_deref(), Ok(expected));
}

/// Returns a disk with the table that sfdisk creates from a script.
fn sfdisk(script: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let (disk, table) = (directory.path().join("disk"), directory.path().join("table"));
    File::create(&disk).and_then(|disk| disk.set_len(SECTORS as u64 * 512)).expect("create the disk");
    fs::write(&table, script).expect("write the script");
    let command = r#"sfdisk --quiet --no-reread --no-tell-kernel "$0" < "$1""#;
    run("sh", ["-c".as_ref(), command.as_ref(), disk.as_os_str(), table.as_os_str()]);
    fs::read(&disk).expect("read the disk")
}

/// Writes a table into a sector of a disk. An entry is boot flag, type, start and length.
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

/// Returns a disk with these entries in its MBR.
fn mbr(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; SECTORS * 512];
    table(&mut disk, 0, entries);
    disk
}

/// Returns a disk with a GPT with entries 1, 3, 5 and 7.
fn gpt() -> Vec<u8> {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    let script = "label: gpt\n1: start=2048, size=2048\n3: start=4096, size=2048\n\
         5: start=8192, size=1000\n7: start=10240, size=1\n";
    MADE.get_or_init(|| sfdisk(script)).clone()
}

const GPT: [Numbers; 4] = [(1, 2048, 2048), (3, 4096, 2048), (5, 8192, 1000), (7, 10240, 1)];

/// Updates the checksums of a GPT.
fn sign(disk: &mut [u8]) {
    let crc = |bytes: &[u8]| {
        // Bit by bit, independent of the implementation under test.
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

/// Returns [`gpt`] with changed bytes in its header and correct checksums.
fn altered(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut disk = gpt();
    disk[512 + at..][..bytes.len()].copy_from_slice(bytes);
    sign(&mut disk);
    disk
}

#[test]
fn damaged_tables_need_a_bounded_number_of_reads() {
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
    // Short disks make the test fast.
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
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
