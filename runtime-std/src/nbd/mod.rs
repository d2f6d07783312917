//! A read-only client of NBD servers: fixed newstyle handshake, TLS, simple and structured replies, many requests in flight.

mod connect;
mod connection;
mod error;
mod handshake;
mod in_flight;
mod latency;
mod lookahead;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
pub(crate) mod simulated;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod transmission;
mod transport;
mod wire;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rtftp_core::config::uri::NbdUri;
use smol::{
    Executor,
    channel::Receiver,
    io::{AsyncRead, AsyncWrite},
};

use self::{
    connect::{Limit, Negotiation},
    connection::Connection,
};
pub use self::{error::NbdError, handshake::Export, tls::TlsError};
pub(crate) use self::{latency::READ_LATENCY, target::Target};
use crate::{
    buffer::Buffer,
    event_loop::EventLoop,
    fs::{BlockDevice, ReadFuture},
};

/// The maximum number of requests that one read makes at the same time, if the server accepts only short ones.
const MAX_PIECES: usize = 8;
/// The time limit of [`probe`].
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// `timeout` limits the whole of that, and later each reply. Relative paths in the URI refer to the working directory.
    ///
    /// # Errors
    ///
    /// [`NbdError`].
    pub async fn connect(url: &NbdUri, timeout: Duration, executor: &Executor<'static>) -> Result<Self, NbdError> {
        Self::connect_on(None, Target::of(url), (timeout, timeout), executor).await
    }

    /// Connects like [`connect`](Self::connect), with the socket registered with an event loop if there is one. The first time limit
    /// is that of connecting, the second one that of each reply.
    pub(crate) async fn connect_on(
        event_loop: Option<&Arc<EventLoop>>,
        target: Target<'_>,
        (limit, timeout): (Duration, Duration),
        executor: &Executor<'static>,
    ) -> Result<Self, NbdError> {
        let limit = Limit::new(limit);
        let negotiation = Negotiation::start(target, event_loop, limit).await?;
        Self::open(negotiation, &target.url.export, limit, timeout, executor).await
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
        let limit = Limit::new(timeout);
        let negotiation = Negotiation::greet(Box::new(stream), limit).await?;
        Self::open(negotiation, export, limit, timeout, executor).await
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
        negotiation: Negotiation,
        export: &str,
        limit: Limit,
        timeout: Duration,
        executor: &Executor<'static>,
    ) -> Result<Self, NbdError> {
        let (stream, export) = negotiation.open(export, limit).await?;
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
    Negotiation::start(Target::of(url), None, limit).await?.probe(&url.export, limit).await
}
