//! File system images that e2fsprogs creates, changes and replays.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use super::log_builder::{self, LogBuilder, load};
use crate::fs::{BlockDevice, Error, Extent, FileMap};

/// The size of an image in blocks.
const BLOCKS: usize = 8192;
/// The size of the journal in blocks: the minimum.
pub(super) const LOG: usize = 1024;

/// An image of a file system.
pub(super) struct Image {
    directory: tempfile::TempDir,
    block_size: usize,
    /// Maps the journal to the image.
    pub(super) log: FileMap,
}

impl Image {
    /// Creates an image with options for `mke2fs`.
    pub(super) fn new(block_size: usize, options: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut image = Self { directory, block_size, log: FileMap::default() };
        let path = image.path();
        fs::File::create(&path).and_then(|file| file.set_len((BLOCKS * block_size) as u64)).expect("a file");
        let size = (LOG * block_size) >> 20;
        let make = format!("-q -F -b {block_size} -J size={size} -E lazy_journal_init=0 {options}");
        run("mke2fs", &make.split(' ').chain([path.as_str()]).collect::<Vec<_>>());
        image.log = image.find_log();
        image
    }

    /// Returns the path of the image.
    fn path(&self) -> String {
        self.directory.path().join("image").to_str().expect("a UTF-8 path").into()
    }

    /// Returns the content of the image.
    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the image")
    }

    /// Writes a file beside the image, for commands of debugfs.
    pub(super) fn write_side_file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).expect("a file");
    }

    /// Runs commands of debugfs on the image and returns their output. `%` stands for the directory of the image.
    pub(super) fn debugfs(&self, commands: &str) -> String {
        let script: PathBuf = self.directory.path().join("script");
        let directory = format!("{}/", self.directory.path().display());
        fs::write(&script, commands.replace('%', &directory)).expect("a file");
        run("debugfs", &["-w", "-f", script.to_str().expect("a UTF-8 path"), &self.path()])
    }

    /// Writes a log that starts at block `start` into the journal, and sets the feature `needs_recovery`.
    pub(super) fn install(&self, builder: &LogBuilder, start: usize) {
        self.debugfs("feature needs_recovery\n");
        let mut bytes = self.bytes();
        let journal = builder.journal(LOG, start);
        for extent in &self.log.extents {
            let piece = &journal[extent.file_offset as usize..][..extent.len as usize];
            bytes[extent.disk_offset as usize..][..piece.len()].copy_from_slice(piece);
        }
        fs::write(self.path(), bytes).expect("the image");
    }

    /// Changes the UUID of the file system.
    pub(super) fn change_uuid(&self) {
        run("tune2fs", &["-U", "00000000-1111-2222-3333-444444444444", &self.path()]);
    }

    /// Reads the journal.
    fn load(&self) -> Result<super::super::Journal, Error> {
        let disk: Arc<dyn BlockDevice> = Arc::new(self.bytes());
        load(&disk, &self.log, self.block_size)
    }

    /// Compares each block of the image, read with the journal, with a copy of the image that e2fsck has replayed. Returns the numbers
    /// of the blocks in the journal.
    pub(super) fn compare_with_e2fsck(&self) -> Vec<u64> {
        let journal = self.load().expect("a valid log");
        let copy = self.directory.path().join("copy");
        fs::copy(self.path(), &copy).expect("a copy");
        run("e2fsck", &["-y", "-E", "journal_only", copy.to_str().expect("a UTF-8 path")]);
        let replayed = fs::read(copy).expect("the copy");
        let image = self.bytes();
        let is_ignored = |block: usize| {
            let offset = (block * self.block_size) as u64;
            // e2fsck writes to the superblocks of the file system and the journal.
            offset <= 1024 && offset + self.block_size as u64 > 1024
                || self
                    .log
                    .extents
                    .iter()
                    .any(|extent| (extent.disk_offset..extent.disk_offset + extent.len).contains(&offset))
        };
        for (block, expected) in replayed.chunks(self.block_size).enumerate().filter(|(block, _)| !is_ignored(*block)) {
            let mut actual = image[block * self.block_size..][..self.block_size].to_vec();
            if let Some(copy) = journal.get(block as u64) {
                actual.copy_from_slice(&image[copy.disk_offset as usize..][..self.block_size]);
                if copy.is_escaped {
                    actual[..4].copy_from_slice(&log_builder::MAGIC);
                }
            }
            assert!(actual == expected, "block {block} differs from the replay of e2fsck");
        }
        journal.range(0..u64::MAX).map(|(block, _)| block).collect()
    }

    /// Maps the journal by the output of debugfs, such as `(0-11):90-101, (IND):102, (12-1023):103-1114`.
    fn find_log(&self) -> FileMap {
        let output = self.debugfs("stat <8>\n");
        let runs = output.split(['\n', ' ']).filter_map(|word| word.trim_end_matches(',').split_once("):"));
        let bounds = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<u64>().ok()?..last.parse::<u64>().ok()? + 1)
        };
        let mut log = FileMap { size: (LOG * self.block_size) as u64, ..FileMap::default() };
        let size = self.block_size as u64;
        for (in_file, on_disk) in runs {
            let (Some(file), Some(disk)) = (bounds(in_file.trim_start_matches('(')), bounds(on_disk)) else { continue };
            let (file_offset, len) = (file.start * size, (file.end - file.start) * size);
            log.push(Extent { file_offset, len, disk_offset: disk.start * size });
        }
        assert_eq!(log.extents.iter().map(|extent| extent.len).sum::<u64>(), log.size, "{output}");
        log
    }
}

/// Runs a tool of e2fsprogs and returns its output.
fn run(program: &str, arguments: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (of e2fsprogs) is needed: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    // The exit code 1 of e2fsck: errors were corrected.
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{program} {arguments:?}: {stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}
