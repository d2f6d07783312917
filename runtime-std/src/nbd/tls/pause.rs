//! Lets other tasks run while a server sends without a pause.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use smol::io::{AsyncRead, AsyncWrite};

/// The number of reads between pauses.
const READS: u8 = 16;

/// A stream that is not ready once after each [`READS`] reads.
///
/// TLS reads until it has data, but records may contain none: a server could keep a task, and all others of its thread, busy for ever.
#[derive(Debug)]
pub(super) struct Pausing<S> {
    stream: S,
    reads: u8,
}

impl<S> Pausing<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, reads: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pausing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.reads == READS {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let received = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.reads = if received.is_ready() { self.reads + 1 } else { 0 };
        received
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pausing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use smol::{block_on, future::poll_once, io::AsyncReadExt};

    use super::*;

    #[test]
    fn pauses_while_the_server_does_not() {
        let mut stream = Pausing::new(smol::io::repeat(7));
        block_on(async {
            for _ in 0..3 {
                for _ in 0..READS {
                    assert_eq!(stream.read(&mut [0; 4]).await.expect("received"), 4);
                }
                assert!(poll_once(stream.read(&mut [0; 4])).await.is_none(), "no pause");
            }
        });
    }
}
