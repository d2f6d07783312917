//! File system images that e2fsprogs creates and changes.

use std::{
    fs::{self, File as OpenFile},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use smol::block_on;
use tempfile::TempDir;

use super::super::super::{Error, ext4::Ext4, testing::Disk};

/// An image of a file system, in a temporary directory.
#[derive(Debug)]
pub(super) struct Image {
    directory: TempDir,
    path: PathBuf,
}

impl Image {
    /// Creates an image of `size` bytes with `mke2fs`, its options and a copy of the directory `tree`. Unused blocks do not contain
    /// zeros, so that a test notices if they are read in place of zeros.
    pub(super) fn new(options: &str, size: usize, tree: &Path) -> Self {
        Self::create(options, size as u64, tree, |path| fs::write(path, vec![0xa5; size]))
    }

    /// Creates an image as [`new`](Self::new) does, but with holes for unused blocks.
    pub(super) fn sparse(options: &str, size: u64, tree: &Path) -> Self {
        Self::create(options, size, tree, |path| OpenFile::create(path)?.set_len(size))
    }

    fn create(options: &str, size: u64, tree: &Path, prepare: impl FnOnce(&Path) -> io::Result<()>) -> Self {
        // In memory if possible: the tools flush the image often.
        let directory =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory for an image");
        let path = directory.path().join("image");
        prepare(&path).expect("space for an image");
        let mut command = tool("mke2fs");
        command.args(["-q", "-F", "-E", "nodiscard"]).args(options.split(' ')).arg("-d").arg(tree);
        run(command.arg(&path).arg(format!("{}k", size / 1024)), "", 0);
        Self { directory, path }
    }

    /// Returns the path of a file in the temporary directory.
    pub(super) fn side_file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs commands of `debugfs` that change the image, one a line.
    pub(super) fn debugfs(&self, commands: &str) {
        let (_, stderr) = run(tool("debugfs").args(["-w", "-f", "-"]).arg(&self.path), commands, 0);
        // The first line is its version.
        assert_eq!(stderr.lines().nth(1), None, "{stderr}");
    }

    /// Runs `tune2fs` with options.
    pub(super) fn tune2fs(&self, options: &[&str]) {
        run(tool("tune2fs").args(options).arg(&self.path), "", 0);
    }

    /// Creates hash indexes for the directories.
    pub(super) fn index_directories(&self) {
        run(tool("e2fsck").args(["-fyD"]).arg(&self.path), "", 1);
        self.check();
    }

    /// Replays the journal and checks the file system; only automatically correctable errors are accepted.
    pub(super) fn check(&self) {
        run(tool("e2fsck").args(["-fp"]).arg(&self.path), "", 1);
    }

    /// Returns the output of a command of `debugfs` that does not change the image.
    pub(super) fn query(&self, command: &str) -> String {
        run(tool("debugfs").args(["-R", command]).arg(&self.path), "", 0).0
    }

    /// Returns the content of the image.
    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("an image")
    }

    /// Opens the file system with an empty cache.
    pub(super) fn try_open(&self) -> (Arc<Disk>, Result<Option<Ext4>, Error>) {
        let disk = Disk::new(OpenFile::open(&self.path).expect("an image"));
        let filesystem = block_on(Ext4::open(disk.volume()));
        (disk, filesystem)
    }

    /// Opens the file system, which must be readable.
    pub(super) fn open(&self) -> Ext4 {
        self.try_open().1.expect("a readable file system").expect("an ext file system")
    }
}

/// Creates the command of a tool of e2fsprogs.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

/// Runs a tool with `input`, expecting an exit code of at most `max_code`. Returns its standard output and standard error.
fn run(command: &mut Command, input: &str, max_code: i32) -> (String, String) {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().expect("an exit status")
    });
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(
        output.status.code().is_some_and(|code| code <= max_code),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    (stdout, stderr)
}
