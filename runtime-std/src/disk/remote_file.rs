//! A file on the disk of a client, read ahead of the transfer.

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rtftp_core::{BlockReader, ReadFailed, RequestPath, wire::packet::DATA_HEADER};
use smol::Task;

use super::{
    DiskError, RETRY_INTERVAL, RETRY_LIMIT,
    chunks::Chunks,
    digest::Digest,
    handle::Disk,
    lookup::Lookup,
    snapshot::{Comparison, DiskFile, Snapshot},
};
use crate::{
    clock::{self, Timer},
    fs::{Buffer, Error, FileIdentity},
    history::RequestRecord,
};

/// The time for which a transfer waits for a lost disk to become readable again.
const RECONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A file on the disk of a client, of which some chunks are in memory and the next one is being read.
///
/// The last chunk, and every chunk read after it, is only returned once the file was found unchanged on the disk: a client that
/// receives the whole file receives one state of it.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    disk: Disk,
    source: Arc<Source>,
    /// The size in bytes at the time the file was opened.
    size: u64,
    /// The time at which the snapshot was taken.
    snapshot_taken: Instant,
    /// `None` while this is being dropped.
    opened: Option<Opened>,
    chunks: Chunks,
    /// The offset of the last read, and that of the byte which it lacked.
    offset: u64,
    missing: u64,
    /// The chunk being read.
    loading: Option<(Range<u64>, Loading)>,
    /// Whether the last chunk has been read.
    is_complete: bool,
    error: Option<Box<DiskError>>,
}

/// The disk of a file that is being sent.
#[derive(Debug)]
pub(crate) struct ServedDisk(Disk);

impl ServedDisk {
    /// Notes that the board has received the whole file, whose request this is.
    pub(crate) fn file_received(&self, record: Arc<RequestRecord>) {
        self.0.file_received(record);
    }
}

/// The parts of an open file that may be large, and are dropped on the executor of the disk.
#[derive(Debug)]
struct Opened {
    /// Kept so that the boot lasts at least as long as the transfer.
    snapshot: Arc<Snapshot>,
    file: DiskFile,
}

/// The task that reads a chunk. Returns the file as well, which it may have reopened.
type Loading = Task<Result<(Buffer, DiskFile), DiskError>>;

/// What a file is opened by, and what has been read from it.
#[derive(Debug)]
struct Source {
    path: RequestPath,
    /// The checksum of all chunks that were read.
    digest: Mutex<Digest>,
}

impl Source {
    fn new(path: &RequestPath) -> Self {
        Self { path: path.clone(), digest: Mutex::default() }
    }

    fn digest(&self) -> Digest {
        self.digest.lock().clone()
    }
}

impl RemoteFile {
    /// Opens a file; connects the disk if necessary.
    pub(super) async fn open(disk: &Disk, path: &RequestPath) -> Result<Self, DiskError> {
        let mut lookup = Lookup::new(disk);
        loop {
            let opened = match lookup.snapshot().await {
                Ok(snapshot) => Self::open_in(snapshot, disk, path).await,
                Err(error) => Err(error),
            };
            if let Some(result) = lookup.finish(opened).await {
                return result;
            }
        }
    }

    async fn open_in(snapshot: Arc<Snapshot>, disk: &Disk, path: &RequestPath) -> Result<Self, DiskError> {
        let mut file = snapshot.open(path).await?;
        if file.size() == 0 && matches!(file, DiskFile::Native { .. }) {
            // Nothing will be read from it, and so compared with the disk.
            let until = clock::instant() + RETRY_LIMIT;
            file = reopen(disk, path, &file, &Digest::default(), until).await?;
        }
        let chunks = Chunks::new(disk.memory(), file.size(), file.layout())?;
        Ok(Self::new(disk.clone(), Source::new(path).into(), snapshot, file, chunks))
    }

    fn new(disk: Disk, source: Arc<Source>, snapshot: Arc<Snapshot>, file: DiskFile, chunks: Chunks) -> Self {
        let (size, snapshot_taken) = (file.size(), snapshot.taken());
        let opened = Some(Opened { snapshot, file });
        Self {
            disk,
            source,
            size,
            snapshot_taken,
            opened,
            chunks,
            offset: 0,
            missing: 0,
            loading: None,
            is_complete: false,
            error: None,
        }
    }

    /// Returns the size in bytes at the time the file was opened.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the disk, to be told when the file was received.
    pub(crate) fn served_disk(&self) -> ServedDisk {
        ServedDisk(self.disk.clone())
    }

    /// Returns the age of the snapshot in which the file was opened.
    pub(crate) fn snapshot_age(&self) -> Duration {
        clock::elapsed(self.snapshot_taken)
    }

    /// See [`OpenFile::poll_ready`](crate::files::open_file::OpenFile::poll_ready).
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let missing = self.missing;
        if self.loading.as_ref().is_none_or(|(chunk, _)| !chunk.contains(&missing)) {
            self.load(missing);
        }
        let Some((chunk, loading)) = &mut self.loading else { return Poll::Ready(()) };
        let (loaded, chunk) = (ready!(Pin::new(loading).poll(context)), chunk.clone());
        self.loading = None;
        match loaded {
            Ok((bytes, file)) => {
                if let Some(opened) = &mut self.opened {
                    opened.file = file;
                }
                self.chunks.add(chunk.clone(), bytes);
                self.is_complete |= self.chunks.is_last(&chunk);
                if self.chunks.reads_ahead(&chunk) {
                    self.load(chunk.end);
                }
            }
            Err(error) => self.fail(error),
        }
        Poll::Ready(())
    }

    /// Returns the bytes from `offset` on that are in memory.
    pub(crate) fn bytes_in_memory(&self, offset: u64) -> &[u8] {
        self.chunks.bytes_from(offset)
    }

    /// Checks that the file is unchanged on the disk.
    pub(crate) async fn verify(&self) -> Result<(), ReadFailed> {
        // libguestfs cannot verify that a file is unchanged.
        let Some(Opened { file: file @ DiskFile::Native { .. }, .. }) = &self.opened else { return Ok(()) };
        let until = clock::instant() + RECONNECT_LIMIT;
        match reopen(&self.disk, &self.source.path, file, &self.source.digest(), until).await {
            Ok(_) => Ok(()),
            Err(error) => Err(ReadFailed(error.to_client())),
        }
    }

    /// Returns the modification time, if the file system shows it.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        match &self.opened.as_ref()?.file {
            DiskFile::Native { map, .. } => map.modified,
            DiskFile::Guestfs(_) => None,
        }
    }

    /// Returns a text that changes with the contents of the file, if the file system shows that.
    pub(crate) fn version_text(&self) -> Option<String> {
        match &self.opened.as_ref()?.file {
            DiskFile::Native { map, .. } => {
                let FileIdentity { file_system, node, generation, times, version, .. } = map.identity;
                let file_system = u128::from_le_bytes(file_system);
                let [changed, modified] = times;
                Some(format!(
                    "{file_system:x}-{node:x}-{generation:x}-{changed:x}-{modified:x}-{version:x}-{:x}",
                    map.size
                ))
            }
            DiskFile::Guestfs(_) => None,
        }
    }

    /// Starts to read the chunk with a byte that is missing.
    fn load(&mut self, missing: u64) {
        let Some(Opened { file, .. }) = &self.opened else { return };
        let chunk = self.chunks.next(missing, self.offset);
        let verify = self.is_complete || self.chunks.is_last(&chunk);
        let load = load(self.disk.clone(), self.source.clone(), file.clone(), chunk.clone(), verify);
        self.loading = Some((chunk, self.disk.executor().spawn(load)));
    }

    /// Ends the transfer with an error.
    fn fail(&mut self, error: DiskError) {
        log::error!("{}: {}: {error}", self.disk.name(), self.source.path.as_bytes().escape_ascii());
        self.error = Some(error.into());
    }

    /// Returns whether `len` bytes at `offset`, or as many as the file has, are in memory. The caller can ask for less unless the
    /// range is `indivisible`.
    fn is_loaded(&mut self, offset: u64, len: usize, indivisible: bool) -> Result<bool, ReadFailed> {
        let len = len.min(usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX));
        let is_loaded = self.error.is_none() && (len == 0 || self.has_chunks(offset, len, indivisible));
        self.error.as_ref().map_or(Ok(is_loaded), |error| Err(ReadFailed(error.to_client())))
    }

    /// Returns whether the chunks of this range are in memory. Starts to read the first that is not, unless it is being read.
    fn has_chunks(&mut self, offset: u64, len: usize, indivisible: bool) -> bool {
        while let Some(missing) = self.chunks.first_missing(offset, len) {
            match self.chunks.can_keep(offset, indivisible) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    self.fail(error.into());
                    return false;
                }
            }
            (self.offset, self.missing) = (offset, missing);
            let is_pending = self.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending();
            if is_pending || self.error.is_some() {
                return false;
            }
        }
        true
    }
}

/// Reads a chunk; reopens the file if the disk was lost. If `verify`, the file must be unchanged after the read.
async fn load(
    disk: Disk,
    source: Arc<Source>,
    mut file: DiskFile,
    chunk: Range<u64>,
    verify: bool,
) -> Result<(Buffer, DiskFile), DiskError> {
    let until = clock::instant() + RECONNECT_LIMIT;
    let (offset, len) = (chunk.start, (chunk.end - chunk.start) as usize);
    loop {
        let read = match &file {
            DiskFile::Native { device, map } => map.read(&**device, offset, len).await.map_err(DiskError::from),
            // libguestfs cannot verify that a file is unchanged.
            DiskFile::Guestfs(appliance_file) => {
                let read = appliance_file.read(offset, len as u32).await;
                return read.map(|bytes| (bytes.into(), file.clone())).map_err(DiskError::Appliance);
            }
        };
        let mut digest = source.digest();
        if let Ok(bytes) = &read {
            digest.add(offset, bytes);
            if !verify {
                *source.digest.lock() = digest;
                return Ok((read?, file));
            }
        }
        file = reopen(&disk, &source.path, &file, &digest, until).await?;
        match read {
            Ok(bytes) => {
                *source.digest.lock() = digest;
                return Ok((bytes, file));
            }
            Err(error) if clock::instant() >= until => return Err(error),
            // Damaged, or written at this moment.
            Err(DiskError::FileSystem(Error::Corrupt(_))) => {
                Timer::after(RETRY_INTERVAL).await;
            }
            Err(_) => {}
        }
    }
}

/// Opens a file again in a new snapshot; the contents that were read so far must be unchanged.
async fn reopen(
    disk: &Disk,
    path: &RequestPath,
    file: &DiskFile,
    digest: &Digest,
    until: Instant,
) -> Result<DiskFile, DiskError> {
    // The state in which the contents were compared.
    let mut compared = None;
    loop {
        let reopened = match disk.snapshot(true).await {
            Ok(snapshot) => snapshot.open(path).await,
            Err(error) => Err(error),
        };
        let error = match reopened {
            Ok(reopened) => match file.compare(&reopened) {
                Comparison::Same => return Ok(reopened.with_map_of(file)),
                Comparison::Changed => return Err(DiskError::Changed),
                // The attributes have not changed again since the contents were compared.
                Comparison::OtherAttributes if is_same(compared.as_ref(), &reopened) => return Ok(reopened),
                Comparison::OtherAttributes => match digest.matches(&reopened, until).await {
                    Ok(true) if clock::instant() < until => {
                        compared = Some(reopened);
                        continue;
                    }
                    Ok(_) => return Err(DiskError::Changed),
                    Err(error) => error,
                },
            },
            Err(DiskError::NotFound | DiskError::Forbidden(_)) => return Err(DiskError::Changed),
            Err(error) => error,
        };
        if clock::instant() >= until {
            return Err(error);
        }
        Timer::after(RETRY_INTERVAL).await;
    }
}

fn is_same(compared: Option<&DiskFile>, file: &DiskFile) -> bool {
    compared.is_some_and(|compared| compared.compare(file) == Comparison::Same)
}

impl BlockReader for RemoteFile {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let is_loaded = self.is_loaded(offset, buf.len(), true)?;
        Ok(is_loaded.then(|| self.chunks.copy(offset, buf)))
    }

    fn read_blocks(&mut self, offset: u64, block: usize, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let packets = buf.chunks(block + DATA_HEADER).len();
        if !self.is_loaded(offset, buf.len() - packets * DATA_HEADER, packets == 1)? {
            return Ok(None);
        }
        let data = buf.chunks_mut(block + DATA_HEADER).filter_map(|packet| packet.get_mut(DATA_HEADER..));
        Ok(Some(data.fold(0, |read, data| read + self.chunks.copy(offset + read as u64, data))))
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        let Some(opened) = self.opened.take() else { return };
        opened.snapshot.touch();
        // The buffers of the chunks return to the connection, which would keep one of them beyond the reservation.
        self.chunks.clear();
        opened.file.free_buffers();
        self.disk.drop_later((opened, self.loading.take()));
    }
}
