//! Recordings of a Linux kernel that upgrades a system: each write and each flush of its disk.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use super::power_cut::Operation;

/// The files of each version, which links name without it.
pub const FILES: [&str; 2] = ["vmlinuz", "initrd.img"];

/// A file system whose writes are recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecordedFileSystem {
    /// The name of the recording.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The options of `mkfs`.
    pub mkfs: &'static [&'static str],
    /// The options of `mount`.
    pub mount: &'static str,
}

/// The kind of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4.
    Ext4,
    /// FAT with long names.
    Vfat,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

/// The file systems of the recordings.
pub const RECORDED: [RecordedFileSystem; 7] = [
    RecordedFileSystem { name: "ordered", kind: Kind::Ext4, mkfs: &["-b", "4096"], mount: "data=ordered" },
    RecordedFileSystem {
        name: "journal",
        kind: Kind::Ext4,
        mkfs: &["-b", "1024", "-J", "size=2"],
        mount: "data=journal",
    },
    RecordedFileSystem {
        name: "writeback",
        kind: Kind::Ext4,
        mkfs: &["-b", "1024", "-O", "^metadata_csum,^64bit"],
        mount: "data=writeback",
    },
    // A commit block may be written before the blocks of its transaction.
    RecordedFileSystem {
        name: "async",
        kind: Kind::Ext4,
        mkfs: &["-b", "1024"],
        mount: "data=writeback,journal_async_commit",
    },
    RecordedFileSystem { name: "vfat", kind: Kind::Vfat, mkfs: &[], mount: "rw" },
    RecordedFileSystem { name: "xfs", kind: Kind::Xfs, mkfs: &["-l", "size=1400b"], mount: "noatime" },
    RecordedFileSystem { name: "btrfs", kind: Kind::Btrfs, mkfs: &["--mixed"], mount: "noatime" },
];

impl RecordedFileSystem {
    /// Returns whether what was flushed survives a power cut, whatever is being written: FAT has no journal.
    pub fn survives_power_cuts(&self) -> bool {
        self.kind != Kind::Vfat
    }

    /// Returns whether a reader may refuse a disk after a power cut because Linux would refuse it, too, or repair it.
    pub fn may_be_refused(&self) -> bool {
        matches!(self.kind, Kind::Xfs | Kind::Btrfs)
    }
}

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
