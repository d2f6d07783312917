//! Recordings of a Linux kernel that upgrades a system: each write and each flush of its disk.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use crate::{OwnerMachine, RecordingNbdServer, Tree, disk::Disk, disk::FileSystem, power_cut::Operation};

/// The number of upgrades of a recording.
const UPGRADES: u32 = 16;
/// How many older versions stay installed.
const KEPT: u32 = 2;
/// The size of the disks in MiB.
const SIZE: u64 = 16;

/// The files of each version, which links name without it.
pub const FILES: [&str; 2] = ["vmlinuz", "initrd.img"];

/// A file system whose writes are recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordedFileSystem {
    /// The name of the recording.
    pub name: &'static str,
    /// The options of `mke2fs`; `None` for vfat.
    pub mke2fs: Option<&'static [&'static str]>,
    /// The options of `mount`.
    pub mount: &'static str,
}

/// The file systems of the recordings.
pub const RECORDED: [RecordedFileSystem; 4] = [
    RecordedFileSystem { name: "ordered", mke2fs: Some(&["-b", "4096"]), mount: "-t ext4 -o data=ordered" },
    RecordedFileSystem {
        name: "journal",
        mke2fs: Some(&["-b", "1024", "-J", "size=2"]),
        mount: "-t ext4 -o data=journal",
    },
    RecordedFileSystem {
        name: "writeback",
        mke2fs: Some(&["-b", "1024", "-O", "^metadata_csum,^64bit"]),
        mount: "-t ext4 -o data=writeback",
    },
    RecordedFileSystem { name: "vfat", mke2fs: None, mount: "-t vfat" },
];

/// An upgrade, between two numbers of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade {
    /// The version that is installed.
    pub version: u32,
    /// The number of operations before it.
    pub begin: usize,
    /// The number of operations after which it is on the disk.
    pub end: usize,
}

/// What a kernel did to a disk while it upgraded the system there.
#[derive(Debug, PartialEq, Eq)]
pub struct UpgradeRecording {
    /// The disk before, with version 0 installed.
    pub base: Vec<u8>,
    /// The writes and flushes.
    pub operations: Vec<Operation>,
    /// The upgrades, in order.
    pub upgrades: Vec<Upgrade>,
}

/// Returns the contents of a file of this version. Each line names file, version and line; each version has another size.
pub fn contents(name: &str, version: u32) -> Vec<u8> {
    let lines = if name == FILES[0] { 2000 } else { 900 } + version * 7919 % 500;
    (0..lines).flat_map(|line| format!("{name} version {version} line {line:06}\n").into_bytes()).collect()
}

impl UpgradeRecording {
    /// Records a kernel in a virtual machine.
    #[track_caller]
    pub fn record(file_system: &RecordedFileSystem) -> Self {
        let tree = Tree::new().directory("boot");
        let disk = Disk::whole(
            SIZE,
            match file_system.mke2fs {
                Some(options) => FileSystem::Ext4With(&tree, options),
                None => FileSystem::Vfat(&tree),
            },
        );
        let mut base = fs::read(disk.path()).expect("the image");
        let server = RecordingNbdServer::start(base.clone());
        let mut owner = OwnerMachine::boot_at(server.url(), 512, &[], &[]);
        owner.run(&format!("mount {} /dev/vda /mnt && mkdir -p /mnt/boot", file_system.mount));
        let has_links = file_system.mke2fs.is_some();
        install(&mut owner, 0, has_links);
        server.take_operations().iter().for_each(|operation| operation.apply(&mut base));
        let mut upgrades = Vec::new();
        for version in 1..=UPGRADES {
            let begin = server.len();
            install(&mut owner, version, has_links);
            upgrades.push(Upgrade { version, begin, end: server.len() });
            if let Some(old) = version.checked_sub(KEPT + 1).filter(|_| has_links) {
                // Its blocks are used again, also those of a directory, which were in the journal. The log of a service grows
                // meanwhile, and is not flushed.
                owner.run(&format!("cd /mnt && rm -r boot/*-{old} && cat boot/*-{version} >>log; :"));
                if version % 4 == 0 {
                    owner.run("rm /mnt/log");
                }
            }
        }
        owner.power_cut();
        Self { base, operations: server.take_operations(), upgrades }
    }

    /// Reads a recording from a file that [`write`](Self::write) has written.
    ///
    /// # Errors
    ///
    /// Those of reading the file, which may also be truncated.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = xz(&["--decompress", "--stdout"], &fs::read(path)?)?;
        let mut rest = bytes.as_slice();
        let base = bytes_of(&mut rest)?;
        let upgrades = (0..number(&mut rest)?).map(|_| {
            let [version, begin, end] = [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
            Ok(Upgrade { version: version as u32, begin, end })
        });
        let upgrades = upgrades.collect::<io::Result<_>>()?;
        let mut operations = Vec::new();
        while !rest.is_empty() {
            operations.push(match number(&mut rest)? {
                0 => Operation::Flush,
                kind => Operation::Write {
                    is_durable: kind == 2,
                    offset: number(&mut rest)? as u64,
                    bytes: bytes_of(&mut rest)?,
                },
            });
        }
        Ok(Self { base, operations, upgrades })
    }

    /// Writes the recording to a file, compressed.
    ///
    /// # Errors
    ///
    /// Those of writing the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        let number = |bytes: &mut Vec<u8>, number: usize| bytes.extend((number as u64).to_le_bytes());
        number(&mut bytes, self.base.len());
        bytes.extend(&self.base);
        number(&mut bytes, self.upgrades.len());
        for Upgrade { version, begin, end } in &self.upgrades {
            [*version as usize, *begin, *end].into_iter().for_each(|value| number(&mut bytes, value));
        }
        for operation in &self.operations {
            match operation {
                Operation::Flush => number(&mut bytes, 0),
                Operation::Write { offset, bytes: written, is_durable } => {
                    let kind = if *is_durable { 2 } else { 1 };
                    [kind, *offset as usize, written.len()].into_iter().for_each(|value| number(&mut bytes, value));
                    bytes.extend(written);
                }
            }
        }
        fs::write(path, xz(&["-9", "--extreme", "--stdout"], &bytes)?)
    }
}

/// Installs a version as package managers do: each file under a temporary name, a flush, a rename.
fn install(owner: &mut OwnerMachine, version: u32, has_links: bool) {
    for name in FILES {
        let path = if has_links { format!("/mnt/boot/{name}-{version}") } else { format!("/mnt/boot/{name}") };
        owner.write(&format!("{path}.new"), &contents(name, version));
        owner.run(&format!("sync {path}.new && mv {path}.new {path}"));
        if has_links {
            owner.run(&format!("cd /mnt/boot && ln -s {name}-{version} new && mv new {name}"));
        }
    }
    if has_links {
        let modules = format!("/mnt/boot/modules-{version}");
        owner.run(&format!("mkdir {modules} && cd {modules} && touch $(seq 1000 1300)"));
    }
    owner.run("sync");
}

fn xz(args: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
    let mut xz = Command::new("xz").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = xz.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        xz.wait_with_output().map(|output| output.stdout)
    })
}

fn number(rest: &mut &[u8]) -> io::Result<usize> {
    let mut bytes = [0; 8];
    rest.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes) as usize)
}

/// Reads a number, and as many bytes.
fn bytes_of(rest: &mut &[u8]) -> io::Result<Vec<u8>> {
    let len = number(rest)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Ok(bytes.to_vec())
}
