//! Records a Linux kernel that upgrades a system: each write and each flush of its disk.

use std::fs;

use crate::{
    BTRFS_MODULES, Disk, FileSystem, OwnerMachine, RecordingNbdServer, Tree,
    upgrade_recording::{FILES, Kind, RecordedFileSystem, Upgrade, UpgradeRecording, contents},
};

/// The number of upgrades of a recording.
const UPGRADES: u32 = 16;
/// How many older versions stay installed.
const KEPT: u32 = 2;
/// The size of the disks in MiB; of those with btrfs the half.
const SIZE: u64 = 16;
/// The free space of a disk with one version, in KiB.
const FREE: u32 = 1300;

impl RecordedFileSystem {
    /// Returns a new disk.
    fn create(&self) -> Disk {
        let tree = Tree::new().directory("boot");
        match self.kind {
            Kind::Ext4 => Disk::whole(SIZE, FileSystem::Ext4With(&tree, &[&["-m", "0"], self.mkfs].concat())),
            Kind::Vfat => Disk::whole(SIZE, FileSystem::Vfat(&tree)),
            Kind::Xfs => Disk::whole(SIZE, FileSystem::Xfs(self.mkfs)),
            Kind::Btrfs => Disk::whole(2 * SIZE, FileSystem::Btrfs(self.mkfs)),
        }
    }

    /// Returns the name of the file system for `mount`, and the modules of its kernel that are not always loaded.
    fn kernel(&self) -> (&'static str, &'static [&'static str]) {
        match self.kind {
            Kind::Ext4 => ("ext4", &[]),
            Kind::Vfat => ("vfat", &[]),
            Kind::Xfs => ("xfs", &["xfs"]),
            Kind::Btrfs => ("btrfs", &BTRFS_MODULES),
        }
    }

    /// Records a kernel in a virtual machine.
    #[track_caller]
    pub fn record(&self) -> UpgradeRecording {
        let mut base = fs::read(self.create().path()).expect("the image");
        let server = RecordingNbdServer::start(base.clone());
        let (name, modules) = self.kernel();
        let mut owner = OwnerMachine::boot_at(server.url(), 512, modules, &[]);
        owner.run(&format!("mount -t {name} -o {} /dev/vda /mnt && mkdir -p /mnt/boot", self.mount));
        let has_links = self.kind != Kind::Vfat;
        install(&mut owner, 0, self.kind);
        if self.kind == Kind::Ext4 {
            // The kernel must use freed blocks again soon.
            owner.run(&format!(
                "fallocate -l $(($(df -k /mnt | awk 'END {{ print $4 }}') - {FREE}))k /mnt/full && sync"
            ));
        }
        server.take_operations().iter().for_each(|operation| operation.apply(&mut base));
        let mut upgrades = Vec::new();
        for version in 1..=UPGRADES {
            let begin = server.len();
            install(&mut owner, version, self.kind);
            upgrades.push(Upgrade { version, begin, end: server.len() });
            if let Some(old) = version.checked_sub(KEPT + 1).filter(|_| has_links) {
                // Its blocks are used again, also those of a directory, which were in the journal. The log of a service grows
                // meanwhile, and is not flushed.
                owner.run(&format!("cd /mnt && rm -r boot/*-{old} && cat boot/*-{version} >>log; :"));
                if version.is_multiple_of(4) {
                    owner.run("rm /mnt/log");
                }
            }
        }
        owner.power_cut();
        UpgradeRecording { base, operations: server.take_operations(), upgrades }
    }
}

/// Installs a version as package managers do. Like dpkg, in even versions: each file under a temporary name, a flush, a rename. Like
/// rpm, in odd versions: all files, then one flush for all of them. Links to the files follow.
fn install(owner: &mut OwnerMachine, version: u32, kind: Kind) {
    let has_links = kind != Kind::Vfat;
    let is_flushed_alone = version.is_multiple_of(2) || !has_links;
    for name in FILES {
        let path = if has_links { format!("/mnt/boot/{name}-{version}") } else { format!("/mnt/boot/{name}") };
        owner.write(&format!("{path}.new"), &contents(name, version));
        let flush = if is_flushed_alone { format!("sync {path}.new && ") } else { String::new() };
        owner.run(&format!("{flush}mv {path}.new {path}"));
    }
    if has_links {
        // A directory of many blocks.
        let long = "driver-with-a-long-name-".repeat(8);
        let modules = format!("/mnt/boot/modules-{version}");
        owner.run(&format!("mkdir {modules} && cd {modules} && touch $(seq 1000 1150 | sed 's/^/{long}/')"));
        if !is_flushed_alone {
            owner.run("sync");
        }
        for name in FILES {
            owner.run(&format!("cd /mnt/boot && ln -s {name}-{version} new && mv new {name}"));
        }
    }
    // A flush of the directory makes its new names durable, on btrfs in the log tree.
    owner.run(if is_flushed_alone && kind == Kind::Btrfs { "sync /mnt/boot" } else { "sync" });
}
