//! A read request that has been received.

use rtftp_core::wire::packet::{Mode, Options, Request};

/// A read request. It owns its datagram, so that the session and the table of sessions can share it.
#[derive(Debug)]
pub(crate) struct ReadRequest {
    datagram: Box<[u8]>,
    file_len: usize,
    options_len: usize,
    mode: Mode,
}

impl ReadRequest {
    /// Copies a datagram that `request` has been parsed from.
    pub(super) fn new(datagram: &[u8], request: &Request<'_>) -> Self {
        let (file_len, options_len) = (request.file.len(), request.options.as_bytes().len());
        Self { datagram: datagram.into(), file_len, options_len, mode: request.mode }
    }

    /// Returns the whole datagram.
    pub(super) fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    /// Returns the requested file name, which follows the opcode of two bytes.
    pub(crate) fn file(&self) -> &[u8] {
        self.datagram.get(2..2 + self.file_len).unwrap_or_default()
    }

    /// Returns the transfer mode.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the requested options, which are at the end of the datagram.
    pub(crate) fn options(&self) -> Options<'_> {
        let start = self.datagram.len().saturating_sub(self.options_len);
        Options::new(self.datagram.get(start..).unwrap_or_default())
    }
}
