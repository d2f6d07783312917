//! An open file, on a local file system or on a disk.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use rtftp_core::{BlockReader, ReadFailed};

use super::{local::LocalFile, origin::Origin};
use crate::{
    clock,
    disk::{GeneratedFile, RemoteFile, ServedDisk},
    local_fs::ServedFile,
};

/// The most bytes that one call of [`OpenFile::read_at`] reads. Both kinds of files can keep this much in memory.
const MAX_READ: usize = 64 * 1024;

/// An open file, which keeps its contents: reads fail once the file has changed, or at its end at the latest.
///
/// There are two ways to read: [`read_at`](Self::read_at) for tasks, and [`BlockReader`] with [`poll_ready`](Self::poll_ready) for a
/// [`Sender`](rtftp_core::Sender).
#[derive(Debug)]
pub struct OpenFile {
    source: Source,
    origin: Origin,
}

#[derive(Debug)]
enum Source {
    Local(LocalFile),
    /// A file, and the title of the boot entry whose kernel it is.
    Disk(Box<RemoteFile>, Option<Box<str>>),
    Generated(GeneratedFile),
}

impl OpenFile {
    pub(crate) fn local(file: LocalFile, origin: Origin) -> Self {
        Self { source: Source::Local(file), origin }
    }

    pub(super) fn on_disk(file: RemoteFile, origin: Origin, boot_entry: Option<Box<str>>) -> Self {
        Self { source: Source::Disk(Box::new(file), boot_entry), origin }
    }

    pub(super) fn generated(file: GeneratedFile, origin: Origin) -> Self {
        Self { source: Source::Generated(file), origin }
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::Local(file) => file.size(),
            Source::Disk(file, _) => file.size(),
            Source::Generated(file) => file.bytes().len() as u64,
        }
    }

    /// Returns the modification time, or `None` if it is not known.
    pub fn modified(&self) -> Option<SystemTime> {
        match &self.source {
            Source::Local(file) => file.modified(),
            Source::Disk(file, _) => file.modified(),
            Source::Generated(_) => None,
        }
    }

    /// Returns the root that contains the file.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the title of the boot entry whose kernel the file is, in the menu that was last generated from its disk.
    pub fn boot_entry(&self) -> Option<&str> {
        match &self.source {
            Source::Disk(_, boot_entry) => boot_entry.as_deref(),
            Source::Local(_) | Source::Generated(_) => None,
        }
    }

    /// Returns the age of the snapshot in which a file on a disk was opened, or `None` for a local file.
    pub fn snapshot_age(&self) -> Option<Duration> {
        match &self.source {
            Source::Local(_) => None,
            Source::Disk(file, _) => Some(file.snapshot_age()),
            Source::Generated(file) => Some(clock::elapsed(file.generated())),
        }
    }

    /// Returns the disk that contains the file, to be told when the file was received; `None` for a local or a generated file.
    pub(crate) fn served_disk(&self) -> Option<ServedDisk> {
        match &self.source {
            Source::Disk(file, _) => Some(file.served_disk()),
            Source::Local(_) | Source::Generated(_) => None,
        }
    }

    /// Reads from `offset` in bytes, up to `buf.len()` or 64 KiB. Returns the number of bytes read: zero only at the end of the file, or
    /// if `buf` is empty.
    ///
    /// # Errors
    ///
    /// Returns [`ReadFailed`] if the file cannot be read or has changed since it was opened.
    pub async fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadFailed> {
        let len = buf.len().min(MAX_READ);
        loop {
            if let Some(read) = BlockReader::read_at(self, offset, &mut buf[..len])? {
                return Ok(read);
            }
            poll_fn(|context| self.poll_ready(context)).await;
        }
    }

    /// Returns bytes from `offset` on, at least one unless the file ends there. Those of a file on a disk are not copied; up to `max` of
    /// a local file are read into `buf`.
    ///
    /// # Errors
    ///
    /// Returns [`ReadFailed`] if the file cannot be read or has changed since it was opened.
    pub async fn bytes_at<'a>(
        &'a mut self,
        offset: u64,
        max: usize,
        buf: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ReadFailed> {
        if let Source::Local(file) = &self.source {
            let rest = usize::try_from(file.size().saturating_sub(offset)).unwrap_or(usize::MAX);
            buf.resize(max.min(MAX_READ).min(rest), 0);
            let len = self.read_at(offset, buf).await?;
            return Ok(&buf[..len]);
        }
        // One byte shows that its chunk is in memory.
        self.read_at(offset, &mut [0]).await?;
        match &self.source {
            Source::Disk(file, _) => Ok(file.bytes_in_memory(offset)),
            Source::Generated(file) => {
                Ok(usize::try_from(offset).ok().and_then(|at| file.bytes().get(at..)).unwrap_or_default())
            }
            Source::Local(_) => Ok(&[]),
        }
    }

    /// Checks that the file is still the version that was opened. Reads at its end do so themselves.
    ///
    /// # Errors
    ///
    /// Returns [`ReadFailed`] if the file has changed or cannot be found any more.
    pub async fn verify(&self) -> Result<(), ReadFailed> {
        match &self.source {
            Source::Local(file) => file.verify().await,
            Source::Disk(file, _) => file.verify().await,
            Source::Generated(_) => Ok(()),
        }
    }

    /// Returns a text that changes with the contents of the file, for an entity tag of HTTP; `None` if the version is not known.
    pub fn version(&self) -> Option<String> {
        match &self.source {
            Source::Local(file) => Some(file.version_text()),
            Source::Disk(file, _) => file.version_text(),
            Source::Generated(_) => None,
        }
    }

    /// Returns the file if it is a local one, whose contents the page cache has.
    pub(crate) fn local_file(&self) -> Option<&Arc<ServedFile>> {
        match &self.source {
            Source::Local(file) => file.file(),
            Source::Disk(..) | Source::Generated(_) => None,
        }
    }

    /// Loads the bytes that the last read lacked. Ready once they are loaded, or could not be loaded, which the next read reports.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.source {
            Source::Local(file) => file.poll_ready(context),
            Source::Disk(file, _) => file.poll_ready(context),
            Source::Generated(_) => Poll::Ready(()),
        }
    }
}

impl BlockReader for OpenFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        match &mut self.source {
            Source::Local(file) => file.read_at(offset, buf),
            Source::Disk(file, _) => file.read_at(offset, buf),
            Source::Generated(file) => file.bytes().read_at(offset, buf),
        }
    }

    fn read_blocks(&mut self, offset: u64, block: usize, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        match &mut self.source {
            Source::Local(file) => file.read_blocks(offset, block, buf),
            Source::Disk(file, _) => file.read_blocks(offset, block, buf),
            Source::Generated(file) => file.bytes().read_blocks(offset, block, buf),
        }
    }
}
