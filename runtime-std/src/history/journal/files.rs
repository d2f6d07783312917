//! The files of the journal, of bounded size.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::line::AnyLine;

/// The name of the file with the requests of verified clients, and its maximum size in bytes.
const VERIFIED: (&str, u64) = ("boots", 32 << 20);
/// The same for clients that never answered: forged requests cannot displace the others.
const UNVERIFIED: (&str, u64) = ("unverified", 4 << 20);
/// A longer line is not one of the journal, in bytes.
const MAX_LINE: u64 = 16 << 10;
/// Owner and group may read, as they may connect to the status socket.
const MODE: u32 = 0o640;

/// The journals of verified and of unverified clients.
#[derive(Debug)]
pub(super) struct Journals {
    verified: Rotated,
    unverified: Rotated,
}

impl Journals {
    pub(super) fn new(directory: &Path) -> Self {
        let [verified, unverified] = [VERIFIED, UNVERIFIED].map(|(name, limit)| Rotated::new(directory, name, limit));
        Self { verified, unverified }
    }

    /// Opens the files, which shows early whether that is possible.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.verified.file = Some(self.verified.open()?);
        self.unverified.file = Some(self.unverified.open()?);
        Ok(())
    }

    /// Appends a line.
    pub(super) fn append(&mut self, is_verified: bool, line: &impl Serialize) -> io::Result<()> {
        let mut json = serde_json::to_vec(line)?;
        json.push(b'\n');
        if is_verified { self.verified.append(&json) } else { self.unverified.append(&json) }
    }
}

/// A file that is renamed when it has reached its maximum size, which replaces the file renamed before: so there are at most two.
#[derive(Debug)]
struct Rotated {
    path: PathBuf,
    previous: PathBuf,
    limit: u64,
    /// The open file and its size.
    file: Option<(File, u64)>,
}

impl Rotated {
    fn new(directory: &Path, name: &str, limit: u64) -> Self {
        let [path, previous] = paths(directory, name);
        Self { path, previous, limit, file: None }
    }

    /// Appends a line. After an error, the file is opened again for the next one.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let (mut file, mut len) = match self.file.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let line_len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if len.saturating_add(line_len) > self.limit {
            fs::rename(&self.path, &self.previous)?;
            (file, len) = self.open()?;
        }
        file.write_all(line)?;
        self.file = Some((file, len + line_len));
        Ok(())
    }

    /// Opens or creates the file, and completes a torn last line.
    fn open(&self) -> io::Result<(File, u64)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.len() == 0 {
            // Without the umask.
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let mut len = metadata.len();
        let mut last = [b'\n'];
        if len > 0 {
            file.read_exact_at(&mut last, len - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
            len += 1;
        }
        Ok((file, len))
    }
}

/// Returns the paths of a file and of the one renamed before.
fn paths(directory: &Path, name: &str) -> [PathBuf; 2] {
    [format!("{name}.jsonl"), format!("{name}.1.jsonl")].map(|name| directory.join(name))
}

/// Reads all lines, of verified clients first, the older ones first. `None` stands for a line that is not valid.
///
/// # Errors
///
/// There is no file, or one cannot be read.
pub(super) fn read(directory: &Path, mut each: impl FnMut(Option<AnyLine>)) -> io::Result<()> {
    let mut is_empty = true;
    for (name, limit) in [VERIFIED, UNVERIFIED] {
        // A file may be renamed meanwhile, and is then found under both names.
        let [current, previous] = paths(directory, name).map(|path| open_existing(&path));
        let (current, mut previous) = (current?, previous?);
        if identity(current.as_ref())? == identity(previous.as_ref())? {
            previous = None;
        }
        for file in [previous, current].into_iter().flatten() {
            is_empty = false;
            read_lines(file, limit, &mut each)?;
        }
    }
    if is_empty { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity(file: Option<&File>) -> io::Result<Option<(u64, u64)>> {
    file.map(|file| file.metadata().map(|file| (file.dev(), file.ino()))).transpose()
}

/// Reads the last `limit` bytes of a file.
fn read_lines(mut file: File, limit: u64, each: &mut impl FnMut(Option<AnyLine>)) -> io::Result<()> {
    let start = file.metadata()?.len().saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::new(file.take(limit));
    let mut line = vec![];
    while reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        // The separator of a torn line is a line of its own.
        if line != b"\n" {
            each(AnyLine::parse(&line));
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(directory: &Path) -> u64 {
        fs::read_dir(directory)
            .expect("a directory")
            .map(|file| file.expect("a file").metadata().expect("one").len())
            .sum()
    }

    #[test]
    fn rotation_bounds_the_size_and_keeps_the_newest_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut file = Rotated::new(directory.path(), "boots", 1000);
        for number in 0..500 {
            if number % 7 == 0 {
                // As after a restart.
                file.file = None;
            }
            file.append(format!("{number:08}\n").as_bytes()).expect("written");
            assert!(total(directory.path()) <= 2000);
        }
        let [current, previous] =
            paths(directory.path(), "boots").map(|path| fs::read_to_string(path).expect("a file"));
        let lines: Vec<usize> =
            previous.lines().chain(current.lines()).map(|line| line.parse().expect("a number")).collect();
        assert!(lines.len() > 100 && lines == (500 - lines.len()..500).collect::<Vec<_>>(), "{lines:?}");
    }

    #[test]
    fn torn_line_is_completed_before_the_next_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let [path, _] = paths(directory.path(), "boots");
        fs::write(&path, "first\ntorn").expect("written");
        let mut file = Rotated::new(directory.path(), "boots", 1000);
        file.append(b"next\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "first\ntorn\nnext\n");
    }

    #[test]
    fn writes_again_after_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing");
        let mut file = Rotated::new(&missing, "boots", 1000);
        file.append(b"lost\n").expect_err("no directory");
        fs::create_dir(&missing).expect("created");
        file.append(b"next\n").expect("written");
        let path = missing.join("boots.jsonl");
        assert_eq!(fs::read(&path).expect("a file"), b"next\n");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, MODE, "for the group, too");
    }

    #[test]
    fn long_and_broken_lines_are_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let [path, previous] = paths(directory.path(), "boots");
        let valid = r#"{"boot":1.0,"client":"10.0.0.5","name":"a","origin":null,"state":"complete","why":null,"began":1.0,
            "seconds":1.0,"size":1,"acknowledged":1,"retransmitted":0,"copies":0,"blksize":512,"windowsize":1,"view_age":null}"#
            .replace('\n', "");
        let long = valid.replace(r#""a""#, &format!("\"{}\"", "a".repeat(100_000)));
        let running = valid.replace("complete", "running");
        let foreign = valid.replace("10.0.0.5", "board\u{1b}[2J");
        let deep = "[".repeat(10_000);
        fs::write(&previous, format!("{valid}\n{long}\n{running}\n{foreign}\n{deep}\n\0\0\0\n")).expect("written");
        fs::write(&path, format!("{valid}\n{}", &valid[..100])).expect("written");
        let mut lines = vec![];
        read(directory.path(), |line| lines.extend(line)).expect("read");
        assert_eq!(lines.len(), 2, "{lines:?}");
        // A larger file than this program writes: its end is read.
        fs::write(&path, format!("{valid}\n").repeat(10)).expect("written");
        let mut count = 0;
        read_lines(File::open(&path).expect("a file"), valid.len() as u64 * 5 / 2, &mut |line| {
            count += usize::from(line.is_some());
        })
        .expect("read");
        assert_eq!(count, 2);
    }
}
