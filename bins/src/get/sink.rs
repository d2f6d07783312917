//! What takes the file in: the place where it goes, and the comparison.

use std::{io::ErrorKind, path::Path};

use rtftp_core::{BlockSink, WriteFailed};

use crate::{args::Destination, compare::Compare, output::Output};

/// The file as it comes.
#[derive(Debug)]
pub(crate) struct Sink {
    output: Output,
    compare: Option<Compare>,
    /// Why it was not taken, in a line.
    failure: Option<String>,
}

impl Sink {
    /// Prepares everything that can fail before the server is asked.
    ///
    /// # Errors
    ///
    /// What cannot be written or read, and why.
    pub(crate) fn open(destination: &Destination, verify: Option<&Path>) -> Result<Self, String> {
        let compare = verify.map(Compare::open).transpose()?;
        Ok(Self { output: Output::open(destination)?, compare, failure: None })
    }

    /// Whether something must be cleaned up when the program ends early.
    pub(crate) fn is_temporary(&self) -> bool {
        self.output.is_temporary()
    }

    /// Why the file was not taken, if it was not.
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Puts the whole file in its place; returns the first difference to what it was compared with.
    ///
    /// # Errors
    ///
    /// What cannot be written or read, and why.
    pub(crate) fn finish(self) -> Result<Option<String>, String> {
        self.output.finish()?;
        self.compare.map_or(Ok(None), Compare::finish)
    }
}

impl BlockSink for Sink {
    fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        if let Some(compare) = &mut self.compare {
            compare.take(bytes).map_err(|failure| {
                self.failure = Some(failure);
                WriteFailed("cannot compare the file")
            })?;
        }
        self.output.write(bytes).map_err(|(error, failure)| {
            self.failure = Some(failure);
            WriteFailed(match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "no space left",
                ErrorKind::BrokenPipe => "nobody reads the file any more",
                _ => "cannot write the file",
            })
        })
    }
}
