//! Compares the fetched file with a local one.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// A comparison with a local file, in the order of the bytes.
#[derive(Debug)]
pub(crate) struct Comparison {
    local: BufReader<File>,
    path: PathBuf,
    /// The bytes of the local file that are compared.
    buf: Vec<u8>,
    /// The number of bytes of the fetched file so far.
    offset: u64,
    /// The first difference.
    difference: Option<String>,
}

impl Comparison {
    /// Opens the local file.
    ///
    /// # Errors
    ///
    /// Returns a message if the file cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| read_error(path, &error))?;
        Ok(Self { local: BufReader::new(file), path: path.to_owned(), buf: Vec::new(), offset: 0, difference: None })
    }

    /// Compares the next bytes of the fetched file.
    ///
    /// # Errors
    ///
    /// Returns a message if the local file cannot be read.
    pub(crate) fn compare(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.difference.is_none() {
            let local = self.read(bytes.len())?;
            let equal = local.iter().zip(bytes).take_while(|(local, byte)| local == byte).count();
            let is_within = equal < local.len();
            let end = self.offset + equal as u64;
            if is_within {
                self.set_difference(format!("differs at byte {end}"));
            } else if equal < bytes.len() {
                self.set_difference(format!("is shorter: it ends after {end} bytes"));
            }
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Ends the comparison at the end of the fetched file; returns the first difference.
    ///
    /// # Errors
    ///
    /// Returns a message if the local file cannot be read.
    pub(crate) fn finish(mut self) -> Result<Option<String>, String> {
        if self.difference.is_none() && !self.read(1)?.is_empty() {
            self.set_difference(format!("is longer: the fetched file ends after {} bytes", self.offset));
        }
        Ok(self.difference)
    }

    /// Reads up to `len` bytes of the local file, fewer at its end.
    fn read(&mut self, len: usize) -> Result<&[u8], String> {
        self.buf.clear();
        let read = self.local.by_ref().take(len as u64).read_to_end(&mut self.buf);
        read.map_err(|error| read_error(&self.path, &error))?;
        Ok(&self.buf)
    }

    fn set_difference(&mut self, difference: String) {
        self.difference = Some(format!("{} {difference}", self.path.display()));
    }
}

fn read_error(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Compares `file`, in blocks of three bytes, with a local file; returns the first difference.
    fn difference(local: &[u8], file: &[u8]) -> Option<String> {
        let mut stored = tempfile::NamedTempFile::new().expect("a file");
        stored.write_all(local).expect("written");
        let mut comparison = Comparison::open(stored.path()).expect("opened");
        for block in file.chunks(3).chain([&b""[..]]) {
            comparison.compare(block).expect("read");
        }
        let difference = comparison.finish().expect("read")?;
        Some(difference.strip_prefix(stored.path().to_str().expect("text")).expect("its name").trim().to_owned())
    }

    #[test]
    fn reports_the_first_difference() {
        for same in [&b""[..], b"a", b"abc", b"abcdefg"] {
            assert_eq!(difference(same, same), None);
        }
        for (local, file, expected) in [
            (&b"abcdefg"[..], &b"abcdeFG"[..], "differs at byte 5"),
            (b"Abc", b"abc", "differs at byte 0"),
            (b"abcd", b"abcde", "is shorter: it ends after 4 bytes"),
            (b"", b"a", "is shorter: it ends after 0 bytes"),
            (b"abcd", b"abc", "is longer: the fetched file ends after 3 bytes"),
            (b"a", b"", "is longer: the fetched file ends after 0 bytes"),
            (b"abXd", b"abcdef", "differs at byte 2"),
        ] {
            assert_eq!(difference(local, file).as_deref(), Some(expected));
        }
    }
}
