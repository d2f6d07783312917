//! File system images that xfsprogs creates and changes.

use std::{
    fmt::Write as _,
    fs::{self, File},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use smol::block_on;
use tempfile::TempDir;

use crate::fs::{Error, testing::Disk, xfs::Xfs};

/// The size of an image in bytes; with large blocks, more is needed.
const SIZE: u64 = 32 << 20;
const LARGE_SIZE: u64 = 640 << 20;

/// An image of a file system, in a temporary directory.
#[derive(Debug)]
pub(super) struct Image {
    directory: TempDir,
}

impl Image {
    /// Creates an image with `mkfs.xfs`, its options and a copy of the directory `tree`.
    pub(super) fn new(options: &str, tree: &Path) -> Self {
        let image = Self { directory: tempfile::tempdir().expect("a directory for an image") };
        let description = image.directory.path().join("description");
        fs::write(&description, format!("/dev/null\n0 0\nd--755 0 0\n{}$\n", describe(tree))).expect("a file");
        let has_large_blocks = ["size=65536", "-b size=16384"].iter().any(|option| options.contains(option));
        let size = if has_large_blocks { LARGE_SIZE } else { SIZE };
        File::create(image.path()).and_then(|file| file.set_len(size)).expect("space for an image");
        let mut command = tool("mkfs.xfs");
        command.arg("-q").arg("-p").arg(&description).args(options.split_whitespace()).arg(image.path());
        // Small file systems are for tests only: `mkfs.xfs` refuses them without these.
        run(command.env("TEST_DIR", "1").env("TEST_DEV", "1").env("QA_CHECK_FS", "1"));
        image
    }

    /// Runs commands of `xfs_db` that change the image.
    pub(super) fn xfs_db(&self, commands: &[&str]) {
        let mut command = tool("xfs_db");
        command.arg("-x");
        for line in commands {
            command.args(["-c", line]);
        }
        run(command.arg(self.path()));
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Returns the content of the image.
    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("an image")
    }

    /// Opens the file system with an empty cache.
    pub(super) fn try_open(&self) -> (Arc<Disk>, Result<Option<Xfs>, Error>) {
        let disk = Disk::new(File::open(self.path()).expect("an image"));
        let filesystem = block_on(Xfs::open(disk.volume()));
        (disk, filesystem)
    }

    /// Opens the file system, which must be readable.
    pub(super) fn open(&self) -> Xfs {
        self.try_open().1.expect("a readable file system").expect("XFS")
    }
}

/// Describes the contents of a directory for `mkfs.xfs` (`mkfs.xfs(8)`, `-p`).
fn describe(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, kind) = (entry.path(), entry.file_type().expect("its type"));
        let name = entry.file_name().into_string().expect("UTF-8");
        let line = if kind.is_dir() {
            write!(text, "{name} d--755 0 0\n{}$\n", describe(&path))
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            writeln!(text, "{name} l--777 0 0 {}", target.display())
        } else if kind.is_fifo() {
            writeln!(text, "{name} p--644 0 0")
        } else {
            writeln!(text, "{name} ---644 0 0 {}", path.display())
        };
        line.expect("a string grows");
    }
    text
}

/// Creates the command of a tool of xfsprogs.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error} (package xfsprogs)"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
}
