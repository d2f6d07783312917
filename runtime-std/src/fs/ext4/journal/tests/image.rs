//! File systems made, written and replayed by e2fsprogs.

use std::{fs, path::PathBuf, process::Command, sync::Arc};

use super::builder::{Builder, load};
use crate::fs::{BlockDevice, Error, Extent, FileMap};

/// How many blocks the file systems have.
const BLOCKS: usize = 8192;
/// How many of them the journal has: the fewest possible.
pub(super) const LOG: usize = 1024;

/// A file system in a file of its own.
pub(super) struct Image {
    directory: tempfile::TempDir,
    block_size: usize,
    /// Where its journal is.
    pub(super) log: FileMap,
}

impl Image {
    /// Makes a file system; `options` are mke2fs's.
    pub(super) fn make(block_size: usize, options: &str) -> Self {
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

    pub(super) fn path(&self) -> String {
        self.directory.path().join("image").to_str().expect("a plain name").into()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the image")
    }

    /// Writes a file beside the image, for debugfs.
    pub(super) fn side_file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).expect("a file");
    }

    /// Has debugfs run commands on the image; `%` is the directory of the files beside it.
    pub(super) fn debugfs(&self, commands: &str) -> String {
        let script: PathBuf = self.directory.path().join("script");
        let directory = format!("{}/", self.directory.path().display());
        fs::write(&script, commands.replace('%', &directory)).expect("a file");
        run("debugfs", &["-w", "-f", script.to_str().expect("a plain name"), &self.path()])
    }

    /// Writes a log made by a [`Builder`] into the journal, to begin at `start`, and says that it is needed.
    pub(super) fn install(&self, builder: &Builder, start: usize) {
        self.debugfs("feature needs_recovery\n");
        let mut bytes = self.bytes();
        let journal = builder.journal(LOG, start);
        for extent in &self.log.extents {
            let piece = &journal[extent.file_offset as usize..][..extent.len as usize];
            bytes[extent.disk_offset as usize..][..piece.len()].copy_from_slice(piece);
        }
        fs::write(self.path(), bytes).expect("the image");
    }

    /// Gives the file system another UUID.
    pub(super) fn rename(&self) {
        run("tune2fs", &["-U", "00000000-1111-2222-3333-444444444444", &self.path()]);
    }

    pub(super) fn load(&self) -> Result<super::super::Journal, Error> {
        let disk: Arc<dyn BlockDevice> = Arc::new(self.bytes());
        load(&disk, &self.log, self.block_size)
    }

    /// Has e2fsck replay the log of a copy, which must then be, block for block, what our journal says of the image. Gives the
    /// blocks that our journal has.
    pub(super) fn compare(&self) -> Vec<u64> {
        let journal = self.load().expect("a good log");
        let copy = self.directory.path().join("copy");
        fs::copy(self.path(), &copy).expect("a copy");
        run("e2fsck", &["-y", "-E", "journal_only", copy.to_str().expect("a plain name")]);
        let replayed = fs::read(copy).expect("the copy");
        let image = self.bytes();
        let own = |block: usize| {
            let place = (block * self.block_size) as u64;
            // e2fsck writes the superblock and the journal's.
            place <= 1024 && place + self.block_size as u64 > 1024
                || self
                    .log
                    .extents
                    .iter()
                    .any(|extent| (extent.disk_offset..extent.disk_offset + extent.len).contains(&place))
        };
        for (block, expected) in replayed.chunks(self.block_size).enumerate().filter(|(block, _)| !own(*block)) {
            let mut found = image[block * self.block_size..][..self.block_size].to_vec();
            if let Some(copied) = journal.find(block as u64) {
                found.copy_from_slice(&image[copied.place as usize..][..self.block_size]);
                if copied.escaped {
                    found[..4].copy_from_slice(&super::builder::MAGIC);
                }
            }
            assert!(found == expected, "block {block} is not what e2fsck replays");
        }
        journal.range(0..u64::MAX).map(|(block, _)| block).collect()
    }

    /// Asks debugfs where the journal is: "(0-11):90-101, (IND):102, (12-1023):103-1114".
    fn find_log(&self) -> FileMap {
        let said = self.debugfs("stat <8>\n");
        let list = said.split(['\n', ' ']).filter_map(|piece| piece.trim_end_matches(',').split_once("):"));
        let bounds = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<u64>().ok()?..last.parse::<u64>().ok()? + 1)
        };
        let mut log = FileMap { size: (LOG * self.block_size) as u64, ..FileMap::default() };
        let size = self.block_size as u64;
        for (in_file, on_disk) in list {
            let (Some(file), Some(disk)) = (bounds(in_file.trim_start_matches('(')), bounds(on_disk)) else { continue };
            let (file_offset, len) = (file.start * size, (file.end - file.start) * size);
            log.push(Extent { file_offset, len, disk_offset: disk.start * size });
        }
        assert_eq!(log.extents.iter().map(|extent| extent.len).sum::<u64>(), log.size, "{said}");
        log
    }
}

/// Runs a tool of e2fsprogs and gives what it says.
fn run(program: &str, arguments: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let ran = Command::new(program).args(arguments).env("PATH", path).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program} (of e2fsprogs) is needed: {error}"));
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    // e2fsck says 1 for what it put right.
    assert!(
        matches!(ran.status.code(), Some(0 | 1)),
        "{program} {arguments:?}: {said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    said
}
