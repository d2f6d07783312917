//! Where the file goes: whole or not at all.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Stdout, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::args::Destination;

/// A place for the file while it comes.
#[derive(Debug)]
pub(crate) enum Output {
    /// A file beside the one that is meant, which takes that name when it is whole; gone when dropped before.
    Temporary { file: NamedTempFile, target: PathBuf },
    /// A device or a FIFO, which cannot be replaced.
    Special { file: File, target: PathBuf },
    /// Standard output.
    Stdout(Stdout),
    /// Nobody keeps it.
    Nowhere,
}

impl Output {
    /// Prepares the place.
    ///
    /// # Errors
    ///
    /// What cannot be written, and why.
    pub(crate) fn open(destination: &Destination) -> Result<Self, String> {
        match destination {
            Destination::Stdout => Ok(Self::Stdout(io::stdout())),
            Destination::Nowhere => Ok(Self::Nowhere),
            Destination::File(path) => Self::file(path).map_err(|error| failed(path, &error)),
        }
    }

    fn file(path: &Path) -> io::Result<Self> {
        // What a link points to is replaced, not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match target.metadata() {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                Ok(Self::Special { file: OpenOptions::new().write(true).open(&target)?, target })
            }
            _ => {
                let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let file = tempfile::Builder::new()
                    .prefix(".rtftp-get-")
                    // As any other new file: the umask has its say.
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(directory.unwrap_or(Path::new(".")))?;
                Ok(Self::Temporary { file, target })
            }
        }
    }

    /// Whether something must be cleaned up when the program ends early.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. })
    }

    /// Takes the next bytes of the file.
    ///
    /// Not buffered: whether there is room for them is known when they are acknowledged.
    ///
    /// # Errors
    ///
    /// The error, and a line about it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), (io::Error, String)> {
        let (result, path) = match self {
            // Not to `NamedTempFile`, whose errors name the temporary file.
            Self::Temporary { file, target } => (file.as_file().write_all(bytes), &**target),
            Self::Special { file, target } => (file.write_all(bytes), &**target),
            Self::Stdout(stdout) => (stdout.lock().write_all(bytes), Path::new("standard output")),
            Self::Nowhere => (Ok(()), Path::new("")),
        };
        result.map_err(|error| {
            let line = failed(path, &error);
            (error, line)
        })
    }

    /// Puts the whole file in its place.
    ///
    /// # Errors
    ///
    /// What cannot be written, and why.
    pub(crate) fn finish(self) -> Result<(), String> {
        match self {
            Self::Temporary { file, target } => {
                // Only what is on the disk takes the name: a crash must not leave an empty file, nor a full network file
                // system a part of one.
                let stored = file.as_file().sync_all();
                stored
                    .and_then(|()| file.persist(&target).map(drop).map_err(|error| error.error))
                    .map_err(|error| failed(&target, &error))
            }
            Self::Stdout(mut stdout) => stdout.flush().map_err(|error| failed(Path::new("standard output"), &error)),
            Self::Special { .. } | Self::Nowhere => Ok(()),
        }
    }
}

/// A line about what cannot be written.
fn failed(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}
