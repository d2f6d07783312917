//! Disk images, made without root rights and without loop devices.

use std::{
    fmt::{self, Write as _},
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::{process::Process, run};

/// One mebibyte in sectors, the unit of partition tables.
const MIB: u64 = 2048;

/// A directory of files that becomes a file system, or a client's directory.
#[derive(Debug)]
pub struct Tree(TempDir);

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// Adds a file, parents included.
    #[must_use]
    pub fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.place(path), bytes).expect("write a file");
        self
    }

    /// Adds a symbolic link, parents included.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.place(path)).expect("make a link");
        self
    }

    /// Adds an empty directory.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.place(path)).expect("make a directory");
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a path below the tree")).expect("make a directory");
        path
    }
}

/// A file system to be made: its kind and what is in it.
#[derive(Debug, Clone, Copy)]
pub enum FileSystem<'a> {
    /// vfat; the tree must be without links.
    Vfat(&'a Tree),
    /// ext4.
    Ext4(&'a Tree),
    /// Nothing: a partition without a file system, as boot loaders have.
    Nothing,
}

/// A raw disk image in a temporary directory.
#[derive(Debug)]
pub struct Disk {
    directory: TempDir,
}

impl Disk {
    /// A disk with an MBR; each partition has a number, a size in MiB and a file system.
    pub fn mbr(partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        Self::partitioned("dos", partitions)
    }

    /// A disk with a GPT; its partitions lie on the disk in the order given, whatever their numbers.
    pub fn gpt(partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        Self::partitioned("gpt", partitions)
    }

    /// A disk of this many MiB without partitions.
    pub fn whole(size: u64, contents: FileSystem<'_>) -> Self {
        let disk = Self::blank(size);
        disk.format(0, size, contents);
        disk
    }

    /// A disk with these bytes.
    pub fn raw(bytes: &[u8]) -> Self {
        let disk = Self::blank(0);
        fs::write(disk.path(), bytes).expect("an image");
        disk
    }

    /// The image file.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    fn blank(size: u64) -> Self {
        let disk = Self { directory: TempDir::new().expect("a temporary directory") };
        File::create(disk.path()).and_then(|file| file.set_len(size << 20)).expect("a sparse file");
        disk
    }

    fn partitioned(label: &str, partitions: &[(u32, u64, FileSystem<'_>)]) -> Self {
        let disk = Self::blank(partitions.iter().map(|(_, size, _)| size).sum::<u64>() + 2);
        let starts = partitions.iter().scan(1, |end, (_, size, _)| {
            *end += size;
            Some(*end - size)
        });
        let mut table = format!("label: {label}\n");
        for ((number, size, _), start) in partitions.iter().zip(starts.clone()) {
            let _ = writeln!(table, "{number} : start={}, size={}", start * MIB, size * MIB);
        }
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

    /// Makes a file system at an offset; offset and size in MiB.
    fn format(&self, offset: u64, size: u64, contents: FileSystem<'_>) {
        let (image, kib) = (self.path().display().to_string(), size << 10);
        match contents {
            FileSystem::Vfat(tree) => {
                let sector = (offset * MIB).to_string();
                run("mkfs.vfat", ["--offset", &sector, &image, &kib.to_string()]);
                let at = format!("{image}@@{offset}M");
                for entry in fs::read_dir(tree.path()).expect("a tree") {
                    let path = entry.expect("an entry").path().display().to_string();
                    run("mcopy", ["-s", "-i", &at, &path, "::"]);
                }
            }
            FileSystem::Ext4(tree) => {
                let (offset, tree) = (format!("offset={}", offset << 20), tree.path().display().to_string());
                run("mke2fs", ["-q", "-t", "ext4", "-d", &tree, "-E", &offset, &image, &format!("{kib}k")]);
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
}

impl DiskConfig {
    /// A description of the disk behind this NBD URI: nothing mounted yet, `/` served.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), mounts: Vec::new(), tftp_root: "/".into(), backend: None }
    }

    /// Mounts the partition with this number.
    #[must_use]
    pub fn partition(mut self, number: u32, mountpoint: &str) -> Self {
        self.mounts.push(format!(r#"{{"partition": {number}, "mountpoint": "{mountpoint}"}}"#));
        self
    }

    /// Mounts the file system that libguestfs knows by this name.
    #[must_use]
    pub fn device(mut self, device: &str, mountpoint: &str) -> Self {
        self.mounts.push(format!(r#"{{"device": "{device}", "mountpoint": "{mountpoint}"}}"#));
        self
    }

    /// Serves this directory of the disk.
    #[must_use]
    pub fn tftp_root(mut self, path: &str) -> Self {
        self.tftp_root = path.into();
        self
    }

    /// Has the disk read in this way only: `native` or `guestfs`.
    #[must_use]
    pub fn backend(mut self, backend: &'static str) -> Self {
        self.backend = Some(backend);
        self
    }
}

impl fmt::Display for DiskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, mounts, tftp_root, backend } = self;
        let mounts = mounts.join(",\n    ");
        write!(f, "{{\n  \"url\": \"{url}\",\n  \"mounts\": [\n    {mounts}\n  ],\n  \"tftp_root\": \"{tftp_root}\"")?;
        if let Some(backend) = backend {
            write!(f, ",\n  \"backend\": \"{backend}\"")?;
        }
        f.write_str("\n}\n")
    }
}
