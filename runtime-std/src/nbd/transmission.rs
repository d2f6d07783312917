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
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    stream::Stream,
};

use super::{
    NbdError,
    in_flight::{InFlight, Request},
    lookahead::Lookahead,
    wire::{
        CMD_DISC, CMD_READ, Chunk, DATA_HEADER_LEN, Fields, Header, MAGIC_LEN, MAX_ERROR_LEN, MAX_HEADER_LEN,
        REPLY_TYPE_ERROR, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, SIMPLE_HEADER_LEN,
        parse_error, request,
    },
};
use crate::{
    buffer::BufferPool,
    clock::{self, Timer},
};

/// The number of bytes that are received into the buffer of a request in the expectation that they are its data.
const MAX_EXPECTED: usize = 32 << 10;

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
            let stream = transmission.connection.writer();
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
    connection: Lookahead<S>,
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
    pub(super) fn new(stream: BufReader<S>, structured: bool, timeout: Duration, pool: BufferPool) -> Self {
        Self {
            connection: stream.into(),
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
        Pin::new(self.connection.writer()).poll_flush(cx).map_err(NbdError::from)
    }

    /// Writes the waiting requests for which there is room in flight.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NbdError>> {
        loop {
            while !self.outgoing.is_empty() {
                match ready!(Pin::new(self.connection.writer()).poll_write(cx, &self.outgoing))? {
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
        if matches!(self.incoming, Incoming::Header { filled: 0, .. }) && self.connection.is_empty() {
            ready!(self.poll_begin(cx))?;
        }
        match &mut self.incoming {
            Incoming::Header { bytes, filled } => {
                ready!(self.connection.poll_fill(cx, &mut bytes[..MAGIC_LEN], filled))?;
                let [m0, m1, m2, m3, ..] = *bytes;
                let len = Header::len([m0, m1, m2, m3])?;
                self.connection.poll_fill(cx, &mut bytes[..len], filled)
            }
            Incoming::Payload { bytes, filled, .. } => self.connection.poll_fill(cx, bytes, filled),
            Incoming::Data { cookie, range, .. } => {
                let buffer = self.in_flight.buffer(*cookie)?;
                self.connection.poll_fill(cx, buffer.get_mut(..range.end).unwrap_or_default(), &mut range.start)
            }
        }
    }

    /// Receives the beginning of a reply. It usually is the header and the data of the oldest request, which are received at once, the
    /// data into its buffer. Anything else is read again.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NbdError>> {
        let mut header = [0; DATA_HEADER_LEN];
        let header = if self.structured { &mut header[..] } else { &mut header[..SIMPLE_HEADER_LEN] };
        let (cookie, buffer) = self.in_flight.expected().unwrap_or_default();
        let buffer_len = buffer.len().min(MAX_EXPECTED);
        let received = ready!(self.connection.poll_receive(cx, header, &mut buffer[..buffer_len]))?;
        let Some(in_buffer) = received.checked_sub(header.len()).filter(|len| *len > 0) else {
            self.connection.unread(&header[..received]);
            return Poll::Ready(Ok(()));
        };
        let expected = self.expected_data(header, cookie)?;
        let data = &self.in_flight.buffer(cookie)?[..in_buffer];
        match expected {
            Some((is_last, mut range)) => {
                let (_, behind) = data.split_at_checked(range.len()).unwrap_or((data, &[]));
                self.connection.unread(behind);
                range.start += in_buffer - behind.len();
                self.incoming = Incoming::Data { cookie, is_last, range };
            }
            None => {
                self.connection.unread(data);
                self.connection.unread(header);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Returns whether a reply ends with the data that follows `header`, and the place of the data in the buffer; `None` if it is not
    /// the data at the start of this request.
    fn expected_data(&mut self, header: &[u8], cookie: u64) -> Result<Option<(bool, Range<usize>)>, NbdError> {
        let (offset, len) = self.in_flight.requested(cookie)?;
        let (found, is_last, len) = match Header::parse(header) {
            Ok(Header::Simple { error: 0, cookie }) if !self.structured => (cookie, true, len),
            Ok(Header::Chunk(Chunk { is_last, reply_type: REPLY_TYPE_OFFSET_DATA, cookie, len: len @ 9.. }))
                if self.structured && header.ends_with(&offset.to_be_bytes()) =>
            {
                (cookie, is_last, len - 8)
            }
            // The reason for an invalid header is found when it is read again.
            _ => return Ok(None),
        };
        if found != cookie {
            return Ok(None);
        }
        self.in_flight.place(cookie, offset, len).map(|range| Some((is_last, range)))
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
