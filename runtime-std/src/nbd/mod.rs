//! A client of NBD servers that only reads: fixed newstyle handshake, simple and structured replies, many requests at a time.

mod connection;
mod handshake;
mod inflight;
#[cfg(test)]
mod script;
mod tcp;
#[cfg(test)]
mod tests;
mod wire;

use std::{io, mem, os::fd::OwnedFd, sync::Arc, time::Duration};

use rtftp_core::config::uri::{NbdServer, NbdUri};
use smol::{
    Async, Executor,
    io::{AsyncRead, AsyncWrite, BufReader},
    net::unix::UnixStream,
};

pub use self::handshake::Export;
use self::{connection::Connection, tcp::QuickAck};
use crate::{
    clock::within,
    error::Unavailable,
    event_loop,
    event_loop::EventLoop,
    fs::{BlockDevice, Error, ReadFuture},
};

/// How long a [`check`] may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// How much is read at once beside the data, in bytes: the head of any reply, so that data goes straight where it belongs.
const HEAD: usize = 32;

/// An open export of an NBD server.
///
/// A server that is late, hangs up or does not keep to the protocol is never spoken to again: all readings under way and all later
/// ones end in the same [`Error::Io`]. The connection ends when this is dropped.
#[derive(Debug)]
pub struct NbdClient {
    export: Export,
    connection: Connection,
}

impl NbdClient {
    /// Connects to a server and opens an export.
    ///
    /// `limit` is how long that may take in all, and later how long the server may take for each answer.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] says what is wrong with the network, the server or the export.
    pub async fn connect(url: &NbdUri, limit: Duration, executor: &Executor<'static>) -> Result<Self, Unavailable> {
        Self::connect_on(None, url, limit, executor).await
    }

    /// Connects as [`connect`](Self::connect) does, and waits for the server's answers in an event loop, if there is one.
    pub(crate) async fn connect_on(
        event_loop: Option<&Arc<EventLoop>>,
        url: &NbdUri,
        limit: Duration,
        executor: &Executor<'static>,
    ) -> Result<Self, Unavailable> {
        let open = async { Self::open(dial(&url.server, event_loop).await?, &url.export, limit, executor).await };
        within(limit, open).await.map_err(|error| unavailable(url, &error))
    }

    /// Opens an export of a server that is connected already. See [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// What is wrong with the connection, the server or the export, in words.
    pub async fn from_stream(
        server: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        export: &str,
        limit: Duration,
        executor: &Executor<'static>,
    ) -> io::Result<Self> {
        within(limit, Self::open(Box::new(server), export, limit, executor)).await
    }

    /// What the server said of the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Whether the connection works, as far as is known; once `false`, it stays so.
    pub fn is_alive(&self) -> bool {
        self.connection.is_alive()
    }

    async fn open(
        server: Box<dyn Stream>,
        export: &str,
        limit: Duration,
        executor: &Executor<'static>,
    ) -> io::Result<Self> {
        let mut server = BufReader::with_capacity(HEAD, server);
        let export = handshake::go(&mut server, export).await?;
        let connection = Connection::start(server, export.structured, limit, executor);
        Ok(Self { export, connection })
    }
}

impl BlockDevice for NbdClient {
    fn size(&self) -> u64 {
        self.export.size
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        self.read_into(vec![], offset, len)
    }

    fn read_into(&self, mut spare: Vec<u8>, offset: u64, len: usize) -> ReadFuture<'_> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.export.size);
        let Some(end) = end.filter(|_| len > 0) else {
            let nothing = end.map(|_| vec![]).ok_or_else(|| Error::Io("behind the end of the disk".into()));
            return Box::pin(async { nothing });
        };
        let Export { size, min_block, max_request, .. } = self.export;
        let start = offset - offset % u64::from(min_block);
        // A disk that does not end with a block is read to its end all the same.
        let end = end.next_multiple_of(min_block.into()).min(size);
        let answers: Vec<_> = (start..end)
            .step_by(max_request as usize)
            .map(|at| {
                let len = u32::try_from(end - at).map_or(max_request, |rest| rest.min(max_request));
                // The first piece, which nearly always is all.
                self.connection.read(mem::take(&mut spare), at, len)
            })
            .collect();
        Box::pin(async move {
            let mut bytes = vec![];
            for answer in answers {
                let piece = answer.recv().await.unwrap_or_else(|_| Err(self.connection.lost()))?;
                if bytes.is_empty() {
                    bytes = piece;
                } else {
                    bytes.extend_from_slice(&piece);
                }
            }
            bytes.drain(..(offset - start) as usize);
            bytes.truncate(len);
            Ok(bytes)
        })
    }
}

/// Asks the server for the export and hangs up. Tells in milliseconds what an appliance takes seconds to find out, in words.
pub(super) async fn check(url: &NbdUri) -> Result<(), Unavailable> {
    let look = async {
        handshake::look(&mut BufReader::with_capacity(HEAD, dial(&url.server, None).await?), &url.export).await
    };
    within(CHECK_LIMIT, look).await.map_err(|error| unavailable(url, &error))
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects to a server, whose words are then waited for in an event loop, if there is one.
async fn dial(server: &NbdServer, event_loop: Option<&Arc<EventLoop>>) -> io::Result<Box<dyn Stream>> {
    Ok(match (server, event_loop) {
        (NbdServer::Tcp { host, port }, None) => Box::new(QuickAck(tcp::connect(host, *port).await?)),
        (NbdServer::Tcp { host, port }, Some(event_loop)) => {
            let stream: Arc<Async<_>> = tcp::connect(host, *port).await?.into();
            Box::new(QuickAck(event_loop::Stream::new(event_loop, bare(stream)?)))
        }
        (NbdServer::Unix(path), None) => Box::new(UnixStream::connect(path.as_str()).await?),
        (NbdServer::Unix(path), Some(event_loop)) => {
            let stream: Arc<Async<_>> = UnixStream::connect(path.as_str()).await?.into();
            Box::new(event_loop::Stream::new(event_loop, bare(stream)?))
        }
    })
}

/// Takes a socket out of smol's hands.
fn bare<T: Into<OwnedFd>>(stream: Arc<Async<T>>) -> io::Result<OwnedFd> {
    let stream = Arc::into_inner(stream).ok_or_else(|| io::Error::other("a new connection is in use already"))?;
    Ok(stream.into_inner()?.into())
}

fn unavailable(url: &NbdUri, error: &io::Error) -> Unavailable {
    Unavailable { to_client: "the disk of this client cannot be reached", reason: format!("{url}: {error}") }
}
