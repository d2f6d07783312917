//! Version 4 of XFS, which the kernel of this machine may not support: the kernel of another virtual machine mounts the disks.

use std::sync::Arc;

use rtftp_tests::{
    Listing, OwnerMachine, RecordingNbdServer, not_tested,
    power_cut::{Cut, CutDisk, Random},
    read_image,
};

use crate::{ends, number, seed, variants::XFS_VERSION_4};

#[test]
#[ignore = "tests/long.sh power-cuts"]
fn native_reader_agrees_with_the_kernel_on_version_4_of_xfs_after_power_cuts() {
    let (variant, seed) = (&XFS_VERSION_4, seed());
    let empty = variant.create();
    let server = RecordingNbdServer::start(std::fs::read(empty.path()).expect("the image"));
    let mut reader = OwnerMachine::boot_at(server.url(), variant.sector as u32, variant.kind.modules, &[]);
    let (mount, unmount) = ("mount -t xfs -o noatime /dev/vda /mnt", "umount /mnt");
    let (code, output) = reader.run_unchecked(&format!("{mount} && {unmount}"));
    if code != 0 {
        not_tested(format!("this kernel does not support version 4 of XFS: {output}"));
        return;
    }
    let recording = variant.record_on(&empty, seed);
    let mut random = Random::new(seed);
    let count = number("POWER_CUTS").unwrap_or(48) as usize;
    let ends = ends(&recording, count, &mut random);
    let mut disk = CutDisk::new(recording.base, &recording.operations);
    let mut names = 0;
    for end in ends {
        let cut = if random.below(3) == 0 { Cut::Kill } else { Cut::Power { unit: variant.sector } };
        disk.cut(end, cut, &mut random, |disk, report| {
            server.replace_disk(disk.as_ref().clone());
            reader.run(mount);
            let truth = Listing::of(&mut reader, "/mnt");
            reader.run(unmount);
            let ours = read_image(Arc::clone(disk));
            println!("{cut:?}: {report}: {} names", ours.len());
            truth.assert_equals(&ours);
            names += ours.len();
            server.take_operations();
        });
    }
    println!("xfs, version-4: {count} disks with {names} names as Linux reads them");
}
