//! Receives the blocks of the file: writes and compares them.

use std::{io::ErrorKind, path::Path};

use rtftp_core::{BlockSink, WriteFailed};

use crate::{cli::Destination, compare::Comparison, output::Output};

/// The output and the comparison of a transfer.
#[derive(Debug)]
pub(crate) struct Sink {
    output: Output,
    comparison: Option<Comparison>,
    /// The message of the error that ended the transfer.
    error: Option<String>,
}

impl Sink {
    /// Opens output and local file, before the first request is sent.
    ///
    /// # Errors
    ///
    /// Returns a message if one of them cannot be opened.
    pub(crate) fn open(destination: &Destination, verify: Option<&Path>) -> Result<Self, String> {
        let comparison = verify.map(Comparison::open).transpose()?;
        Ok(Self { output: Output::open(destination)?, comparison, error: None })
    }

    /// Returns whether an early exit must remove a temporary file.
    pub(crate) fn is_temporary(&self) -> bool {
        self.output.is_temporary()
    }

    /// Takes the message of the error that ended the transfer.
    pub(crate) fn take_error(&mut self) -> Option<String> {
        self.error.take()
    }

    /// Completes the output; returns the first difference to the local file.
    ///
    /// # Errors
    ///
    /// Returns a message if the output cannot be written or the local file cannot be read.
    pub(crate) fn finish(self) -> Result<Option<String>, String> {
        self.output.finish()?;
        self.comparison.map_or(Ok(None), Comparison::finish)
    }
}

impl BlockSink for Sink {
    fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        if let Some(comparison) = &mut self.comparison {
            comparison.compare(bytes).map_err(|message| {
                self.error = Some(message);
                WriteFailed("cannot compare the file")
            })?;
        }
        self.output.write(bytes).map_err(|(error, message)| {
            self.error = Some(message);
            WriteFailed(match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "no space left",
                ErrorKind::BrokenPipe => "the output was closed",
                _ => "cannot write the file",
            })
        })
    }
}
