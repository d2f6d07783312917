//! A read-only client of NBD servers: fixed newstyle handshake, simple and structured replies, many requests in flight.

mod error;
mod handshake;
mod in_flight;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;
mod transmission;
mod transport;
mod wire;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::config::uri::NbdUri;
use smol::{
    Executor,
    channel::Receiver,
    io::{AsyncRead, AsyncWrite, BufReader},
};

pub use self::{error::NbdError, handshake::Export};
use self::{
    transmission::Connection,
    transport::{BoxedStream, connect},
};
use crate::{
    buffer::Buffer,
    clock,
    event_loop::EventLoop,
    fs::{BlockDevice, ReadFuture},
};

/// The maximum number of requests that one read makes at the same time, if the server accepts only short ones.
const MAX_PIECES: usize = 8;
/// The time limit of [`probe`].
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The size of the buffer for what is not data, in bytes: it holds any header, and data is received straight into its buffer.
const HEADER_BUFFER: usize = 32;

/// A connection to an open export of an NBD server.
///
/// A connection is lost for good when the server is late, closes it or violates the protocol: all pending and later reads fail
/// with [`NbdError::ConnectionLost`]. Dropping the client disconnects.
#[derive(Debug)]
pub struct NbdClient {
    export: Export,
    connection: Connection,
}

impl NbdClient {
    /// Connects to a server and opens an export.
    ///
    /// `timeout` limits the whole of that, and later each reply.
    ///
    /// # Errors
    ///
    /// [`NbdError`].
    pub async fn connect(url: &NbdUri, timeout: Duration, executor: &Executor<'static>) -> Result<Self, NbdError> {
        Self::connect_on(None, url, (timeout, timeout), executor).await
    }

    /// Connects like [`connect`](Self::connect), with the socket registered with an event loop if there is one. The first time limit
    /// is that of connecting, the second one that of each reply.
    pub(crate) async fn connect_on(
        event_loop: Option<&Arc<EventLoop>>,
        url: &NbdUri,
        (limit, timeout): (Duration, Duration),
        executor: &Executor<'static>,
    ) -> Result<Self, NbdError> {
        let limit = Limit::new(limit);
        let stream = limit.apply(connect(&url.server, event_loop)).await?;
        Self::open(stream, &url.export, limit, timeout, executor).await
    }

    /// Opens an export over an existing connection. See [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// [`NbdError`].
    pub async fn from_stream(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        export: &str,
        timeout: Duration,
        executor: &Executor<'static>,
    ) -> Result<Self, NbdError> {
        Self::open(Box::new(stream), export, Limit::new(timeout), timeout, executor).await
    }

    /// Returns the description of the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Returns `false` once the connection is known to be lost.
    pub fn is_alive(&self) -> bool {
        self.connection.is_alive()
    }

    async fn open(
        stream: BoxedStream,
        export: &str,
        limit: Limit,
        timeout: Duration,
        executor: &Executor<'static>,
    ) -> Result<Self, NbdError> {
        let mut stream = BufReader::with_capacity(HEADER_BUFFER, stream);
        let no_zeroes = limit.greet(&mut stream).await?;
        let export = limit.apply(handshake::open_export(&mut stream, export, no_zeroes)).await?;
        let connection = Connection::start(stream, export.structured, timeout, executor);
        Ok(Self { export, connection })
    }
}

impl BlockDevice for NbdClient {
    fn size(&self) -> u64 {
        self.export.size
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.export.size);
        let Some(end) = end.filter(|_| len > 0) else {
            let nothing = end.map(|_| Buffer::default()).ok_or(NbdError::OutOfRange);
            return Box::pin(async { Ok(nothing?) });
        };
        let Export { size, min_block, max_request, .. } = self.export;
        let start = offset - offset % u64::from(min_block);
        // The last block of an export may be shorter than the others.
        let end = end.next_multiple_of(min_block.into()).min(size);
        let mut pieces =
            Pieces { connection: &self.connection, next: start, end, max_request, replies: VecDeque::with_capacity(1) };
        pieces.request();
        Box::pin(async move {
            let mut bytes = pieces.receive((end - start) as usize).await?;
            bytes.crop((offset - start) as usize, len);
            Ok(bytes)
        })
    }

    fn is_alive(&self) -> bool {
        self.connection.is_alive()
    }

    fn free_buffers(&self) {
        self.connection.free_buffers();
    }
}

/// A read in pieces that the server accepts, a few of them at the same time.
struct Pieces<'a> {
    connection: &'a Connection,
    /// The offset of the first piece that has not been requested.
    next: u64,
    end: u64,
    max_request: u32,
    /// The replies to the requested pieces, in the order of the disk.
    replies: VecDeque<Receiver<Result<Buffer, NbdError>>>,
}

impl Pieces<'_> {
    /// Requests pieces up to the limit.
    fn request(&mut self) {
        while self.next < self.end && self.replies.len() < MAX_PIECES {
            let len = u32::try_from(self.end - self.next).map_or(self.max_request, |rest| rest.min(self.max_request));
            self.replies.push_back(self.connection.read(self.next, len));
            self.next += u64::from(len);
        }
    }

    /// Returns the `len` bytes of all pieces.
    async fn receive(mut self, len: usize) -> Result<Buffer, NbdError> {
        let mut bytes = Buffer::default();
        while let Some(reply) = self.replies.pop_front() {
            let piece = reply.recv().await.unwrap_or_else(|_| Err(self.connection.error()))?;
            self.request();
            if bytes.is_empty() {
                bytes = piece;
                bytes.reserve(len);
            } else {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok(bytes)
    }
}

/// Checks within 5 s that a server has an export, and disconnects.
///
/// # Errors
///
/// [`NbdError`].
pub(crate) async fn probe(url: &NbdUri) -> Result<(), NbdError> {
    let limit = Limit::new(PROBE_TIMEOUT);
    let stream = limit.apply(connect(&url.server, None)).await?;
    let mut stream = BufReader::with_capacity(HEADER_BUFFER, stream);
    limit.greet(&mut stream).await?;
    limit.apply(handshake::probe_export(&mut stream, &url.export)).await
}

/// The time limit of all steps of connecting together.
#[derive(Clone, Copy)]
struct Limit {
    limit: Duration,
    deadline: Instant,
}

impl Limit {
    fn new(limit: Duration) -> Self {
        Self { limit, deadline: Instant::now() + limit }
    }

    /// Returns the result of a step, or [`NbdError::Timeout`].
    async fn apply<T, E>(self, step: impl Future<Output = Result<T, E>>) -> Result<T, NbdError>
    where
        NbdError: From<E>,
    {
        let result = clock::until(self.deadline, step).await.ok_or(NbdError::Timeout(self.limit))?;
        Ok(result?)
    }

    /// Exchanges greetings; [`NbdError::NoGreeting`] or [`NbdError::ClosedBeforeGreeting`] if the server does not.
    async fn greet(self, stream: &mut BufReader<BoxedStream>) -> Result<bool, NbdError> {
        let greeted = clock::until(self.deadline, handshake::greet(stream)).await;
        match greeted {
            Some(Err(NbdError::Closed)) => Err(NbdError::ClosedBeforeGreeting),
            Some(greeted) => greeted,
            None => Err(NbdError::NoGreeting(self.limit)),
        }
    }
}
