//! Compares the partitions that rtftp finds with those that a Linux kernel finds.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    sync::Arc,
    time::Duration,
};

use rtftp_core::config::uri::NbdUri;
use rtftp_runtime::{
    fs::{Volume, partition::partitions},
    nbd::NbdClient,
};
use rtftp_tests::{Content, Disk, FileSystem, NbdServer, OwnerMachine, Tree, read_natively, run};
use smol::Executor;

/// The size of the disk in bytes.
const SIZE: usize = 32 << 20;
/// The maximum time for a reply of the NBD server.
const LIMIT: Duration = Duration::from_secs(60);

/// The number, first sector and length in sectors of a partition.
type Numbers = (u32, u64, u64);

/// Returns the disk that sfdisk creates from a script.
fn sfdisk(script: &str) -> Vec<u8> {
    let disk = Disk::raw(&vec![0; SIZE]);
    let script = Tree::new().file("script", script);
    let command = r#"PATH=$PATH:/sbin:/usr/sbin; sfdisk --quiet --no-reread --no-tell-kernel "$0" <"$1/script""#;
    run("sh", ["-c".as_ref(), command.as_ref(), disk.path().as_os_str(), script.path().as_os_str()]);
    fs::read(disk.path()).expect("the image")
}

/// Returns a disk with these entries in its MBR: boot flag, type, start and length.
fn mbr(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut disk = vec![0; SIZE];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (entry, (flag, kind, start, len)) in disk[446..].chunks_exact_mut(16).zip(entries) {
        (entry[0], entry[4]) = (*flag, *kind);
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&len.to_le_bytes());
    }
    disk
}

/// Returns disks with tables of all kinds, with a description.
fn tables() -> Vec<(&'static str, Vec<u8>)> {
    let gpt = sfdisk("label: gpt\n1: start=2048, size=99\n3: start=4096, size=99\n7: start=8192, size=99\n");
    let changed = |at: usize, byte: u8| {
        let mut disk = gpt.clone();
        disk[at] ^= byte;
        disk
    };
    let without_mbr = {
        let mut disk = gpt.clone();
        disk[..512].fill(0);
        disk
    };
    let superfloppy = Disk::whole(32, FileSystem::Vfat(&Tree::new().file("file", "bytes")));
    let end = (SIZE / 512) as u32;
    vec![
        ("no table", vec![0; SIZE]),
        ("a GPT with gaps", gpt.clone()),
        (
            "a GPT with numbers in another order than on the disk",
            sfdisk("label: gpt\n1: start=8192, size=100\n2: start=2048, size=100\n"),
        ),
        ("a GPT with a damaged header", changed(512 + 40, 1)),
        ("a GPT with a damaged entry", changed(1024 + 40, 1)),
        ("a GPT without a protective MBR", without_mbr),
        ("an MBR", mbr(&[(0x80, 0xc, 2048, 2048), (0, 0x83, 4096, 100)])),
        ("an MBR with gaps", mbr(&[(0, 0, 0, 0), (0, 0x83, 4096, 100), (0, 0, 0, 0), (0, 0x82, 2048, 7)])),
        (
            "logical partitions",
            sfdisk(
                "label: dos\n1: start=2048, size=2048\n2: start=8192, size=16384, type=5\n5: start=8300, size=500\n\
                 6: start=10000, size=500\n7: start=9000, size=500\n",
            ),
        ),
        (
            "logical partitions in the fourth slot",
            sfdisk("label: dos\n4: start=8192, size=16384, type=f\n5: start=8300, size=500\n"),
        ),
        ("an entry that starts beyond the end", mbr(&[(0, 0x83, end + 5, 100), (0, 0x83, 2048, 100)])),
        ("an entry that ends beyond the end", mbr(&[(0, 0x83, 2048, 2 * end)])),
        ("an entry of unknown type", mbr(&[(0, 0, 2048, 100), (0, 0xda, 4096, 100)])),
        ("an invalid boot flag", mbr(&[(0x12, 0x83, 2048, 100)])),
        ("a protective MBR without a GPT", mbr(&[(0, 0xee, 1, end - 1)])),
        ("a file system on the whole disk", fs::read(superfloppy.path()).expect("the image")),
    ]
}

#[test]
fn finds_the_same_partitions_as_linux() {
    let disk = Disk::raw(&vec![0; SIZE]);
    let server = NbdServer::nbdkit(&disk);
    let mut owner = OwnerMachine::boot(&server);
    let mut total = 0;
    for (name, bytes) in tables() {
        let image = OpenOptions::new().write(true).open(disk.path()).and_then(|mut image| image.write_all(&bytes));
        image.expect("write the disk");
        let expected = partitions_of_kernel(&mut owner);
        assert_eq!(partitions_of_rtftp(&server), expected, "{name}");
        total += expected.len();
    }
    assert!(total > 15, "the kernel found only {total} partitions");
}

/// Returns a disk with a file system in the first partition that fdisk creates for sectors of `sector` bytes.
fn fdisk(sector: u64, start: u64, commands: &str) -> Vec<u8> {
    let disk = Disk::raw(&vec![0; SIZE]);
    let files = Tree::new().file("commands", commands).file("files/kernel8.img", "the kernel");
    let script = r#"PATH=$PATH:/sbin:/usr/sbin; fdisk --sector-size "$2" "$0" <"$1/commands" &&
        mke2fs -q -t ext4 -d "$1/files" -E offset="$3" "$0" 4M"#;
    let [image, files] = [disk.path(), files.path().to_owned()].map(|path| path.display().to_string());
    run("sh", ["-c", script, &image, &files, &sector.to_string(), &(start * sector).to_string()]);
    fs::read(disk.path()).expect("the image")
}

#[test]
fn finds_the_same_partitions_as_linux_on_disks_with_larger_sectors() {
    for sector in [4096, 2048] {
        let start = (1 << 20) / sector;
        let size = (4 << 20) / sector;
        let primary = |number: u64| format!("n\np\n{number}\n{}\n+{}\n", start + (number - 1) * size, size - 1);
        let dos = format!("o\n{}{}n\ne\n3\n{}\n\n", primary(1), primary(2), start + 3 * size);
        let dos = format!("{dos}n\nl\n\n+{}\nn\nl\n\n+{}\nw\n", size / 4, size / 8);
        let gpt = format!("g\nn\n1\n{start}\n+{}\nn\n5\n{}\n+{size}\nw\n", size - 1, start + 2 * size);
        let disk = Disk::raw(&vec![0; SIZE]);
        let server = NbdServer::nbdkit(&disk);
        let mut owner = OwnerMachine::boot_with_sectors(&server, sector as u32);
        for (name, commands, count) in [("an MBR", dos, 5), ("a GPT", gpt, 2)] {
            let image = OpenOptions::new().write(true).open(disk.path());
            image.and_then(|mut image| image.write_all(&fdisk(sector, start, &commands))).expect("write the disk");
            let expected = partitions_of_kernel(&mut owner);
            assert_eq!(expected.len(), count, "{name} for {sector} bytes: {expected:?}");
            assert_eq!(partitions_of_rtftp(&server), expected, "{name} for {sector} bytes");
            let kernel = Content::File(b"the kernel".to_vec());
            assert_eq!(read_natively(&server, 1).get("kernel8.img"), Some(&kernel), "{name} for {sector} bytes");
        }
    }
}

/// Returns the partitions that the kernel of the owner finds.
fn partitions_of_kernel(owner: &mut OwnerMachine) -> Vec<Numbers> {
    let lines = owner.run(
        "echo 3 >/proc/sys/vm/drop_caches; blockdev --rereadpt /dev/vda
        for p in /sys/block/vda/vda*; do [ ! -e $p ] || echo $(cat $p/partition $p/start $p/size); done",
    );
    let line = |line: &str| -> Numbers {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        (numbers[0] as u32, numbers[1], numbers[2])
    };
    let mut shown: Vec<Numbers> = lines.lines().map(line).collect();
    shown.sort_unstable();
    shown
}

/// Returns the partitions that rtftp finds.
fn partitions_of_rtftp(server: &NbdServer) -> Vec<Numbers> {
    let url = NbdUri::parse(server.url()).expect("a URI");
    let executor = Executor::new();
    smol::block_on(executor.run(async {
        let disk = NbdClient::connect(&url, LIMIT, &executor).await.expect("a server");
        let found = partitions(&Volume::new(Arc::new(disk))).await.expect("a table, or none");
        found.iter().map(|found| (found.number, found.start / 512, found.len / 512)).collect()
    }))
}
