//! A file on the disk of a client, read ahead of the transfer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use rtftp_core::{BlockReader, ReadFailed, RequestPath, wire::packet::DATA_HEADER};
use smol::{Task, Timer};

use super::{
    DiskError, RETRY_INTERVAL, RETRY_LIMIT,
    handle::Disk,
    snapshot::{DiskFile, Snapshot},
};
use crate::fs::Buffer;

/// The size in bytes of the chunks in which a file is read.
const CHUNK_LEN: usize = 256 * 1024;
/// The number of chunks kept in memory: a transfer reads at both ends of its window.
const MAX_CHUNKS: usize = 2;
/// The time for which a transfer waits for a lost disk to become readable again.
const RECONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A file on the disk of a client, with two chunks in memory and the next one being read.
///
/// The last chunk, and every chunk read after it, is only returned once the file was found unchanged on the disk: a client that
/// receives the whole file receives one state of it.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    disk: Disk,
    path: Arc<RequestPath>,
    /// Kept so that the boot lasts at least as long as the transfer.
    snapshot: Arc<Snapshot>,
    file: DiskFile,
    /// The chunks in memory, the oldest first.
    chunks: Vec<Chunk>,
    /// The index of the chunk that the last read needed.
    wanted: u64,
    /// The chunk being read.
    loading: Option<(u64, Loading)>,
    /// Whether the last chunk has been read.
    is_complete: bool,
    error: Option<Box<DiskError>>,
}

/// The task that reads a chunk. Returns the file as well, which it may have reopened.
type Loading = Task<Result<(Buffer, DiskFile), DiskError>>;

/// Number `index` of the chunks of [`CHUNK_LEN`] bytes. The last one is shorter.
#[derive(Debug)]
struct Chunk {
    index: u64,
    bytes: Buffer,
}

impl RemoteFile {
    /// Opens a file; connects the disk if necessary.
    ///
    /// Retries for [`RETRY_LIMIT`] while the disk is inconsistent because it is being written.
    pub(super) async fn open(disk: &Disk, path: &RequestPath) -> Result<Self, DiskError> {
        let requested = Instant::now();
        let mut refresh = false;
        loop {
            let mut may_be_outdated = false;
            let error = match disk.snapshot(refresh).await {
                Ok(snapshot) => match snapshot.open(path).await {
                    Ok(file) => return Ok(Self::new(disk.clone(), path.clone().into(), snapshot, file)),
                    Err(error) => {
                        may_be_outdated = snapshot.is_older_than(requested) && snapshot.is_in_use();
                        error
                    }
                },
                Err(error) => error,
            };
            match error {
                // The journal that the snapshot has read may have been overwritten since, and names with it.
                DiskError::NotFound if !refresh && may_be_outdated => {
                    refresh = true;
                    continue;
                }
                error if error.is_transient() && requested.elapsed() < RETRY_LIMIT => refresh = true,
                error => {
                    if error.is_transient() {
                        log::error!("{}: {error}", disk.name());
                    }
                    return Err(error);
                }
            }
            Timer::after(RETRY_INTERVAL).await;
        }
    }

    fn new(disk: Disk, path: Arc<RequestPath>, snapshot: Arc<Snapshot>, file: DiskFile) -> Self {
        Self { disk, path, snapshot, file, chunks: vec![], wanted: 0, loading: None, is_complete: false, error: None }
    }

    /// Returns the size in bytes at the time the file was opened.
    pub(crate) fn size(&self) -> u64 {
        self.file.size()
    }

    /// Returns the age of the snapshot in which the file was opened.
    pub(crate) fn snapshot_age(&self) -> Duration {
        self.snapshot.age()
    }

    /// See [`OpenFile::poll_ready`](crate::files::open_file::OpenFile::poll_ready).
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let index = self.wanted;
        if self.loading.as_ref().is_none_or(|(loading, _)| *loading != index) {
            self.load(index);
        }
        let Some((_, loading)) = &mut self.loading else { return Poll::Ready(()) };
        let loaded = ready!(Pin::new(loading).poll(context));
        self.loading = None;
        match loaded {
            Ok((bytes, file)) => {
                self.file = file;
                if self.chunks.len() == MAX_CHUNKS {
                    // Its buffer is used for the next chunk.
                    self.chunks.remove(0);
                }
                self.chunks.push(Chunk { index, bytes });
                if self.is_last(index) {
                    self.is_complete = true;
                } else {
                    self.load(index + 1);
                }
            }
            Err(error) => {
                log::error!("{}: {}: {error}", self.disk.name(), self.path.as_bytes().escape_ascii());
                self.error = Some(error.into());
            }
        }
        Poll::Ready(())
    }

    /// Starts to read a chunk.
    fn load(&mut self, index: u64) {
        let verify = self.is_complete || self.is_last(index);
        let load = load(self.disk.clone(), self.path.clone(), self.file.clone(), chunk_offset(index), verify);
        self.loading = Some((index, self.disk.executor().spawn(load)));
    }

    fn is_last(&self, index: u64) -> bool {
        chunk_offset(index + 1) >= self.size()
    }

    /// Returns whether `len` bytes at `offset`, or as many as the file has, are in memory.
    fn is_loaded(&mut self, offset: u64, len: usize) -> Result<bool, ReadFailed> {
        let len = len.min(usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX));
        let is_loaded = self.error.is_none() && (len == 0 || self.has_chunks(offset, len));
        self.error.as_ref().map_or(Ok(is_loaded), |error| Err(ReadFailed(error.to_client())))
    }

    /// Returns whether the chunks of this range are in memory. Starts to read the first that is not, unless it is being read.
    fn has_chunks(&mut self, offset: u64, len: usize) -> bool {
        let end = offset + len as u64;
        let indices = offset / CHUNK_LEN as u64..end.div_ceil(CHUNK_LEN as u64);
        while let Some(index) = indices.clone().find(|index| self.chunks.iter().all(|chunk| chunk.index != *index)) {
            self.wanted = index;
            let is_pending = self.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending();
            if is_pending || self.error.is_some() {
                return false;
            }
        }
        true
    }

    /// Copies the bytes at `offset` that are in memory. Returns their number.
    fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut copied = 0;
        while copied < buf.len() {
            let at = offset + copied as u64;
            let index = at / CHUNK_LEN as u64;
            let chunk = self.chunks.iter().find(|chunk| chunk.index == index);
            let rest = chunk.and_then(|chunk| chunk.bytes.get((at - chunk_offset(index)) as usize..));
            // Ends at the end of the file, or where the disk returned fewer bytes than the size promised.
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            let len = rest.len().min(buf.len() - copied);
            buf[copied..copied + len].copy_from_slice(&rest[..len]);
            copied += len;
        }
        copied
    }
}

/// Reads the chunk at `offset`; reopens the file if the disk was lost. If `verify`, the file must be unchanged after the read.
async fn load(
    disk: Disk,
    path: Arc<RequestPath>,
    mut file: DiskFile,
    offset: u64,
    verify: bool,
) -> Result<(Buffer, DiskFile), DiskError> {
    let until = Instant::now() + RECONNECT_LIMIT;
    loop {
        let read = match &file {
            DiskFile::Native { device, map } => map.read(&**device, offset, CHUNK_LEN).await.map_err(DiskError::from),
            // libguestfs cannot verify that a file is unchanged.
            DiskFile::Guestfs(appliance_file) => {
                let read = appliance_file.read(offset, CHUNK_LEN as u32).await;
                return read.map(|bytes| (bytes.into(), file.clone())).map_err(DiskError::Appliance);
            }
        };
        if read.is_ok() && !verify {
            return Ok((read?, file));
        }
        file = reopen(&disk, &path, &file, until).await?;
        match read {
            Ok(bytes) => return Ok((bytes, file)),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => {}
        }
    }
}

/// Opens a file again in a new snapshot; it must be unchanged.
async fn reopen(disk: &Disk, path: &RequestPath, file: &DiskFile, until: Instant) -> Result<DiskFile, DiskError> {
    loop {
        let reopened = match disk.snapshot(true).await {
            Ok(snapshot) => snapshot.open(path).await,
            Err(error) => Err(error),
        };
        let error = match reopened {
            Ok(reopened) if file.is_unchanged(&reopened) => return Ok(reopened),
            Ok(_) | Err(DiskError::NotFound | DiskError::Forbidden(_)) => return Err(DiskError::Changed),
            Err(error) => error,
        };
        if Instant::now() >= until {
            return Err(error);
        }
        Timer::after(RETRY_INTERVAL).await;
    }
}

/// Returns the offset of a chunk in the file in bytes.
fn chunk_offset(index: u64) -> u64 {
    index * CHUNK_LEN as u64
}

impl BlockReader for RemoteFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let is_loaded = self.is_loaded(offset, buf.len())?;
        Ok(is_loaded.then(|| self.copy(offset, buf)))
    }

    fn read_blocks(&mut self, offset: u64, block: usize, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let packets = || buf.chunks(block + DATA_HEADER);
        if !self.is_loaded(offset, buf.len() - packets().len() * DATA_HEADER)? {
            return Ok(None);
        }
        let data = buf.chunks_mut(block + DATA_HEADER).filter_map(|packet| packet.get_mut(DATA_HEADER..));
        Ok(Some(data.fold(0, |read, data| read + self.copy(offset + read as u64, data))))
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        self.snapshot.touch();
    }
}
