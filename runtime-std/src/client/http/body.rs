//! Receiving the body of a response (RFC 9112 sections 6 and 7).

use std::time::Duration;

use rtftp_core::{BlockSink, WriteFailed};

use super::{
    connection::{Connection, ReceiveError},
    response::{Framing, MAX_FIELDS, MAX_HEAD},
};

/// The longest line with the size of a chunk, in bytes.
const MAX_CHUNK_LINE: usize = 4096;

/// The reason why a body is not complete.
#[derive(Debug)]
pub(super) enum BodyError {
    Receive(ReceiveError),
    Violation(&'static str),
    Sink(WriteFailed),
}

/// A body that is being received.
pub(super) struct Body<'a, S, P> {
    pub(super) connection: &'a mut Connection,
    pub(super) patience: Duration,
    pub(super) sink: &'a mut S,
    /// The number of bytes of the file so far.
    pub(super) bytes: u64,
    /// Is called with that number.
    pub(super) progress: P,
}

impl<S: BlockSink, P: FnMut(u64)> Body<'_, S, P> {
    /// Receives the whole body.
    pub(super) async fn receive(&mut self, framing: Framing) -> Result<(), BodyError> {
        match framing {
            Framing::Length(len) => self.receive_bytes(len).await,
            Framing::Chunked => self.receive_chunks().await,
            Framing::Close => match self.receive_bytes(u64::MAX).await {
                Err(BodyError::Receive(ReceiveError::Disconnected(None))) => Ok(()),
                result => result,
            },
        }
    }

    /// Receives `len` bytes of the file.
    async fn receive_bytes(&mut self, mut len: u64) -> Result<(), BodyError> {
        while len > 0 {
            if self.connection.received().is_empty() {
                self.receive_more().await?;
            }
            let received = self.connection.received();
            let piece = &received[..received.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
            self.sink.write(self.bytes, piece).map_err(BodyError::Sink)?;
            let piece = piece.len();
            self.connection.consume(piece);
            (self.bytes, len) = (self.bytes + piece as u64, len - piece as u64);
            (self.progress)(self.bytes);
        }
        Ok(())
    }

    async fn receive_chunks(&mut self) -> Result<(), BodyError> {
        loop {
            let len = loop {
                match httparse::parse_chunk_size(self.connection.received()) {
                    Ok(httparse::Status::Complete((line, len))) => {
                        self.connection.consume(line);
                        break len;
                    }
                    Ok(httparse::Status::Partial) if self.connection.received().len() < MAX_CHUNK_LINE => {
                        self.receive_more().await?;
                    }
                    _ => return Err(BodyError::Violation("the size of a chunk is malformed")),
                }
            };
            if len == 0 {
                return self.receive_trailer().await;
            }
            self.receive_bytes(len).await?;
            while self.connection.received().len() < 2 {
                self.receive_more().await?;
            }
            if !self.connection.received().starts_with(b"\r\n") {
                return Err(BodyError::Violation("a chunk is longer than its size"));
            }
            self.connection.consume(2);
        }
    }

    /// Receives the fields after the last chunk, which are ignored.
    async fn receive_trailer(&mut self) -> Result<(), BodyError> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            match httparse::parse_headers(self.connection.received(), &mut fields) {
                Ok(httparse::Status::Complete((len, _))) => {
                    self.connection.consume(len);
                    return Ok(());
                }
                Ok(httparse::Status::Partial) if self.connection.received().len() < MAX_HEAD => {
                    self.receive_more().await?;
                }
                _ => return Err(BodyError::Violation("the trailer is malformed")),
            }
        }
    }

    async fn receive_more(&mut self) -> Result<(), BodyError> {
        self.connection.receive(self.patience).await.map_err(BodyError::Receive)
    }
}
