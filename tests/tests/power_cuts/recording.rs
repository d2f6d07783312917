//! The writes of a machine to its disk.

use std::{fs, process::Command, time::Duration};

use rtftp_tests::{Disk, KernelMount, OwnerMachine, RecordingNbdServer, poll_until, power_cut::Operation};

use crate::variants::Variant;

/// The size of the disks in MiB: `mkfs.xfs` makes none below 300 MiB by default.
const SIZE: u64 = 320;

/// The number of operations to record, and the maximum time for it.
const OPERATIONS: usize = 1000;
const RECORDING_LIMIT: Duration = Duration::from_secs(900);

/// The script that the owner runs, and that makes the files of a new disk.
const WRITER: &str = include_str!("../../src/boot_writer.sh");

/// The owner needs a `cp` that shares blocks.
const PROGRAMS: [&str; 1] = ["/bin/cp"];

/// The writes of an owner to its disk.
#[derive(Debug)]
pub(crate) struct Recording {
    /// The disk before.
    pub(crate) base: Vec<u8>,
    pub(crate) operations: Vec<Operation>,
    /// The number of operations when the disk was mounted.
    pub(crate) mounted: usize,
}

impl Variant {
    /// Creates an empty file system.
    pub(crate) fn create(&self) -> Disk {
        Disk::whole(SIZE, (self.kind.new)(self.mkfs))
    }

    /// Creates a disk with an installed system that was unmounted.
    fn install(&self, seed: u64) -> Disk {
        let disk = self.create();
        let mounted = KernelMount::new(&disk.path(), self.kind.mount).expect("mount a new file system");
        let run = |directory: &str, script: &str| {
            let directory = mounted.path().join(directory);
            let status = Command::new("sh").args(["-ec", script]).current_dir(directory).status().expect("sh");
            assert!(status.success(), "{script}");
        };
        let subvolume = self.subvolume.trim_start_matches('/');
        if let Some((top, _)) = subvolume.split_once('/') {
            let create = format!("btrfs -q subvolume create {top}; mkdir -p {subvolume}; rmdir {subvolume}");
            let snapshot = format!("btrfs -q subvolume snapshot {top} {subvolume}");
            run("", &format!("{create}; {snapshot}; btrfs subvolume set-default {subvolume}"));
        }
        run(subvolume, &format!("set +e -- {seed} 1 20 120; {WRITER}"));
        drop(mounted);
        disk
    }

    /// Installs a disk, and records the writes of an owner.
    pub(crate) fn record(&self, seed: u64) -> Recording {
        self.record_on(&self.install(seed), seed)
    }

    /// Records the writes of an owner that upgrades the system on a disk.
    pub(crate) fn record_on(&self, disk: &Disk, seed: u64) -> Recording {
        let mut script = String::new();
        for writer in 0..self.writers {
            let directory = if writer == 0 { "/mnt".into() } else { format!("/mnt/{writer}") };
            let seed = seed + u64::from(writer);
            script += &format!(
                "mkdir -p {directory}; (cd {directory}; set -- {seed} 21 999 3600; {WRITER}) >/tmp/{writer} 2>&1 &\n"
            );
        }
        self.record_script(disk, &script)
    }

    /// Records the writes of an owner that has mounted a disk at `/mnt` and runs a script, which starts processes.
    pub(crate) fn record_script(&self, disk: &Disk, script: &str) -> Recording {
        let base = fs::read(disk.path()).expect("the image");
        let server = RecordingNbdServer::start(base.clone());
        let mut owner = OwnerMachine::boot_at(server.url(), self.sector as u32, self.kind.modules, &PROGRAMS);
        owner.run(&format!("mount -t {} -o {} /dev/vda /mnt", self.kind.name, self.mount));
        let mounted = server.len();
        owner.run(script);
        poll_until("the writes of the owner", RECORDING_LIMIT, || (server.len() > mounted + OPERATIONS).then_some(()));
        owner.power_cut();
        Recording { base, operations: server.take_operations(), mounted }
    }
}
