//! Read requests that the server has received and not completely replied to.

use std::{collections::BTreeMap, ops::Range, time::Instant};

use smol::channel::Sender;

use super::{NbdError, latency::READ_LATENCY};
use crate::{
    buffer::{Buffer, BufferPool},
    clock,
};

/// The maximum number of requests in flight.
const MAX_REQUESTS: usize = 64;
/// The maximum number of bytes that the requests in flight ask for.
const MAX_BYTES: usize = 4 << 20;
/// The maximum number of gaps in an incomplete reply. Servers send the chunks of a reply in order, or nearly so.
const MAX_GAPS: usize = 256;
/// The maximum number of chunks of a reply, besides one for each sector of its data.
const MAX_SMALL_CHUNKS: u32 = 64;
/// The size of a sector in bytes.
const SECTOR: u32 = 512;

/// A read request.
#[derive(Debug)]
pub(super) struct Request {
    /// The offset on the disk in bytes.
    pub(super) offset: u64,
    /// The length in bytes.
    pub(super) len: u32,
    /// Receives the data or the server's error. Closed without a message if the connection is lost.
    pub(super) reply: Sender<Result<Buffer, NbdError>>,
}

/// The requests in flight by their cookies, which increase in the order of sending.
#[derive(Debug)]
pub(super) struct InFlight {
    requests: BTreeMap<u64, Pending>,
    bytes: usize,
    last_cookie: u64,
    pool: BufferPool,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    sent: Instant,
    deadline: Instant,
    buffer: Buffer,
    /// The ranges of the disk that have not been received.
    missing: Vec<Range<u64>>,
    /// The number of chunks that may still be received.
    chunks_left: u32,
    /// The first error in the reply.
    error: Option<NbdError>,
}

impl InFlight {
    /// Creates a table without requests. Replies use buffers of `pool`.
    pub(super) fn new(pool: BufferPool) -> Self {
        Self { requests: BTreeMap::new(), bytes: 0, last_cookie: 0, pool }
    }

    /// Returns whether a request for `len` bytes may be sent now.
    pub(super) fn has_room(&self, len: u32) -> bool {
        let is_below = self.requests.len() < MAX_REQUESTS && self.bytes + len as usize <= MAX_BYTES;
        self.requests.is_empty() || is_below
    }

    /// Adds a request, which is sent now, and returns its cookie.
    pub(super) fn add(&mut self, request: Request, deadline: Instant) -> u64 {
        self.last_cookie += 1;
        self.bytes += request.len as usize;
        let buffer = self.pool.take(request.len as usize);
        let whole = request.offset..request.offset.saturating_add(request.len.into());
        let chunks_left = MAX_SMALL_CHUNKS + request.len / SECTOR;
        let sent = clock::instant();
        let pending = Pending { request, sent, deadline, buffer, missing: vec![whole], chunks_left, error: None };
        self.requests.insert(self.last_cookie, pending);
        self.last_cookie
    }

    /// Returns the deadline of the oldest request.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.requests.first_key_value().map(|(_, pending)| pending.deadline)
    }

    /// Returns the oldest request, of which the server probably sends the data next, and its buffer; `None` if a part of its reply was
    /// received.
    pub(super) fn expected(&mut self) -> Option<(u64, &mut [u8])> {
        let (cookie, pending) = self.requests.iter_mut().next()?;
        let is_whole = |gap: &Range<u64>| gap.end - gap.start == u64::from(pending.request.len);
        pending.missing.iter().any(is_whole).then_some((*cookie, &mut *pending.buffer))
    }

    /// Returns the offset and the length of a request in bytes.
    pub(super) fn requested(&mut self, cookie: u64) -> Result<(u64, u32), NbdError> {
        self.find(cookie).map(|pending| (pending.request.offset, pending.request.len))
    }

    /// Marks a range of the disk as received and returns its range in the buffer.
    ///
    /// # Errors
    ///
    /// The range was not requested, or was received before; the reply has too many gaps or chunks.
    pub(super) fn place(&mut self, cookie: u64, offset: u64, len: u32) -> Result<Range<usize>, NbdError> {
        let pending = self.find(cookie)?;
        let end = offset.saturating_add(len.into());
        let gap = pending.missing.iter().position(|gap| gap.start <= offset && offset < end && end <= gap.end);
        let gap = pending.missing.swap_remove(gap.ok_or(NbdError::UnrequestedData)?);
        pending.missing.extend([gap.start..offset, end..gap.end].into_iter().filter(|gap| !gap.is_empty()));
        let chunks_left = pending.chunks_left.checked_sub(1);
        pending.chunks_left =
            chunks_left.filter(|_| pending.missing.len() <= MAX_GAPS).ok_or(NbdError::TooManyChunks)?;
        let start = (offset - pending.request.offset) as usize;
        Ok(start..start + len as usize)
    }

    /// Returns the buffer of a request.
    pub(super) fn buffer(&mut self, cookie: u64) -> Result<&mut [u8], NbdError> {
        self.find(cookie).map(|pending| &mut *pending.buffer)
    }

    /// Records an error that the server replied with; the first one counts.
    pub(super) fn fail(&mut self, cookie: u64, errno: u32, text: String) -> Result<(), NbdError> {
        let pending = self.find(cookie)?;
        let Request { offset, len, .. } = pending.request;
        pending.error.get_or_insert(NbdError::Read { offset, len, errno, text });
        Ok(())
    }

    /// Completes a request: sends the data or the error to its requester.
    ///
    /// # Errors
    ///
    /// The data has gaps, and the server sent no error.
    pub(super) fn complete(&mut self, cookie: u64) -> Result<(), NbdError> {
        let pending = self.requests.remove(&cookie).ok_or(NbdError::UnrequestedData)?;
        self.bytes -= pending.request.len as usize;
        READ_LATENCY.add_duration(clock::elapsed(pending.sent));
        let reply = match pending.error {
            Some(error) => Err(error),
            None if pending.missing.is_empty() => Ok(pending.buffer),
            None => return Err(NbdError::IncompleteReply),
        };
        // Fails if the requester has been dropped.
        let _ = pending.request.reply.try_send(reply);
        Ok(())
    }

    fn find(&mut self, cookie: u64) -> Result<&mut Pending, NbdError> {
        self.requests.get_mut(&cookie).ok_or(NbdError::UnrequestedData)
    }
}
