//! The file of a transfer, encoded as its mode requires (RFC 1350 section 1).

use std::task::{Context, Poll};

use rtftp_core::{BlockReader, ReadFailed, netascii::Netascii, wire::packet::Mode};

use super::transfer::TransferFile;
use crate::files::OpenFile;

/// An open file in the encoding of a transfer mode.
#[derive(Debug)]
pub(super) enum EncodedFile {
    Octet(OpenFile),
    Netascii(Box<Netascii<OpenFile>>),
}

impl EncodedFile {
    pub(super) fn new(file: OpenFile, mode: Mode) -> Self {
        match mode {
            Mode::Netascii => Self::Netascii(Box::new(Netascii::new(file))),
            Mode::Octet | Mode::Other => Self::Octet(file),
        }
    }

    /// Returns the number of bytes that will be sent. It is unknown for netascii, because it depends on the contents.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Octet(file) => Some(file.size()),
            Self::Netascii(_) => None,
        }
    }
}

impl TransferFile for EncodedFile {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Octet(file) => file.poll_ready(context),
            Self::Netascii(file) => file.reader().poll_ready(context),
        }
    }
}

impl BlockReader for EncodedFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        match self {
            Self::Octet(file) => BlockReader::read_at(file, offset, buf),
            Self::Netascii(file) => file.read_at(offset, buf),
        }
    }

    fn read_blocks(&mut self, offset: u64, block: usize, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        match self {
            Self::Octet(file) => file.read_blocks(offset, block, buf),
            Self::Netascii(file) => file.read_blocks(offset, block, buf),
        }
    }
}
