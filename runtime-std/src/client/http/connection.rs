//! A connection to an HTTP server, with a buffer of what was received.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use futures_rustls::client::TlsStream;
use rustls::ProtocolVersion;
use smol::{
    Async,
    io::{AsyncReadExt, AsyncWriteExt},
};

use super::{
    error::HttpError,
    tls::{Trust, remedy},
};
use crate::clock::within;

/// The size of the receive buffer in bytes.
const RECEIVE_BUFFER: usize = 256 << 10;

/// The bytes of a connection, with or without TLS.
#[derive(Debug)]
enum Transport {
    Plain(Async<TcpStream>),
    Tls(Box<TlsStream<Async<TcpStream>>>),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    pub(super) server: SocketAddr,
    /// Whether a response was received completely before.
    pub(super) is_reused: bool,
    buf: Box<[u8]>,
    /// The part of the buffer that is not consumed.
    start: usize,
    end: usize,
}

/// The reason why no more was received.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// The server has closed the connection, or the network has failed.
    Disconnected(Option<io::Error>),
    /// Nothing came in time.
    TimedOut,
}

impl Connection {
    /// Connects to a server.
    pub(super) async fn open(server: SocketAddr, patience: Duration) -> Result<Self, HttpError> {
        let stream = within(patience, Async::<TcpStream>::connect(server)).await;
        let stream =
            stream.ok_or(HttpError::NoAnswer { server })?.map_err(|error| HttpError::Unreachable { server, error })?;
        let (transport, buf) = (Transport::Plain(stream), vec![0; RECEIVE_BUFFER].into());
        Ok(Self { transport, server, is_reused: false, buf, start: 0, end: 0 })
    }

    /// Encrypts the connection. The certificate must be one for `host`.
    pub(super) async fn encrypt(self, trust: &Trust, host: &str, patience: Duration) -> Result<Self, HttpError> {
        let server = self.server;
        let Transport::Plain(stream) = self.transport else { return Ok(self) };
        let stream = within(patience, trust.connect(host, stream)).await.ok_or(HttpError::NoAnswer { server })?;
        let stream = stream.map_err(|error| HttpError::Tls { server, remedy: remedy(&error), error })?;
        Ok(Self { transport: Transport::Tls(stream), ..self })
    }

    /// Returns the version of TLS, if the connection is encrypted.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => Some("1.3"),
                _ => Some("1.2"),
            },
        }
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, request: &[u8], patience: Duration) -> Result<(), ReceiveError> {
        let sent = within(patience, async {
            match &mut self.transport {
                Transport::Plain(stream) => stream.write_all(request).await,
                Transport::Tls(stream) => {
                    stream.write_all(request).await?;
                    stream.flush().await
                }
            }
        });
        sent.await.ok_or(ReceiveError::TimedOut)?.map_err(|error| ReceiveError::Disconnected(Some(error)))
    }

    /// Returns the bytes that were received and not consumed.
    pub(super) fn received(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Consumes received bytes.
    pub(super) fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
    }

    /// Receives more bytes. The caller consumes enough that the buffer has space.
    pub(super) async fn receive(&mut self, patience: Duration) -> Result<(), ReceiveError> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let buf = &mut self.buf[self.end..];
        let read = async {
            match &mut self.transport {
                Transport::Plain(stream) => stream.read(buf).await,
                Transport::Tls(stream) => stream.read(buf).await,
            }
        };
        match within(patience, read).await.ok_or(ReceiveError::TimedOut)? {
            Ok(0) => Err(ReceiveError::Disconnected(None)),
            Ok(len) => {
                self.end += len;
                Ok(())
            }
            Err(error) => Err(ReceiveError::Disconnected(Some(error))),
        }
    }
}
