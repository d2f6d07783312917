//! What GRUB reads from an image. It ignores the logs of file systems.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    process::{Command, Output},
};

use crate::{Content, process::output};

/// Returns whether `grub-fstest` is installed.
pub fn is_installed() -> bool {
    Command::new("grub-fstest").arg("--version").output().is_ok()
}

/// The number of files by what GRUB read.
#[derive(Debug, Clone, Default)]
pub struct GrubReport {
    /// The bytes that the kernel reads.
    pub right: usize,
    /// Other bytes, without an error: the paths.
    pub wrong: Vec<String>,
    /// Not found.
    pub missing: usize,
    /// Another error.
    pub failed: usize,
}

impl GrubReport {
    /// Adds the numbers of another report.
    pub fn add(&mut self, other: Self) {
        self.right += other.right;
        self.wrong.extend(other.wrong);
        self.missing += other.missing;
        self.failed += other.failed;
    }
}

impl fmt::Display for GrubReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, wrong, missing, failed } = self;
        write!(f, "{right} files right, {} wrong without an error, {missing} not found, {failed} errors", wrong.len())
    }
}

/// Reads the files below `directory` of an image with `grub-fstest`, and compares them with those that the kernel reads. The paths are
/// relative to `root`.
pub fn read_with_grub(image: &Path, root: &str, expected: &BTreeMap<String, Content>, directory: &str) -> GrubReport {
    let mut report = GrubReport::default();
    for (path, content) in expected.iter().filter(|(path, _)| path.starts_with(directory)) {
        let Content::File(bytes) = content else { continue };
        let result = cat(image, &format!("(loop0){root}/{path}"));
        match (result.status.success(), result.stdout == *bytes) {
            (true, true) => report.right += 1,
            (true, false) => report.wrong.push(path.clone()),
            _ if String::from_utf8_lossy(&result.stderr).contains("not found") => report.missing += 1,
            _ => report.failed += 1,
        }
    }
    report
}

/// Reads a file of an image with `grub-fstest`. The image is `loop0` in its path.
pub fn cat(image: &Path, path: &str) -> Output {
    output(Command::new("grub-fstest").arg(image).args(["cat", path]))
}
