//! The record of the files and directories that this program has made, so that it never removes anything else.
//!
//! It is a log of lines: `+PATH` before a file is made, `-PATH` after it was removed. The path of a directory ends with `/`.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

/// The record.
#[derive(Debug)]
pub(crate) struct Record {
    log: File,
    paths: BTreeSet<String>,
}

impl Record {
    /// Reads the record at this path, and writes it again without what was removed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut paths = BTreeSet::new();
        let lines = match fs::read(path) {
            Ok(lines) => lines,
            Err(error) if error.kind() == ErrorKind::NotFound => vec![],
            Err(error) => return Err(error),
        };
        // After a loss of power the last line may be damaged.
        for line in String::from_utf8_lossy(&lines).split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.split_at_checked(1) {
                Some(("+", path)) => drop(paths.insert(path.to_owned())),
                Some(("-", path)) => drop(paths.remove(path)),
                _ => {}
            }
        }
        let new = PathBuf::from(format!("{}.new", path.display()));
        let mut log = OpenOptions::new().create(true).append(true).open(&new)?;
        log.set_len(0)?;
        let lines: String = paths.iter().map(|path| format!("+{path}\n")).collect();
        log.write_all(lines.as_bytes())?;
        log.sync_all()?;
        fs::rename(new, path)?;
        Ok(Self { log, paths })
    }

    /// Returns whether this program has made the file, or the directory if the path ends with `/`.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Returns the files, without the directories.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str).filter(|path| !path.ends_with('/'))
    }

    /// Adds files or directories that will be made.
    pub(crate) fn add<'a>(&mut self, paths: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        let new: Vec<&str> = paths.into_iter().filter(|path| !self.contains(path)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let lines: String = new.iter().map(|path| format!("+{path}\n")).collect();
        self.log.write_all(lines.as_bytes())?;
        self.log.sync_data()?;
        self.paths.extend(new.into_iter().map(str::to_owned));
        Ok(())
    }

    /// Removes a file or directory that was removed.
    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.paths.remove(path);
        self.log.write_all(format!("-{path}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_restart_and_a_damaged_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("files");
        let mut record = Record::open(&path).expect("a record");
        record.add(["a", "b/", "b/c"]).expect("written");
        record.remove("a").expect("written");
        drop(record);
        let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
        file.write_all(b"+b/d").expect("written");
        for _ in 0..2 {
            let record = Record::open(&path).expect("a record");
            assert_eq!(record.files().collect::<Vec<_>>(), ["b/c"]);
            assert!(record.contains("b/") && !record.contains("a") && !record.contains("b/d"));
            assert_eq!(fs::read_to_string(&path).expect("a file"), "+b/\n+b/c\n");
        }
    }
}
