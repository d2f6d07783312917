//! What the kernel of this machine reads from an image.

use std::{collections::BTreeMap, fs, io, os::unix::fs::FileTypeExt, path::Path, process::Command};

use tempfile::TempDir;

use crate::{Content, process::output};

/// An image that this machine has mounted; unmounted when dropped.
#[derive(Debug)]
pub struct KernelMount {
    directory: TempDir,
    is_btrfs: bool,
}

impl KernelMount {
    /// Mounts an image with these options, such as `-t ext4 -o ro`.
    ///
    /// # Errors
    ///
    /// The message of `mount`: mounting needs root, loop devices, and a kernel that supports the file system.
    pub fn new(image: &Path, options: &[&str]) -> Result<Self, String> {
        let directory = TempDir::new().expect("a temporary directory");
        let mounted = output(Command::new("mount").args(["-o", "loop"]).args(options).arg(image).arg(directory.path()));
        match mounted.status.success() {
            true => Ok(Self { directory, is_btrfs: options.contains(&"btrfs") }),
            false => Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()),
        }
    }

    /// Returns the root directory of the file system.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        if !output(Command::new("umount").arg(self.directory.path())).status.success() {
            output(Command::new("umount").arg("--lazy").arg(self.directory.path()));
        }
        if self.is_btrfs {
            // Linux remembers the device, and may refuse an older state of the file system on another one.
            output(Command::new("btrfs").args(["device", "scan", "--forget"]));
        }
    }
}

/// Returns everything in a directory by path.
///
/// # Errors
///
/// If anything is not readable.
pub fn read_directory(root: &Path) -> io::Result<BTreeMap<String, Content>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let content = if kind.is_dir() {
                directories.push(path.clone());
                Content::Directory
            } else if kind.is_symlink() {
                Content::Link(fs::read_link(&path)?.to_string_lossy().into_owned())
            } else if kind.is_fifo() {
                Content::Other
            } else {
                Content::File(fs::read(&path)?)
            };
            found.insert(path.strip_prefix(root).expect("below").to_string_lossy().into_owned(), content);
        }
    }
    Ok(found)
}
