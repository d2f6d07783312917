//! Disk images, created without root privileges or loop devices.

use std::{
    fmt::{self, Write as _},
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    process::{Process, output},
    run,
};

/// One mebibyte in sectors, the unit of partition tables.
const MIB: u64 = 2048;

/// The number of the first logical partition of an MBR.
const LOGICAL: u32 = 5;

/// A directory of files: the contents of a file system, or the directory of a client.
#[derive(Debug)]
pub struct Tree(TempDir);

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// Creates an empty tree.
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// Adds a file, parents included.
    #[must_use]
    pub fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.create_parents(path), bytes).expect("write a file");
        self
    }

    /// Adds a symbolic link, parents included.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.create_parents(path)).expect("create a link");
        self
    }

    /// Adds an empty directory.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.create_parents(path)).expect("create a directory");
        self
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn create_parents(&self, path: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a path below the tree")).expect("create a directory");
        path
    }
}

/// A file system to create, with its contents.
#[derive(Debug, Clone, Copy)]
pub enum FileSystem<'a> {
    /// vfat. The tree must not contain links.
    Vfat(&'a Tree),
    /// vfat with these options of `mkfs.vfat`: `-F 12`, `-s 1`, ...
    VfatWith(&'a Tree, &'a [&'a str]),
    /// ext4.
    Ext4(&'a Tree),
    /// ext4 with these options of `mke2fs`: `-O ^64bit`, `-b 1024`, ...
    Ext4With(&'a Tree, &'a [&'a str]),
    /// `ext2`, `ext3` or `ext4` with these options of `mke2fs`.
    Ext(&'a str, &'a Tree, &'a [&'a str]),
    /// An empty XFS with these options of `mkfs.xfs`: `-m crc=0`, ...
    Xfs(&'a [&'a str]),
    /// An empty btrfs with these options of `mkfs.btrfs`: `--csum xxhash`, ... Needs at least 128 MiB.
    Btrfs(&'a [&'a str]),
    /// F2FS, which is not supported natively. Needs at least 128 MiB and a disk without partitions.
    F2fs(&'a Tree),
    /// No file system, as in the partition of a boot loader.
    Nothing,
}

/// A raw disk image in a temporary directory.
#[derive(Debug)]
pub struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Creates a disk with an MBR. Each partition has a number, a size in MiB and a file system.
    ///
    /// Partitions from 5 on must come last. They are logical partitions in the extended partition 4.
    pub fn mbr(partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        Self::partitioned("dos", partitions)
    }

    /// Creates a disk with a GPT. Partitions are placed on the disk in this order, whatever their numbers.
    pub fn gpt(partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        Self::partitioned("gpt", partitions)
    }

    /// Creates a disk of `size` MiB without partitions.
    pub fn whole(size: u64, contents: FileSystem<'_>) -> Self {
        let disk = Self::blank(size);
        disk.format(0, size, contents);
        disk
    }

    /// Creates a disk with these bytes.
    pub fn raw(bytes: &[u8]) -> Self {
        let disk = Self::blank(0);
        fs::write(disk.path(), bytes).expect("an image");
        disk
    }

    /// Returns the path of the image.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    fn blank(size: u64) -> Self {
        let disk = Self { directory: TempDir::new().expect("a temporary directory") };
        File::create(disk.path()).and_then(|file| file.set_len(size << 20)).expect("a sparse file");
        disk
    }

    fn partitioned(label: &str, partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        let mut table = format!("label: {label}\n");
        let mut starts = Vec::new();
        let mut end = 1;
        for (number, size, _) in partitions {
            if label == "dos" && *number >= LOGICAL {
                // Each is preceded by a mebibyte with its partition table, within partition 4.
                if !table.contains("type=5") {
                    let _ = writeln!(table, "4 : start={}, type=5", end * MIB + MIB / 2);
                }
                end += 1;
            }
            let _ = writeln!(table, "{number} : start={}, size={}", end * MIB, size * MIB);
            starts.push(end);
            end += size;
        }
        let disk = Self::blank(end + 1);
        disk.partition(&table);
        for ((_, size, contents), start) in partitions.iter().zip(starts) {
            disk.format(start, *size, *contents);
        }
        disk
    }

    fn partition(&self, table: &str) {
        let mut command = Command::new("sfdisk");
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        command.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(self.path());
        let mut sfdisk = Process::start(command.env("PATH", path).stdin(Stdio::piped()));
        let mut stdin = sfdisk.child().stdin.take().expect("a piped stdin");
        stdin.write_all(table.as_bytes()).expect("write to sfdisk");
        drop(stdin);
        assert!(sfdisk.child().wait().expect("wait for sfdisk").success(), "sfdisk refused\n{table}");
    }

    /// Creates a file system at an offset with a program that formats whole files only. Offset and size are in MiB.
    fn format_alone(&self, program: &str, options: &[&str], offset: u64, size: u64) {
        let is_whole = fs::metadata(self.path()).is_ok_and(|file| file.len() == size << 20);
        let whole = Self::blank(size);
        let target = if is_whole { self.path() } else { whole.path() };
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        // Small file systems are for tests only: `mkfs.xfs` refuses them without these.
        command.envs([("PATH", path.as_str()), ("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1")]);
        let formatted = output(command.arg("-q").args(options).arg(target));
        let text = String::from_utf8_lossy(&formatted.stderr);
        assert!(formatted.status.success(), "{program} {options:?}: {text}");
        if is_whole {
            return;
        }
        let bytes = fs::read(whole.path()).expect("an image");
        let disk = File::options().write(true).open(self.path()).expect("the image");
        for (number, block) in (0..).zip(bytes.chunks(4096)) {
            if block.iter().any(|byte| *byte != 0) {
                disk.write_all_at(block, (offset << 20) + number * 4096).expect("space for a file system");
            }
        }
    }

    /// Creates a file system at an offset. Offset and size are in MiB.
    fn format(&self, offset: u64, size: u64, contents: FileSystem<'_>) {
        let (image, kib) = (self.path().display().to_string(), size << 10);
        match contents {
            FileSystem::Vfat(tree) => self.format(offset, size, FileSystem::VfatWith(tree, &[])),
            FileSystem::VfatWith(tree, options) => {
                let sector = (offset * MIB).to_string();
                let kib = kib.to_string();
                run("mkfs.vfat", [options, &["--offset", &sector, &image, &kib]].concat());
                let at = format!("{image}@@{offset}M");
                for entry in fs::read_dir(tree.path()).expect("a tree") {
                    let path = entry.expect("an entry").path().display().to_string();
                    run("mcopy", ["-s", "-i", &at, &path, "::"]);
                }
            }
            FileSystem::Ext4(tree) => self.format(offset, size, FileSystem::Ext4With(tree, &[])),
            FileSystem::Ext4With(tree, options) => self.format(offset, size, FileSystem::Ext("ext4", tree, options)),
            FileSystem::Ext(kind, tree, options) => {
                let (offset, tree) = (format!("offset={}", offset << 20), tree.path().display().to_string());
                let last = ["-d", &tree, "-E", &offset, &image, &format!("{kib}k")];
                run("mke2fs", [&["-q", "-t", kind], options, &last].concat());
            }
            FileSystem::Xfs(options) => self.format_alone("mkfs.xfs", options, offset, size),
            FileSystem::Btrfs(options) => self.format_alone("mkfs.btrfs", options, offset, size),
            FileSystem::F2fs(tree) => {
                run("mkfs.f2fs", ["-q", &image]);
                run("sload.f2fs", ["-f", &tree.path().display().to_string(), &image]);
            }
            FileSystem::Nothing => {}
        }
    }
}

/// The text of an `.nbd` file.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    url: String,
    mounts: Vec<String>,
    tftp_root: String,
    backend: Option<&'static str>,
    tls: Option<String>,
    boot: Option<String>,
}

impl DiskConfig {
    /// Creates a description of the disk at this NBD URI, with no mounts and `/` as `tftp_root`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), mounts: Vec::new(), tftp_root: "/".into(), backend: None, tls: None, boot: None }
    }

    /// Mounts the partition with this number.
    #[must_use]
    pub fn partition(mut self, number: u32, mountpoint: &str) -> Self {
        self.mounts.push(format!(r#"{{"partition": {number}, "mountpoint": "{mountpoint}"}}"#));
        self
    }

    /// Mounts a subvolume of the partition with this number.
    #[must_use]
    pub fn subvolume(mut self, number: u32, path: &str, mountpoint: &str) -> Self {
        self.mounts.push(format!(r#"{{"partition": {number}, "subvol": "{path}", "mountpoint": "{mountpoint}"}}"#));
        self
    }

    /// Mounts the device with this libguestfs name.
    #[must_use]
    pub fn device(mut self, device: &str, mountpoint: &str) -> Self {
        self.mounts.push(format!(r#"{{"device": "{device}", "mountpoint": "{mountpoint}"}}"#));
        self
    }

    /// Sets the `tftp_root`.
    #[must_use]
    pub fn tftp_root(mut self, path: &str) -> Self {
        self.tftp_root = path.into();
        self
    }

    /// Sets the object `tls`, in JSON.
    #[must_use]
    pub fn tls(mut self, tls: impl Into<String>) -> Self {
        self.tls = Some(tls.into());
        self
    }

    /// Sets the backend: `native` or `guestfs`.
    #[must_use]
    pub fn backend(mut self, backend: &'static str) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Sets what differs from the boot entries on the disk, a JSON object.
    #[must_use]
    pub fn boot(mut self, json: &str) -> Self {
        self.boot = Some(json.into());
        self
    }
}

impl fmt::Display for DiskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, mounts, tftp_root, backend, tls, boot } = self;
        let mounts = mounts.join(",\n    ");
        write!(f, "{{\n  \"url\": \"{url}\",\n  \"mounts\": [\n    {mounts}\n  ],\n  \"tftp_root\": \"{tftp_root}\"")?;
        if let Some(backend) = backend {
            write!(f, ",\n  \"backend\": \"{backend}\"")?;
        }
        if let Some(tls) = tls {
            write!(f, ",\n  \"tls\": {tls}")?;
        }
        if let Some(boot) = boot {
            write!(f, ",\n  \"boot\": {boot}")?;
        }
        f.write_str("\n}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_fat_of_every_width() {
        let tree = Tree::new().file("overlays/a.dtbo", "overlay");
        for (bits, size, at) in [("12", 2, 54), ("16", 16, 54), ("32", 40, 82)] {
            let disk = Disk::whole(size, FileSystem::VfatWith(&tree, &["-F", bits, "-s", "1"]));
            let image = fs::read(disk.path()).expect("the image");
            assert_eq!(image[at..at + 8], *format!("FAT{bits}   ").as_bytes());
            let path = disk.path().display().to_string();
            assert_eq!(run("mtype", ["-i", &path, "::overlays/a.dtbo"]).stdout, b"overlay");
        }
    }

    #[test]
    fn logical_partitions_lie_in_partition_4() {
        let disk = Disk::mbr(&[(1, 4, FileSystem::Nothing), (5, 2, FileSystem::Nothing), (6, 3, FileSystem::Nothing)]);
        let dump = run("sfdisk", ["--dump".as_ref(), disk.path().as_os_str()]).stdout;
        let dump = String::from_utf8_lossy(&dump).replace(' ', "");
        for (number, place) in
            [(1, "start=2048,size=8192,"), (5, "start=12288,size=4096,"), (6, "start=18432,size=6144,")]
        {
            assert!(dump.contains(&format!("{number}:{place}")), "{number}: {dump}");
        }
        assert!(dump.lines().any(|line| line.contains("img4:") && line.contains("type=5")), "{dump}");
    }
}
