//! A file on a client's disk, read ahead of the transfer.

use rtftp_core::{BlockReader, ReadFailed};
use smol::channel::Receiver;

use super::disk::{Disk, FileId, let_go};
use crate::error::Unavailable;

/// How much is asked of the disk at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many parts are kept: a transfer reads at its window's two ends.
const KEPT: usize = 2;

/// The bytes of a part, once the disk has read them.
type Answer = Receiver<Result<Vec<u8>, Unavailable>>;

/// A file on a client's disk: two parts of it in memory and the next on its way.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    disk: Disk,
    file: FileId,
    size: u64,
    /// The parts in memory, the oldest first.
    parts: Vec<Part>,
    /// The part that a read lacked.
    wanted: u64,
    /// The part on its way.
    coming: Option<(u64, Answer)>,
    failed: Option<Unavailable>,
}

/// The `index`th [`CHUNK`] bytes of the file; the last part is shorter.
#[derive(Debug)]
struct Part {
    index: u64,
    bytes: Vec<u8>,
}

impl RemoteFile {
    pub(super) fn new(disk: Disk, file: FileId, size: u64) -> Self {
        Self { disk, file, size, parts: vec![], wanted: 0, coming: None, failed: None }
    }

    /// The size when it was opened, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// See [`OpenFile::ready`](crate::file::OpenFile::ready).
    pub(crate) async fn ready(&mut self) {
        let index = self.wanted;
        if self.coming.as_ref().is_none_or(|(coming, _)| *coming != index) {
            self.request(index);
        }
        let Some((_, answer)) = &self.coming else { return };
        let answer = answer.recv().await.unwrap_or_else(|_| Err(let_go()));
        self.coming = None;
        match answer {
            Ok(bytes) => {
                if self.parts.len() == KEPT {
                    self.parts.remove(0);
                }
                self.parts.push(Part { index, bytes });
                if start(index + 1) < self.size {
                    self.request(index + 1);
                }
            }
            Err(why) => self.failed = Some(why),
        }
    }

    fn request(&mut self, index: u64) {
        self.coming = Some((index, self.disk.read(self.file, start(index), CHUNK as u32)));
    }
}

/// Where a part begins in the file, in bytes.
fn start(index: u64) -> u64 {
    index * CHUNK as u64
}

impl BlockReader for RemoteFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        if let Some(why) = &self.failed {
            return Err(ReadFailed(why.to_client));
        }
        let len = buf.len().min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut copied = 0;
        while copied < len {
            let at = offset + copied as u64;
            let index = at / CHUNK as u64;
            let Some(part) = self.parts.iter().find(|part| part.index == index) else {
                self.wanted = index;
                return Ok(None);
            };
            let from = (at - start(index)) as usize;
            let Some(rest) = part.bytes.get(from..).filter(|rest| !rest.is_empty()) else {
                // The disk gave less than the size it had told.
                return Ok(Some(copied));
            };
            let step = rest.len().min(len - copied);
            buf[copied..copied + step].copy_from_slice(&rest[..step]);
            copied += step;
        }
        Ok(Some(copied))
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        self.disk.close(self.file);
    }
}
