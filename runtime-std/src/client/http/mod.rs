//! Fetches files over HTTP (RFC 9110, RFC 9112), one after the other over one connection. Also calls APIs with JSON.

mod body;
mod buffer;
mod connection;
mod error;
mod response;
mod tls;

use std::{net::SocketAddr, time::Duration};

use rtftp_core::BlockSink;
use smol::future::or;

use self::{
    body::{Body, BodyError},
    connection::{Connection, ReceiveError},
    response::{Framing, Response},
};
pub use self::{
    buffer::BodyBuffer,
    error::HttpError,
    tls::{Trust, TrustError},
};
use super::{address::resolve, url::Url};

/// The most interim responses (1xx) before a response.
const MAX_INTERIM: usize = 8;
/// The program and its version, for the server's log.
const USER_AGENT: &str = concat!("rtftp-get/", env!("CARGO_PKG_VERSION"));

/// A fetched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFetched {
    /// The size in bytes.
    pub bytes: u64,
    /// The size that the server announced: `Content-Length`.
    pub size: Option<u64>,
    /// Whether the file ended with the connection, so that a part of it cannot be told from all of it.
    pub ended_by_close: bool,
    /// The media type, printable.
    pub content_type: Option<String>,
}

/// An event of a fetch.
#[derive(Debug, Clone, Copy)]
pub enum HttpEvent<'a> {
    /// The connection is open.
    Connected(SocketAddr),
    /// The connection is encrypted with this version of TLS.
    Encrypted(SocketAddr, &'a str),
    /// The connection of the previous fetch is used.
    Reused(SocketAddr),
    /// The head of a request was sent.
    Sent(SocketAddr, &'a [u8]),
    /// The head of a response was received.
    Received(SocketAddr, &'a [u8]),
    /// Bytes of the file were received.
    Progress {
        /// The server.
        server: SocketAddr,
        /// The number of bytes so far.
        bytes: u64,
        /// The size that the server announced.
        size: Option<u64>,
    },
    /// The file is complete.
    Complete(SocketAddr, u64),
}

/// A client, which keeps its connection for the next file of the same server.
#[derive(Debug)]
pub struct HttpClient {
    /// The time without any received byte after which the client gives up.
    patience: Duration,
    trust: Option<Trust>,
    /// The open connection, and the origin of the URLs that it serves.
    kept: Option<(Connection, String)>,
}

impl HttpClient {
    /// Creates a client that gives up after `patience` without any received byte. `https://` needs `trust`.
    #[must_use]
    pub fn new(patience: Duration, trust: Option<Trust>) -> Self {
        Self { patience, trust, kept: None }
    }

    /// Fetches a file into `sink`. If `stop` completes first, the connection is closed. `watch` is called after each event.
    ///
    /// # Errors
    ///
    /// Returns [`HttpError`]; the sink then contains at most a part of the file.
    pub async fn fetch(
        &mut self,
        url: &Url,
        sink: &mut impl BlockSink,
        stop: impl Future<Output = ()>,
        watch: impl FnMut(HttpEvent<'_>),
    ) -> Result<HttpFetched, HttpError> {
        or(self.transfer(url, sink, watch), async {
            stop.await;
            Err(HttpError::Interrupted)
        })
        .await
    }

    async fn transfer(
        &mut self,
        url: &Url,
        sink: &mut impl BlockSink,
        mut watch: impl FnMut(HttpEvent<'_>),
    ) -> Result<HttpFetched, HttpError> {
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: identity\r\n\r\n",
            url.target(),
            url.host_header()
        );
        let (connection, response) = self.request(url, head.as_bytes(), &mut watch).await?;
        if response.status != 200 {
            let Response { status, reason, location, retry_after, .. } = response;
            return Err(HttpError::Refused { server: connection.server, status, reason, location, retry_after });
        }
        self.receive(url, connection, response, self.patience, sink, watch).await
    }

    /// Posts JSON, and receives the body of the answer into `sink`, whatever its status, which is returned. Gives up after `silence`
    /// without any received byte of the body. `fields` are further header lines.
    ///
    /// # Errors
    ///
    /// Returns [`HttpError`]; the sink then contains at most a part of the body.
    pub async fn post_json(
        &mut self,
        url: &Url,
        fields: &[(&str, &str)],
        json: &[u8],
        sink: &mut impl BlockSink,
        silence: Duration,
    ) -> Result<u16, HttpError> {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{fields}\r\n",
            url.target(),
            url.host_header(),
            json.len()
        );
        let (connection, response) = self.request(url, &[head.as_bytes(), json].concat(), &mut |_| ()).await?;
        let status = response.status;
        self.receive(url, connection, response, silence, sink, |_| ()).await?;
        Ok(status)
    }

    /// Receives the body of a response, and keeps the connection if it can be used again.
    async fn receive(
        &mut self,
        url: &Url,
        mut connection: Connection,
        response: Response,
        patience: Duration,
        sink: &mut impl BlockSink,
        mut watch: impl FnMut(HttpEvent<'_>),
    ) -> Result<HttpFetched, HttpError> {
        let server = connection.server;
        let size = match response.framing {
            Framing::Length(size) => Some(size),
            Framing::Chunked | Framing::Close => None,
        };
        let progress = |bytes| watch(HttpEvent::Progress { server, bytes, size });
        let mut body = Body { connection: &mut connection, patience, sink, bytes: 0, progress };
        let received = body.receive(response.framing).await;
        let bytes = body.bytes;
        received.map_err(|error| match error {
            BodyError::Receive(ReceiveError::TimedOut) => HttpError::TimedOut { server, bytes },
            BodyError::Receive(ReceiveError::Disconnected(error)) => {
                HttpError::Disconnected { server, bytes: Some(bytes), size, error }
            }
            BodyError::Violation(problem) => HttpError::ProtocolViolation { server, problem },
            BodyError::Sink(failed) => HttpError::Sink(failed),
        })?;
        watch(HttpEvent::Complete(server, bytes));
        // What follows the body is no response to any request.
        if response.keep_alive && connection.received().is_empty() {
            connection.is_reused = true;
            self.kept = Some((connection, url.origin()));
        }
        let ended_by_close = response.framing == Framing::Close;
        Ok(HttpFetched { bytes, size, ended_by_close, content_type: response.content_type })
    }

    /// Sends a request. Returns the connection and the head of the response.
    async fn request(
        &mut self,
        url: &Url,
        request: &[u8],
        watch: &mut impl FnMut(HttpEvent<'_>),
    ) -> Result<(Connection, Response), HttpError> {
        loop {
            let mut connection = match self.kept.take() {
                Some((connection, origin)) if origin == url.origin() => {
                    watch(HttpEvent::Reused(connection.server));
                    connection
                }
                _ => self.connect(url, watch).await?,
            };
            let server = connection.server;
            let response = match connection.send(request, self.patience).await {
                Ok(()) => {
                    watch(HttpEvent::Sent(server, request));
                    self.response(&mut connection, watch).await
                }
                Err(error) => Err(ResponseError::Receive(error)),
            };
            return match response {
                Ok(response) => Ok((connection, response)),
                // The server has closed a connection that it did not need any more.
                Err(ResponseError::Receive(ReceiveError::Disconnected(_)))
                    if connection.is_reused && connection.received().is_empty() =>
                {
                    continue;
                }
                Err(ResponseError::Receive(ReceiveError::Disconnected(error))) => {
                    Err(HttpError::Disconnected { server, bytes: None, size: None, error })
                }
                Err(ResponseError::Receive(ReceiveError::TimedOut)) => Err(HttpError::NoAnswer { server }),
                Err(ResponseError::Violation(problem)) => Err(HttpError::ProtocolViolation { server, problem }),
            };
        }
    }

    /// Connects to the first reachable address of the server.
    async fn connect(&self, url: &Url, watch: &mut impl FnMut(HttpEvent<'_>)) -> Result<Connection, HttpError> {
        let mut last_error = HttpError::Interrupted;
        let trust = match url.is_secure() {
            true => Some(self.trust.as_ref().ok_or(HttpError::NoTrust)?),
            false => None,
        };
        for server in resolve(url.authority(), url.default_port()).await.map_err(HttpError::Resolve)? {
            match Connection::open(server, self.patience).await {
                Ok(connection) => {
                    watch(HttpEvent::Connected(server));
                    let Some(trust) = trust else { return Ok(connection) };
                    let connection = connection.encrypt(trust, url.host(), self.patience).await?;
                    connection.tls_version().iter().for_each(|version| watch(HttpEvent::Encrypted(server, version)));
                    return Ok(connection);
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// Receives the head of a response.
    async fn response(
        &self,
        connection: &mut Connection,
        watch: &mut impl FnMut(HttpEvent<'_>),
    ) -> Result<Response, ResponseError> {
        let mut interim = 0;
        while interim <= MAX_INTERIM {
            match response::parse(connection.received()).map_err(ResponseError::Violation)? {
                Some((response, len)) => {
                    watch(HttpEvent::Received(connection.server, &connection.received()[..len]));
                    connection.consume(len);
                    if response.status >= 200 {
                        return Ok(response);
                    }
                    interim += 1;
                }
                None => connection.receive(self.patience).await.map_err(ResponseError::Receive)?,
            }
        }
        Err(ResponseError::Violation("too many interim responses"))
    }
}

/// The reason why there is no response.
enum ResponseError {
    Receive(ReceiveError),
    Violation(&'static str),
}
