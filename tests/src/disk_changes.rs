//! Changes to the file systems of an image, from outside.

use std::fs;

use tempfile::TempDir;

use crate::{Disk, process::run};

impl Disk {
    /// Writes or replaces a file on the FAT that starts at this MiB.
    #[track_caller]
    pub fn write_to_fat(&self, start: u64, path: &str, bytes: &[u8]) {
        let directory = TempDir::new().expect("a temporary directory");
        let file = directory.path().join("file");
        fs::write(&file, bytes).expect("written");
        run("mcopy", ["-o", "-i", &self.fat(start), &file.display().to_string(), &format!("::{path}")]);
    }

    /// Removes a file on the FAT that starts at this MiB.
    #[track_caller]
    pub fn remove_from_fat(&self, start: u64, path: &str) {
        run("mdel", ["-i", &self.fat(start), &format!("::{path}")]);
    }

    fn fat(&self, start: u64) -> String {
        format!("{}@@{start}M", self.path().display())
    }

    /// Writes or replaces a file on the ext4 that starts at this MiB.
    #[track_caller]
    pub fn write_to_ext4(&self, start: u64, path: &str, bytes: &[u8]) {
        let directory = TempDir::new().expect("a temporary directory");
        let file = directory.path().join("file");
        fs::write(&file, bytes).expect("written");
        self.change_ext4(start, &format!("rm {path}\nwrite {} {path}\n", file.display()));
    }

    /// Changes the ext4 that starts at this MiB with these commands of debugfs.
    #[track_caller]
    pub fn change_ext4(&self, start: u64, commands: &str) {
        let directory = TempDir::new().expect("a temporary directory");
        let script = directory.path().join("commands");
        fs::write(&script, commands).expect("written");
        let file_system = format!("{}?offset={}", self.path().display(), start << 20);
        run("debugfs", ["-w", "-f", &script.display().to_string(), &file_system]);
    }
}
