//! File systems made by the tools of their own makers, in files of this machine.

use std::{
    fs::{self, File as OpenFile},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use smol::block_on;
use tempfile::TempDir;

use super::super::super::{Error, ext4::Ext, testing::Disk};

/// A file system that can still be changed.
#[derive(Debug)]
pub(super) struct Made {
    directory: TempDir,
    path: PathBuf,
}

impl Made {
    /// Makes a file system of `size` bytes with `mke2fs` and these options, with a copy of `tree` in it. What it leaves free is not
    /// zeros, so that one sees what should be read as zeros and is not.
    pub(super) fn new(options: &str, size: usize, tree: &Path) -> Self {
        Self::with(options, size as u64, tree, |path| fs::write(path, vec![0xa5; size]))
    }

    /// The same, but what it leaves free takes no room.
    pub(super) fn sparse(options: &str, size: u64, tree: &Path) -> Self {
        Self::with(options, size, tree, |path| OpenFile::create(path)?.set_len(size))
    }

    fn with(options: &str, size: u64, tree: &Path, prepare: impl FnOnce(&Path) -> io::Result<()>) -> Self {
        // In memory if possible: the tools wait for the disk again and again.
        let directory =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory for an image");
        let path = directory.path().join("image");
        prepare(&path).expect("room for an image");
        let mut command = tool("mke2fs");
        command.args(["-q", "-F", "-E", "nodiscard"]).args(options.split(' ')).arg("-d").arg(tree);
        run(command.arg(&path).arg(format!("{}k", size / 1024)), "", 0);
        Self { directory, path }
    }

    /// A path for something that is as short-lived as this.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has `debugfs` do something to it, a line for each.
    pub(super) fn debugfs(&self, commands: &str) {
        let (_, errors) = run(tool("debugfs").args(["-w", "-f", "-"]).arg(&self.path), commands, 0);
        // It begins with a line about itself.
        assert_eq!(errors.lines().nth(1), None, "{errors}");
    }

    /// Has `e2fsck` make indexes for its directories.
    pub(super) fn index(&self) {
        run(tool("e2fsck").args(["-fyD"]).arg(&self.path), "", 1);
        self.check();
    }

    /// Makes sure that it is in order, or that what is not does not matter.
    pub(super) fn check(&self) {
        run(tool("e2fsck").args(["-fp"]).arg(&self.path), "", 1);
    }

    /// Asks `debugfs` something.
    pub(super) fn ask(&self, question: &str) -> String {
        run(tool("debugfs").args(["-R", question]).arg(&self.path), "", 0).0
    }

    /// All of its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the image is there")
    }

    /// Opens it as it is now.
    pub(super) fn open(&self) -> (Arc<Disk>, Result<Option<Ext>, Error>) {
        let disk = Disk::new(OpenFile::open(&self.path).expect("the image is there"));
        let ext = block_on(Ext::open(disk.volume()));
        (disk, ext)
    }

    /// Opens it as it is now; it must be a file system that can be read.
    pub(super) fn ext(&self) -> Ext {
        self.open().1.expect("it can be read").expect("it is an ext file system")
    }
}

/// A tool of e2fsprogs.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

/// Runs a tool with this input, which may end with a code up to `most`; gives its output and its errors.
fn run(command: &mut Command, input: &str, most: i32) -> (String, String) {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().expect("it ends")
    });
    let [text, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.code().is_some_and(|code| code <= most), "{command:?}: {}\n{text}\n{errors}", output.status);
    (text, errors)
}
