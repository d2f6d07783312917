use smol::block_on;

use super::*;
use crate::fs::{
    Turns,
    testing::{Disk, run},
};

/// Returns a disk with an MBR and a partition of 16 MiB for each of these commands, which get the path of an image as `$0`.
fn disk(commands: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    for (number, command) in commands.iter().enumerate() {
        let path = directory.path().join("image");
        std::fs::write(&path, vec![0; 16 << 20]).expect("written");
        run("sh", ["-c".as_ref(), command.as_ref(), path.as_os_str()]);
        let (entry, start) = (446 + 16 * number, (disk.len() / 512) as u32);
        disk[entry + 4] = 0x83;
        disk[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        disk[entry + 12..entry + 16].copy_from_slice(&(16u32 << 11).to_le_bytes());
        disk.extend(std::fs::read(&path).expect("an image"));
    }
    disk
}

#[test]
fn finds_the_changed_file_system_of_a_disk() {
    let image = disk(&["mkfs.vfat $0 >&2", "mke2fs -q -t ext4 -O ^metadata_csum $0"]);
    let (work, memory) = (DiskWork::new(&Turns::default()), DiskMemory::unlimited());
    let before = Disk::new(image.clone());
    let marks = block_on(DiskMarks::read(before.clone(), memory.clone(), &work)).expect("read");
    assert!(before.reads() < 20, "{} reads", before.reads());
    let compare = |image: Vec<u8>| {
        let disk = Disk::new(image);
        let change = block_on(marks.compare(disk.clone(), memory.clone(), &work));
        assert!(disk.reads() < 5, "{} reads", disk.reads());
        change.map(|DiskChange { change, text }| (change, text))
    };
    let unchanged = "FAT16 on partition 1 not mounted read-write, ext4 on partition 2 not mounted read-write";
    assert_eq!(compare(image.clone()), Ok((Change::None, unchanged.into())));
    let ext4 = 17 << 20;
    let mut mounted = image.clone();
    // `s_mtime`.
    mounted[ext4 + 1024 + 0x2c] ^= 1;
    assert_eq!(compare(mounted), Ok((Change::Mounted, "ext4 on partition 2 mounted".into())));
    let mut written = image.clone();
    // `s_lastcheck`.
    written[ext4 + 1024 + 0x40] ^= 1;
    assert_eq!(compare(written), Ok((Change::Written, "ext4 on partition 2 written".into())));
    let mut dirty = image.clone();
    dirty[(1 << 20) + 0x25] |= 1;
    assert_eq!(compare(dirty), Ok((Change::Mounted, "FAT16 on partition 1 mounted".into())));
    let mut gone = image;
    gone[ext4..ext4 + 4096].fill(0);
    compare(gone).expect_err("nothing to compare with");
}
