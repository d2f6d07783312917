//! Comparing what comes with a local file.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// A local file, and whether what has come so far equals it.
#[derive(Debug)]
pub(crate) struct Compare {
    local: BufReader<File>,
    path: PathBuf,
    /// What is compared, of the local file.
    buf: Vec<u8>,
    /// How much has come.
    offset: u64,
    /// Where the first difference is, and what it is.
    difference: Option<String>,
}

impl Compare {
    /// Opens the local file.
    ///
    /// # Errors
    ///
    /// What cannot be read, and why.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| failed(path, &error))?;
        Ok(Self { local: BufReader::new(file), path: path.to_owned(), buf: Vec::new(), offset: 0, difference: None })
    }

    /// Compares the next bytes.
    ///
    /// # Errors
    ///
    /// What cannot be read, and why.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.difference.is_none() {
            let expected = self.next(bytes.len())?;
            let same = expected.iter().zip(bytes).take_while(|(expected, byte)| expected == byte).count();
            if same < expected.len() {
                self.differs(format!("differs at byte {}", self.offset + same as u64));
            } else if same < bytes.len() {
                self.differs(format!("ends after {} bytes, the server's file does not", self.offset + same as u64));
            }
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// The first difference to the whole file, if there is one.
    ///
    /// # Errors
    ///
    /// What cannot be read, and why.
    pub(crate) fn finish(mut self) -> Result<Option<String>, String> {
        if self.difference.is_none() && !self.next(1)?.is_empty() {
            self.differs(format!("goes on after {} bytes, where the server's file ends", self.offset));
        }
        Ok(self.difference)
    }

    /// The next bytes of the local file, fewer where it ends.
    fn next(&mut self, len: usize) -> Result<&[u8], String> {
        self.buf.clear();
        let read = self.local.by_ref().take(len as u64).read_to_end(&mut self.buf);
        read.map_err(|error| failed(&self.path, &error))?;
        Ok(&self.buf)
    }

    fn differs(&mut self, how: String) {
        self.difference = Some(format!("{} {how}", self.path.display()));
    }
}

/// A line about what cannot be read.
fn failed(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What comparing `file`, in blocks of three bytes, with a local file says.
    fn compared(local: &[u8], file: &[u8]) -> Option<String> {
        let mut stored = tempfile::NamedTempFile::new().expect("a file");
        stored.write_all(local).expect("written");
        let mut compare = Compare::open(stored.path()).expect("opened");
        for block in file.chunks(3).chain([&b""[..]]) {
            compare.take(block).expect("read");
        }
        let difference = compare.finish().expect("read")?;
        Some(difference.strip_prefix(stored.path().to_str().expect("text")).expect("its name").trim().to_owned())
    }

    #[test]
    fn the_first_difference_is_told() {
        for same in [&b""[..], b"a", b"abc", b"abcdefg"] {
            assert_eq!(compared(same, same), None);
        }
        for (local, file, difference) in [
            (&b"abcdefg"[..], &b"abcdeFG"[..], "differs at byte 5"),
            (b"Abc", b"abc", "differs at byte 0"),
            (b"abcd", b"abcde", "ends after 4 bytes, the server's file does not"),
            (b"", b"a", "ends after 0 bytes, the server's file does not"),
            (b"abcd", b"abc", "goes on after 3 bytes, where the server's file ends"),
            (b"a", b"", "goes on after 0 bytes, where the server's file ends"),
            (b"abXd", b"abcdef", "differs at byte 2"),
        ] {
            assert_eq!(compared(local, file).as_deref(), Some(difference));
        }
    }
}
