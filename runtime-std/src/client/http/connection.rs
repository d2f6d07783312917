//! A connection to an HTTP server, with a buffer of what was received.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use smol::{
    Async,
    io::{AsyncReadExt, AsyncWriteExt},
};

use super::error::HttpError;
use crate::clock::within;

/// The size of the receive buffer in bytes.
const RECEIVE_BUFFER: usize = 256 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Async<TcpStream>,
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
        let buf = vec![0; RECEIVE_BUFFER].into();
        Ok(Self { stream, server, is_reused: false, buf, start: 0, end: 0 })
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, request: &[u8], patience: Duration) -> Result<(), ReceiveError> {
        let sent = within(patience, self.stream.write_all(request)).await;
        sent.ok_or(ReceiveError::TimedOut)?.map_err(|error| ReceiveError::Disconnected(Some(error)))
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
        let read = self.stream.read(&mut self.buf[self.end..]);
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
