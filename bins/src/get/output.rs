//! Writes the fetched file, completely or not at all.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Stdout, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::cli::Destination;

/// The output of a transfer.
#[derive(Debug)]
pub(crate) enum Output {
    /// A temporary file in the directory of the target, renamed to the target when complete and removed when dropped.
    Temporary { file: NamedTempFile, target: PathBuf },
    /// A device or a FIFO, which cannot be replaced by a rename.
    Special { file: File, target: PathBuf },
    /// Standard output.
    Stdout(Stdout),
    /// The bytes are discarded.
    Discard,
}

impl Output {
    /// Opens the output.
    ///
    /// # Errors
    ///
    /// Returns a message if the output cannot be written.
    pub(crate) fn open(destination: &Destination) -> Result<Self, String> {
        match destination {
            Destination::Stdout => Ok(Self::Stdout(io::stdout())),
            Destination::Discard => Ok(Self::Discard),
            Destination::File(path) => Self::file(path).map_err(|error| write_error(path, &error)),
        }
    }

    fn file(path: &Path) -> io::Result<Self> {
        // Replaces the target of a symbolic link, not the link.
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
                    // The umask applies, as for other new files.
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(directory.unwrap_or(Path::new(".")))?;
                Ok(Self::Temporary { file, target })
            }
        }
    }

    /// Returns whether an early exit must remove a temporary file.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. })
    }

    /// Writes the next bytes of the file, unbuffered: bytes are acknowledged only after the write has succeeded.
    ///
    /// # Errors
    ///
    /// Returns the error and a message.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), (io::Error, String)> {
        let (result, path) = match self {
            // `as_file`, since the errors of `NamedTempFile` contain the temporary name.
            Self::Temporary { file, target } => (file.as_file().write_all(bytes), &**target),
            Self::Special { file, target } => (file.write_all(bytes), &**target),
            Self::Stdout(stdout) => (stdout.lock().write_all(bytes), Path::new("standard output")),
            Self::Discard => (Ok(()), Path::new("")),
        };
        result.map_err(|error| {
            let message = write_error(path, &error);
            (error, message)
        })
    }

    /// Completes the output; a temporary file takes its final name.
    ///
    /// # Errors
    ///
    /// Returns a message if the output cannot be written.
    pub(crate) fn finish(self) -> Result<(), String> {
        match self {
            Self::Temporary { file, target } => {
                // Synchronised before the rename: a crash must not leave an empty file, and a full network file system may
                // report its error only now.
                let stored = file.as_file().sync_all();
                stored
                    .and_then(|()| file.persist(&target).map(drop).map_err(|error| error.error))
                    .map_err(|error| write_error(&target, &error))
            }
            Self::Stdout(mut stdout) => {
                stdout.flush().map_err(|error| write_error(Path::new("standard output"), &error))
            }
            Self::Special { .. } | Self::Discard => Ok(()),
        }
    }
}

fn write_error(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}
