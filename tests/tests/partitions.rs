//! Partition tables of all kinds, as we read them and as a Linux kernel reads them.

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
use rtftp_tests::{Disk, FileSystem, NbdServer, OwnerMachine, Tree, run};
use smol::Executor;

/// How large the disk is, in bytes.
const SIZE: usize = 32 << 20;
/// How long an answer of the server may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A partition as number, first sector and sectors.
type Shown = (u32, u64, u64);

/// The disk that sfdisk makes of a script.
fn sfdisk(script: &str) -> Vec<u8> {
    let disk = Disk::raw(&vec![0; SIZE]);
    let script = Tree::new().file("script", script);
    let command = r#"PATH=$PATH:/sbin:/usr/sbin; sfdisk --quiet --no-reread --no-tell-kernel "$0" <"$1/script""#;
    run("sh", ["-c".as_ref(), command.as_ref(), disk.path().as_os_str(), script.path().as_os_str()]);
    fs::read(disk.path()).expect("the image")
}

/// A disk with these entries in its MBR: flag, type, start and length.
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

/// All kinds of tables, and what they are.
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
        ("nothing", vec![0; SIZE]),
        ("a GPT with gaps", gpt.clone()),
        (
            "a GPT whose numbers are not in the order of the disk",
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
        ("an entry that begins behind the end", mbr(&[(0, 0x83, end + 5, 100), (0, 0x83, 2048, 100)])),
        ("an entry that ends behind the end", mbr(&[(0, 0x83, 2048, 2 * end)])),
        ("an entry of no known type", mbr(&[(0, 0, 2048, 100), (0, 0xda, 4096, 100)])),
        ("a boot flag that is none", mbr(&[(0x12, 0x83, 2048, 100)])),
        ("a protective MBR and nothing else", mbr(&[(0, 0xee, 1, end - 1)])),
        ("a file system on the whole disk", fs::read(superfloppy.path()).expect("the image")),
    ]
}

#[test]
fn partitions_are_those_of_a_kernel() {
    let disk = Disk::raw(&vec![0; SIZE]);
    let server = NbdServer::nbdkit(&disk);
    let mut owner = OwnerMachine::boot(&server);
    let mut shown = 0;
    for (name, bytes) in tables() {
        let image = OpenOptions::new().write(true).open(disk.path()).and_then(|mut image| image.write_all(&bytes));
        image.expect("the disk is written");
        let expected = of_kernel(&mut owner);
        assert_eq!(of_ours(&server), expected, "{name}");
        shown += expected.len();
    }
    assert!(shown > 15, "the kernel shows {shown} partitions in all");
}

/// The partitions that the owner's kernel shows.
fn of_kernel(owner: &mut OwnerMachine) -> Vec<Shown> {
    let lines = owner.run(
        "echo 3 >/proc/sys/vm/drop_caches; blockdev --rereadpt /dev/vda
        for p in /sys/block/vda/vda*; do [ ! -e $p ] || echo $(cat $p/partition $p/start $p/size); done",
    );
    let line = |line: &str| -> Shown {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        (numbers[0] as u32, numbers[1], numbers[2])
    };
    let mut shown: Vec<Shown> = lines.lines().map(line).collect();
    shown.sort_unstable();
    shown
}

/// The partitions that we find.
fn of_ours(server: &NbdServer) -> Vec<Shown> {
    let url = NbdUri::parse(server.url()).expect("a URI");
    let executor = Executor::new();
    smol::block_on(executor.run(async {
        let disk = NbdClient::connect(&url, LIMIT, &executor).await.expect("a server");
        let found = partitions(&Volume::new(Arc::new(disk))).await.expect("a table, or none");
        found.iter().map(|found| (found.number, found.start / 512, found.len / 512)).collect()
    }))
}
