//! A connection that receives what probably follows together with what is needed. A call to receive costs more than itself: on a Unix
//! socket it also wakes a server that waits for the next request.

use std::{
    io::{self, IoSliceMut},
    pin::Pin,
    task::{Context, Poll, ready},
};

use smol::io::{AsyncRead, BufReader};

use super::NbdError;

/// The number of bytes that are received in addition: enough for any header, with the offset of the data that follows it.
const LOOKAHEAD: usize = 32;

/// A connection, and what has been received from it before it was needed.
pub(super) struct Lookahead<S> {
    stream: S,
    received: Vec<u8>,
    /// The number of received bytes that have been read.
    read: usize,
}

impl<S: AsyncRead> From<BufReader<S>> for Lookahead<S> {
    fn from(reader: BufReader<S>) -> Self {
        let received = reader.buffer().to_vec();
        Self { received, read: 0, stream: reader.into_inner() }
    }
}

impl<S: AsyncRead + Unpin> Lookahead<S> {
    /// Returns the connection, for writing.
    pub(super) fn writer(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Returns whether all that was received has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.read == self.received.len()
    }

    /// Reads until `filled` reaches the end of `buffer`.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> Poll<Result<(), NbdError>> {
        while let Some(rest) = buffer.get_mut(*filled..).filter(|rest| !rest.is_empty()) {
            *filled += if self.is_empty() {
                ready!(self.poll_receive(cx, rest, &mut []))?
            } else {
                let received = &self.received[self.read..];
                let len = received.len().min(rest.len());
                rest[..len].copy_from_slice(&received[..len]);
                self.read += len;
                len
            };
        }
        Poll::Ready(Ok(()))
    }

    /// Receives bytes into `first`, those that follow into `second`, and those behind them as far as they are looked ahead. Returns
    /// the number of bytes in the two buffers. Everything that was received before must have been read.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut [u8],
        second: &mut [u8],
    ) -> Poll<Result<usize, NbdError>> {
        let (len, mut ahead) = (first.len() + second.len(), [0; LOOKAHEAD]);
        let buffers = &mut [first, second, &mut ahead].map(IoSliceMut::new);
        let received = match ready!(Pin::new(&mut self.stream).poll_read_vectored(cx, buffers)) {
            Ok(0) => return Poll::Ready(Err(NbdError::Closed)),
            Ok(received) => received,
            // The end of a connection whose end TLS did not announce.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Err(NbdError::Closed)),
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        (self.received, self.read) = (ahead[..received.saturating_sub(len)].to_vec(), 0);
        Poll::Ready(Ok(received.min(len)))
    }

    /// Takes back bytes, which are read next.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        (self.received, self.read) = ([bytes, &self.received[self.read..]].concat(), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use smol::{
        Executor, block_on,
        io::{AsyncWrite, Cursor},
    };

    use super::{super::script::*, *};
    use crate::{fs::BlockDevice, nbd::NbdClient};

    /// A server that replies to each read at once, and counts how often it is received from.
    struct Server {
        sent: Cursor<Vec<u8>>,
        structured: bool,
        receives: Arc<AtomicUsize>,
    }

    impl AsyncRead for Server {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            self.poll_read_vectored(cx, &mut [IoSliceMut::new(buf)])
        }

        fn poll_read_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
        ) -> Poll<io::Result<usize>> {
            if self.sent.position() == self.sent.get_ref().len() as u64 {
                return Poll::Pending;
            }
            self.receives.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.sent).poll_read_vectored(cx, bufs)
        }
    }

    impl AsyncWrite for Server {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if let [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, request @ ..] = buf {
                let ([cookie, offset], len) = (request.as_chunks::<8>().0, &request[16..20]) else {
                    panic!("a request")
                };
                let [cookie, offset] = [cookie, offset].map(|field| u64::from_be_bytes(*field));
                let bytes = vec![cookie as u8; u32::from_be_bytes(len.try_into().expect("four bytes")) as usize];
                let reply =
                    if self.structured { data(true, cookie, offset, &bytes) } else { simple_reply(0, cookie, &bytes) };
                self.sent.get_mut().extend(reply);
            }
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_reply_is_received_at_once() {
        for structured in [false, true] {
            let info = [option_reply(7, 3, &info_export(1 << 20, 1)), option_reply(7, 1, b"")].concat();
            let structured_reply = if structured { option_reply(8, 1, b"") } else { option_reply(8, 0x8000_0001, b"") };
            let sent = Cursor::new([greeting(3), structured_reply, info].concat());
            let receives = Arc::new(AtomicUsize::new(0));
            let server = Server { sent, structured, receives: receives.clone() };
            let executor = Executor::new();
            block_on(executor.run(async {
                let limit = Duration::from_secs(5);
                let nbd = NbdClient::from_stream(server, "disk", limit, &executor).await.expect("a valid handshake");
                let handshake = receives.load(Ordering::Relaxed);
                for number in 1..=10 {
                    let bytes = nbd.read(4096 * u64::from(number), 16 << 10).await.expect("a reply");
                    assert_eq!(bytes, [number; 16 << 10]);
                }
                assert_eq!(receives.load(Ordering::Relaxed) - handshake, 10);
            }));
        }
    }
}
