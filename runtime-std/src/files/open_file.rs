//! An open file of either kind, as a transfer reads it.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use rtftp_core::{BlockReader, ReadFailed, netascii::Netascii};

use crate::{disk::RemoteFile, files::local::LocalFile};

/// A file that is being served.
#[derive(Debug)]
pub(crate) enum OpenFile {
    /// In a directory of this machine.
    Local(LocalFile),
    /// On a client's own disk.
    Remote(RemoteFile),
    /// Either of them, sent as netascii.
    Netascii(Box<Netascii<Self>>),
}

impl OpenFile {
    /// How many bytes are sent, if that is known.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Local(file) => Some(file.size()),
            Self::Remote(file) => Some(file.size()),
            Self::Netascii(_) => None,
        }
    }

    /// How long ago the disk was looked at that the file is on, if it is on one.
    pub(crate) fn snapshot_age(&mut self) -> Option<Duration> {
        match self {
            Self::Local(_) => None,
            Self::Remote(file) => Some(file.snapshot_age()),
            Self::Netascii(file) => file.reader().snapshot_age(),
        }
    }

    /// Loads what the last read lacked; ready when it is there, or has failed, which the next read tells.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Local(file) => file.poll_ready(context),
            Self::Remote(file) => file.poll_ready(context),
            Self::Netascii(file) => file.reader().poll_ready(context),
        }
    }
}

impl BlockReader for OpenFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        match self {
            Self::Local(file) => file.read_at(offset, buf),
            Self::Remote(file) => file.read_at(offset, buf),
            Self::Netascii(file) => file.read_at(offset, buf),
        }
    }

    fn read_blocks(&mut self, offset: u64, block: usize, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        match self {
            Self::Local(file) => file.read_blocks(offset, block, buf),
            Self::Remote(file) => file.read_blocks(offset, block, buf),
            Self::Netascii(file) => file.read_blocks(offset, block, buf),
        }
    }
}
