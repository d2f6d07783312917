//! A file on a client's disk, read ahead of the transfer.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use rtftp_core::{BlockReader, ReadFailed, RequestPath, wire::packet::DATA_HEADER};
use smol::{Task, Timer};

use super::{
    actor::Snapshot,
    handle::{Disk, RETRY_INTERVAL},
    snapshot::{DiskError, Opened},
};
use crate::error::{OpenError, Unavailable};

/// How much is asked of the disk at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many parts are kept: a transfer reads at its window's two ends.
const KEPT: usize = 2;
/// How long a disk that was lost in the middle of a transfer may take to come back.
const RECONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A file on a client's disk: two parts of it in memory and the next on its way.
///
/// The last part is handed out only after the file was found unchanged on the disk since it was opened, and so is every part that
/// is read after it: a client that has all of a file has it as it was at one moment.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    disk: Disk,
    path: Arc<RequestPath>,
    /// Keeps the view of this boot for as long as the file is open.
    look: Arc<Snapshot>,
    opened: Opened,
    /// The parts in memory, the oldest first.
    parts: Vec<Part>,
    /// The part that a read lacked.
    wanted: u64,
    /// The part on its way.
    coming: Option<(u64, Loading)>,
    /// Whether the last part has been read.
    is_complete: bool,
    failed: Option<Unavailable>,
}

/// The bytes of a part, and the file that they were read from, which may have been opened again.
type Loading = Task<Result<(Vec<u8>, Opened), Unavailable>>;

/// The `index`th [`CHUNK`] bytes of the file; the last part is shorter.
#[derive(Debug)]
struct Part {
    index: u64,
    bytes: Vec<u8>,
}

impl RemoteFile {
    pub(super) fn new(disk: Disk, path: Arc<RequestPath>, look: Arc<Snapshot>, opened: Opened) -> Self {
        Self { disk, path, look, opened, parts: vec![], wanted: 0, coming: None, is_complete: false, failed: None }
    }

    /// The size when it was opened, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.opened.size()
    }

    /// How long ago the disk was looked at for the boot that the file was opened in.
    pub(crate) fn snapshot_age(&self) -> Duration {
        self.look.age()
    }

    /// See [`OpenFile::poll_ready`](crate::files::open_file::OpenFile::poll_ready).
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let index = self.wanted;
        if self.coming.as_ref().is_none_or(|(coming, _)| *coming != index) {
            self.request(vec![], index);
        }
        let Some((_, loading)) = &mut self.coming else { return Poll::Ready(()) };
        let loaded = ready!(Pin::new(loading).poll(context));
        self.coming = None;
        match loaded {
            Ok((bytes, opened)) => {
                self.opened = opened;
                let spare = if self.parts.len() == KEPT { self.parts.remove(0).bytes } else { vec![] };
                self.parts.push(Part { index, bytes });
                if self.is_last(index) {
                    self.is_complete = true;
                } else {
                    self.request(spare, index + 1);
                }
            }
            Err(why) => {
                log::error!("{}: {}: {why}", self.disk.name(), self.path.as_bytes().escape_ascii());
                self.failed = Some(why);
            }
        }
        Poll::Ready(())
    }

    /// Whether these bytes are in memory. A part that has come by now is taken in; one that has not is on its way from now on.
    fn has(&mut self, offset: u64, len: usize) -> bool {
        let end = offset + len as u64;
        let indices = offset / CHUNK as u64..end.div_ceil(CHUNK as u64);
        while let Some(index) = indices.clone().find(|index| self.parts.iter().all(|part| part.index != *index)) {
            self.wanted = index;
            let is_pending = self.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending();
            if is_pending || self.failed.is_some() {
                return false;
            }
        }
        true
    }

    /// Whether so many bytes, or what there is of them before the file's end, are in memory.
    fn is_loaded(&mut self, offset: u64, len: usize) -> Result<bool, ReadFailed> {
        let len = len.min(usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX));
        let is_loaded = self.failed.is_none() && (len == 0 || self.has(offset, len));
        self.failed.as_ref().map_or(Ok(is_loaded), |why| Err(ReadFailed(why.to_client)))
    }

    /// Copies what is in memory from `offset` on, and returns how much that is.
    fn copy(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut copied = 0;
        while copied < buf.len() {
            let at = offset + copied as u64;
            let index = at / CHUNK as u64;
            let part = self.parts.iter().find(|part| part.index == index);
            let rest = part.and_then(|part| part.bytes.get((at - start(index)) as usize..));
            // The file ends, or the disk gave less than the size it had told.
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            let step = rest.len().min(buf.len() - copied);
            buf[copied..copied + step].copy_from_slice(&rest[..step]);
            copied += step;
        }
        copied
    }

    fn is_last(&self, index: u64) -> bool {
        start(index + 1) >= self.size()
    }

    fn request(&mut self, spare: Vec<u8>, index: u64) {
        let check = self.is_complete || self.is_last(index);
        let load = load(self.disk.clone(), self.path.clone(), self.opened.clone(), start(index), check, spare);
        self.coming = Some((index, self.disk.executor().spawn(load)));
    }
}

/// Reads the part from `offset` on, of the file opened again if need be; if `check`, the file must be unchanged after that.
async fn load(
    disk: Disk,
    path: Arc<RequestPath>,
    mut opened: Opened,
    offset: u64,
    check: bool,
    mut spare: Vec<u8>,
) -> Result<(Vec<u8>, Opened), Unavailable> {
    let until = Instant::now() + RECONNECT_LIMIT;
    loop {
        let read = opened.read_into(mem::take(&mut spare), offset, CHUNK as u32).await;
        // Only the native reader can see a file as it is now.
        if matches!(opened, Opened::Guestfs(_)) || (read.is_ok() && !check) {
            return Ok((read?, opened));
        }
        opened = open_again(&disk, &path, &opened, until).await?;
        match read {
            Ok(bytes) => return Ok((bytes, opened)),
            Err(why) if Instant::now() >= until => return Err(why),
            Err(_) => {}
        }
    }
}

/// Opens a file again in a fresh view of its disk; it must be the same one, and unchanged.
async fn open_again(disk: &Disk, path: &RequestPath, opened: &Opened, until: Instant) -> Result<Opened, Unavailable> {
    loop {
        let again = match disk.look(true).await {
            Ok(look) => look.open(path).await,
            Err(failure) => Err(failure),
        };
        let why = match again {
            Ok(again) if opened.is_unchanged(&again) => return Ok(again),
            Ok(_) | Err(DiskError::Permanent(OpenError::NotFound | OpenError::Forbidden(_))) => return Err(changed()),
            Err(DiskError::Transient(why) | DiskError::Permanent(OpenError::Unavailable(why))) => why,
        };
        if Instant::now() >= until {
            return Err(why);
        }
        Timer::after(RETRY_INTERVAL).await;
    }
}

fn changed() -> Unavailable {
    Unavailable {
        to_client: "the file changed during the transfer",
        reason: "the owner changed the file during the transfer, which is ended so that nobody gets a mixture".into(),
    }
}

/// Where a part begins in the file, in bytes.
fn start(index: u64) -> u64 {
    index * CHUNK as u64
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
        self.look.touch();
    }
}
