//! An open file of either kind, as a transfer reads it.

use rtftp_core::{BlockReader, ReadFailed, netascii::Netascii};

use crate::{local::LocalFile, remote::RemoteFile};

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

    /// Waits until what the last read lacked is loaded, or has failed, which the next read tells. Dropping the future loses
    /// nothing: the loading goes on.
    pub(crate) async fn ready(&mut self) {
        match self {
            Self::Local(file) => file.ready().await,
            Self::Remote(file) => file.ready().await,
            Self::Netascii(file) => Box::pin(file.reader().ready()).await,
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
}
