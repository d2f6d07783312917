//! Changes in the log of XFS that only Linux completes.

use rtftp_tests::{
    power_cut::{Cut, CutDisk, Random},
    try_read_image,
};
use tempfile::TempDir;

use crate::{
    can_mount,
    compare::{is_unfinished, read_by_kernel, write_sparse},
    seed,
    variants::XFS_SMALL_LOG,
};

/// A file of many extents is cloned again and again: each extent is an intent, which Linux writes to the log when the log is full or
/// another process flushes a file.
const SCRIPT: &str = "
cd /mnt
for i in $(seq 0 2 800); do dd if=/dev/zero of=pieces bs=4k seek=$i count=1 conv=notrunc; done 2>/dev/null
sync
(while :; do cp --reflink=always pieces clone; done) &
(while :; do date >>log; sync log; done) &
(while :; do cp --reflink=always pieces other; done) &
";

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn unfinished_change_of_a_map_is_refused_by_name() {
    let variant = &XFS_SMALL_LOG;
    if !can_mount(variant) {
        return;
    }
    let seed = seed();
    let recording = variant.record_script(&variant.create(), SCRIPT);
    let directory = TempDir::new().expect("a temporary directory");
    let image = directory.path().join("image");
    let mut random = Random::new(seed);
    let mut disk = CutDisk::new(recording.base, &recording.operations);
    let (mut readable, mut refused) = (0, 0);
    for end in recording.mounted..=recording.operations.len() {
        disk.cut(end, Cut::Kill, &mut random, |disk, _| {
            let ours = try_read_image(disk.clone());
            match &ours {
                Ok(_) => readable += 1,
                Err(_) if is_unfinished(&ours) => {
                    refused += 1;
                    if refused < 4 {
                        write_sparse(&image, disk);
                        let truth = read_by_kernel(&image, variant.kind.mount);
                        assert!(truth.is_ok(), "Linux completes the change: {truth:?}");
                    }
                }
                Err(error) => panic!("after {end} operations: {error}"),
            }
        });
    }
    println!("xfs, clones: {readable} disks are readable, {refused} have an unfinished change");
    assert!(readable > 0 && refused > 0, "the owner clones files");
}
