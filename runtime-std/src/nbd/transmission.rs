//! The transmission phase: a task that sends requests, receives replies in any order, and enforces the deadline.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io, mem,
    ops::Range,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use smol::{
    channel::Receiver,
    future::{FutureExt, poll_once},
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    stream::Stream,
};

use super::{
    NbdError,
    in_flight::{InFlight, Request},
    wire::{
        CMD_DISC, CMD_READ, Chunk, Fields, Header, MAGIC_LEN, MAX_ERROR_LEN, MAX_HEADER_LEN, REPLY_TYPE_ERROR,
        REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, parse_error, request,
    },
};
use crate::{
    buffer::BufferPool,
    clock::{self, Timer},
};

/// Runs until the handle is dropped or the connection is lost.
pub(super) async fn run(
    mut transmission: Transmission<impl AsyncRead + AsyncWrite + Unpin>,
    queue: Receiver<Request>,
    lost: Arc<OnceLock<Arc<NbdError>>>,
) {
    let mut requests = pin!(queue.clone());
    let mut timer = Timer::after(transmission.timeout);
    match poll_fn(|cx| transmission.poll(cx, requests.as_mut(), &mut timer)).await {
        // Sent only if that does not block: the server notices the end of the connection anyway.
        Ok(()) if transmission.outgoing.is_empty() => {
            let stream = &mut transmission.stream;
            let _ = poll_once(async {
                stream.write_all(&request(CMD_DISC, 0, 0, 0)).await?;
                stream.flush().await
            })
            .await;
        }
        Ok(()) => {}
        Err(error) => drop(lost.set(error.into())),
    }
    // Closes the reply channels of the requests that were not sent.
    queue.close();
    while queue.try_recv().is_ok() {}
}

/// The state of the task.
pub(super) struct Transmission<S> {
    stream: S,
    /// Whether structured replies were negotiated.
    structured: bool,
    /// The time limit for each reply.
    timeout: Duration,
    /// Requests that wait until there is room for them in flight.
    waiting: VecDeque<Request>,
    in_flight: InFlight,
    /// The rest of the request that is being sent.
    outgoing: Vec<u8>,
    incoming: Incoming,
}

/// The part of a reply that is being received.
enum Incoming {
    Header {
        bytes: [u8; MAX_HEADER_LEN],
        filled: usize,
    },
    /// The payload of a chunk, or of a data chunk only the offset that precedes the data.
    Payload {
        chunk: Chunk,
        bytes: Vec<u8>,
        filled: usize,
    },
    /// Data, received straight into the buffer of its request. `is_last` if the reply ends with it.
    Data {
        cookie: u64,
        is_last: bool,
        range: Range<usize>,
    },
}

impl Default for Incoming {
    fn default() -> Self {
        Self::Header { bytes: [0; MAX_HEADER_LEN], filled: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transmission<S> {
    /// Begins after the handshake.
    pub(super) fn new(stream: S, structured: bool, timeout: Duration, pool: BufferPool) -> Self {
        Self {
            stream,
            structured,
            timeout,
            waiting: VecDeque::new(),
            in_flight: InFlight::new(pool),
            outgoing: Vec::new(),
            incoming: Incoming::default(),
        }
    }

    /// Sends, receives and checks the deadline. Completes when `requests` is closed.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        requests: Pin<&mut Receiver<Request>>,
        timer: &mut Timer,
    ) -> Poll<Result<(), NbdError>> {
        let is_closed = self.accept_requests(cx, requests);
        if is_closed {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(sent) = self.poll_send(cx) {
            sent?;
        }
        if let Poll::Ready(received) = self.poll_receive(cx) {
            received?;
            // Yields after each reply, so that a server that never pauses cannot starve other tasks or the deadline.
            cx.waker().wake_by_ref();
        }
        while timer.poll(cx).is_ready() {
            let now = clock::instant();
            // A request that is not sent yet cannot be late earlier than this.
            let deadline = self.in_flight.deadline().unwrap_or(now + self.timeout);
            if deadline <= now {
                return Poll::Ready(Err(NbdError::Timeout(self.timeout)));
            }
            timer.set_at(deadline);
        }
        Poll::Pending
    }

    /// Takes over the queued requests. Returns whether the queue is closed.
    fn accept_requests(&mut self, cx: &mut Context<'_>, mut requests: Pin<&mut Receiver<Request>>) -> bool {
        loop {
            match requests.as_mut().poll_next(cx) {
                Poll::Ready(Some(request)) => self.waiting.push_back(request),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Sends the waiting requests for which there is room in flight. TLS keeps what the socket does not accept yet.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NbdError>> {
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx).map_err(NbdError::from)
    }

    /// Writes the waiting requests for which there is room in flight.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NbdError>> {
        loop {
            while !self.outgoing.is_empty() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))? {
                    0 => return Poll::Ready(Err(NbdError::Io(Arc::new(io::ErrorKind::WriteZero.into())))),
                    sent => drop(self.outgoing.drain(..sent)),
                }
            }
            // A requester that was dropped needs no reply.
            while self.waiting.front().is_some_and(|next| next.reply.is_closed()) {
                self.waiting.pop_front();
            }
            let Some(next) = self.waiting.pop_front() else { return Poll::Ready(Ok(())) };
            if !self.in_flight.has_room(next.len) {
                self.waiting.push_front(next);
                return Poll::Ready(Ok(()));
            }
            let (offset, len) = (next.offset, next.len);
            let cookie = self.in_flight.add(next, clock::instant() + self.timeout);
            self.outgoing.extend_from_slice(&request(CMD_READ, cookie, offset, len));
        }
    }

    /// Receives up to the end of a simple reply or a chunk.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NbdError>> {
        loop {
            ready!(self.poll_fill(cx))?;
            let next = match mem::take(&mut self.incoming) {
                Incoming::Header { bytes, filled } => self.header_received(Header::parse(&bytes[..filled])?)?,
                Incoming::Payload { chunk, bytes, .. } => self.payload_received(chunk, &bytes)?,
                Incoming::Data { cookie, is_last, .. } => self.reply_received(cookie, is_last)?,
            };
            match next {
                Some(next) => self.incoming = next,
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Receives the current part of a reply to its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NbdError>> {
        let stream = &mut self.stream;
        match &mut self.incoming {
            Incoming::Header { bytes, filled } => {
                ready!(poll_fill(stream, cx, &mut bytes[..MAGIC_LEN], filled))?;
                let [m0, m1, m2, m3, ..] = *bytes;
                let len = Header::len([m0, m1, m2, m3])?;
                poll_fill(stream, cx, &mut bytes[..len], filled)
            }
            Incoming::Payload { bytes, filled, .. } => poll_fill(stream, cx, bytes, filled),
            Incoming::Data { cookie, range, .. } => {
                let buffer = self.in_flight.buffer(*cookie)?;
                poll_fill(stream, cx, buffer.get_mut(..range.end).unwrap_or_default(), &mut range.start)
            }
        }
    }

    /// Returns the part of the reply that follows its header; `None` if the reply or chunk ends here.
    fn header_received(&mut self, header: Header) -> Result<Option<Incoming>, NbdError> {
        let chunk = match header {
            Header::Simple { error: 0, cookie } => {
                let (offset, len) = self.in_flight.requested(cookie)?;
                let range = self.in_flight.place(cookie, offset, len)?;
                return Ok(Some(Incoming::Data { cookie, is_last: true, range }));
            }
            Header::Simple { error, cookie } => {
                self.in_flight.fail(cookie, error, String::new())?;
                return self.reply_received(cookie, true);
            }
            Header::Chunk(_) if !self.structured => return Err(NbdError::UnexpectedStructuredReply),
            Header::Chunk(chunk) => chunk,
        };
        let payload_len = match (chunk.reply_type, chunk.len) {
            (REPLY_TYPE_NONE, 0) if chunk.is_last => return self.reply_received(chunk.cookie, true),
            (REPLY_TYPE_OFFSET_DATA, 9..) => 8,
            (REPLY_TYPE_OFFSET_HOLE, 12) => 12,
            (REPLY_TYPE_ERROR.., len @ ..=MAX_ERROR_LEN) => len,
            _ => return Err(NbdError::InvalidReply),
        };
        Ok(Some(Incoming::Payload { chunk, bytes: vec![0; payload_len as usize], filled: 0 }))
    }

    /// Returns the data that follows the payload of a chunk; `None` if the chunk ends here.
    fn payload_received(&mut self, chunk: Chunk, payload: &[u8]) -> Result<Option<Incoming>, NbdError> {
        let Chunk { cookie, is_last, reply_type, len } = chunk;
        let mut fields = Fields(payload);
        match reply_type {
            REPLY_TYPE_OFFSET_DATA => {
                let range = self.in_flight.place(cookie, fields.u64()?, len - 8)?;
                return Ok(Some(Incoming::Data { cookie, is_last, range }));
            }
            REPLY_TYPE_OFFSET_HOLE => {
                let range = self.in_flight.place(cookie, fields.u64()?, fields.u32()?)?;
                self.in_flight.buffer(cookie)?.get_mut(range).unwrap_or_default().fill(0);
            }
            _ => {
                let (error, text) = parse_error(payload)?;
                self.in_flight.fail(cookie, error, text)?;
            }
        }
        self.reply_received(cookie, is_last)
    }

    /// Completes the request if this was the end of its reply.
    fn reply_received(&mut self, cookie: u64, is_last: bool) -> Result<Option<Incoming>, NbdError> {
        if is_last {
            self.in_flight.complete(cookie)?;
        }
        Ok(None)
    }
}

/// Reads until `filled` reaches the end of `buffer`.
fn poll_fill(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut [u8],
    filled: &mut usize,
) -> Poll<Result<(), NbdError>> {
    while let Some(rest) = buffer.get_mut(*filled..).filter(|rest| !rest.is_empty()) {
        match ready!(Pin::new(&mut *stream).poll_read(cx, rest)) {
            Ok(0) => return Poll::Ready(Err(NbdError::Closed)),
            Ok(received) => *filled += received,
            // The end of a connection whose end TLS did not announce.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Err(NbdError::Closed)),
            Err(error) => return Poll::Ready(Err(error.into())),
        }
    }
    Poll::Ready(Ok(()))
}
