//! A connection to an NBD server that sends the same bytes whatever it receives.

use std::{
    io::{self, IoSliceMut},
    pin::Pin,
    task::{Context, Poll},
};

use smol::io::{AsyncRead, AsyncWrite, Cursor};

/// A server that ignores requests.
pub(crate) struct ScriptedStream {
    current: Cursor<Vec<u8>>,
    repeated: Vec<u8>,
}

impl ScriptedStream {
    /// Sends `first` once, then `repeated` again and again. If `repeated` is empty, closes the connection instead.
    pub(crate) fn new(first: Vec<u8>, repeated: Vec<u8>) -> Self {
        Self { current: Cursor::new(first), repeated }
    }
}

impl AsyncRead for ScriptedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(cx, &mut [IoSliceMut::new(buf)])
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.current.position() == self.current.get_ref().len() as u64 {
            self.current = Cursor::new(self.repeated.clone());
        }
        Pin::new(&mut self.current).poll_read_vectored(cx, bufs)
    }
}

impl AsyncWrite for ScriptedStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
