//! An asynchronous stream socket.

use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use smol::io::{AsyncRead, AsyncWrite};

use super::epoll::{EventLoop, Registered};

/// The events that end a wait for data.
const READABLE: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
/// The events after which a read that returns less than it could does not show that the socket is empty: its end may follow.
const CLOSED: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// A connected stream socket, for one task. A wait takes no system call and wakes no thread but the event loop's.
#[derive(Debug)]
pub(crate) struct Stream {
    reader: Registered<OwnedFd>,
    /// Whether the last read has emptied the socket.
    is_empty: bool,
    /// Whether the peer has closed the connection, or it has failed.
    is_closed: bool,
    /// The same socket under another descriptor, registered when its send buffer is full for the first time.
    writer: OnceLock<Registered<OwnedFd>>,
}

impl Stream {
    /// Registers a connected, non-blocking socket.
    pub(crate) fn new(event_loop: &Arc<EventLoop>, socket: OwnedFd) -> Self {
        let reader = Registered::with_interest(READABLE, event_loop, Arc::new(socket));
        Self { reader, is_empty: false, is_closed: false, writer: OnceLock::new() }
    }

    /// Runs a call that sends, again each time the send buffer has space, until it succeeds or fails.
    pub(crate) async fn write_with<T>(
        &self,
        mut write: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        poll_fn(|context| match write(self.as_fd()) {
            Err(Errno::AGAIN) => {
                self.wake_on_space(context)?;
                Poll::Pending
            }
            written => Poll::Ready(Ok(written?)),
        })
        .await
    }

    /// Waits for data, and returns the first byte, which stays unread; `None` at the end.
    pub(crate) async fn peek(&mut self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let len = poll_fn(|context| {
            self.poll_receive(context, |socket| Ok(rustix::net::recv(socket, &mut first, RecvFlags::PEEK)?.0))
        })
        .await?;
        Ok((len > 0).then_some(first[0]))
    }

    /// Receives once there is data. The receiver returns the length.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        mut receive: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.is_empty {
                let events = ready!(self.reader.poll_events(READABLE, context));
                self.is_closed |= events.intersects(CLOSED);
                self.is_empty = false;
            }
            match receive(self.reader.get().as_fd()) {
                Err(Errno::AGAIN) => self.is_empty = true,
                received => return Poll::Ready(Ok(received?)),
            }
        }
    }

    /// Wakes a task once the send buffer has space.
    fn wake_on_space(&self, context: &Context<'_>) -> io::Result<()> {
        if self.writer.get().is_none() {
            let socket = Arc::new(self.reader.get().try_clone()?);
            // Cannot be set already: only one task writes.
            let _ = self.writer.set(Registered::for_sending(self.reader.event_loop(), socket));
        }
        if let Some(writer) = self.writer.get() {
            writer.wake_on(EventFlags::OUT, context);
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.get().as_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(context, &mut [IoSliceMut::new(buf)])
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let capacity: usize = bufs.iter().map(|buf| buf.len()).sum();
        let len = ready!(self.poll_receive(context, |socket| rustix::io::readv(socket, bufs)))?;
        self.is_empty = len < capacity && !self.is_closed;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match rustix::net::send(self.reader.get(), buf, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => self.wake_on_space(context)?,
            sent => return Poll::Ready(Ok(sent?)),
        }
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(self.reader.get(), rustix::net::Shutdown::Write)?))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        thread,
    };

    use smol::{
        future::{poll_once, zip},
        io::{AsyncReadExt, AsyncWriteExt},
    };

    use super::*;

    /// Returns a stream and its blocking peer.
    fn pair(event_loop: &Arc<EventLoop>) -> (Stream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a socket pair");
        near.set_nonblocking(true).expect("set");
        (Stream::new(event_loop, near.into()), far)
    }

    #[test]
    fn waits_for_data() {
        let event_loop = EventLoop::new().expect("an event loop");
        let (mut stream, mut far) = pair(&event_loop);
        let mut buf = [0; 4];
        event_loop.block_on(async {
            assert!(poll_once(stream.read(&mut buf)).await.is_none());
            // Sent from another thread, which wakes this one only through the kernel.
            let sender = thread::spawn(move || {
                far.write_all(b"abcd").expect("sent");
                far
            });
            stream.read_exact(&mut buf).await.expect("received");
            assert_eq!(&buf, b"abcd");
            drop(sender.join().expect("sent"));
            assert_eq!(stream.read(&mut buf).await.expect("end of stream"), 0);
        });
    }

    /// The end of a connection raises no second event if it has come together with the last data.
    #[test]
    fn end_after_the_last_data_is_received() {
        let event_loop = EventLoop::new().expect("an event loop");
        for close_first in [true, false] {
            let (mut stream, mut far) = pair(&event_loop);
            let mut buf = [0; 64];
            event_loop.block_on(async {
                assert!(poll_once(stream.read(&mut buf)).await.is_none());
                far.write_all(b"last").expect("sent");
                let mut far = Some(far).filter(|_| !close_first);
                assert_eq!(stream.read(&mut buf).await.expect("received"), 4);
                assert_eq!(poll_once(stream.read(&mut buf)).await.is_some(), close_first);
                drop(far.take());
                assert_eq!(stream.read(&mut buf).await.expect("end of stream"), 0);
            });
        }
    }

    #[test]
    fn a_byte_that_was_peeked_at_is_read() {
        let event_loop = EventLoop::new().expect("an event loop");
        let (mut stream, mut far) = pair(&event_loop);
        let mut buf = [0; 2];
        event_loop.block_on(async {
            assert!(poll_once(stream.peek()).await.is_none());
            far.write_all(b"ab").expect("sent");
            assert_eq!(stream.peek().await.expect("received"), Some(b'a'));
            stream.read_exact(&mut buf).await.expect("received");
            drop(far);
            assert_eq!(stream.peek().await.expect("end of stream"), None);
        });
        assert_eq!(&buf, b"ab");
    }

    #[test]
    fn waits_for_space() {
        let event_loop = EventLoop::new().expect("an event loop");
        let (mut stream, mut far) = pair(&event_loop);
        let sent: Vec<u8> = (0..8 << 20).map(|at| (at / 5) as u8).collect();
        let mut received = vec![];
        event_loop.block_on(async {
            while poll_once(stream.write(&[1; 4096])).await.is_some() {}
            // Space does not wake a reader.
            assert!(poll_once(stream.read(&mut [0; 4])).await.is_none());
        });
        let receiver = thread::spawn(move || far.read_to_end(&mut received).map(|_| received));
        event_loop.block_on(async {
            stream.write_all(&sent).await.expect("sent");
            stream.close().await.expect("closed");
        });
        let received = receiver.join().expect("no panic").expect("received");
        assert!(received.ends_with(&sent));
    }

    #[test]
    fn reads_and_writes_at_the_same_time() {
        let event_loop = EventLoop::new().expect("an event loop");
        let (near, far) = UnixStream::pair().expect("a socket pair");
        let [mut one, mut other] = [near, far].map(|socket| {
            socket.set_nonblocking(true).expect("set");
            Stream::new(&event_loop, socket.into())
        });
        let sent = vec![7; 4 << 20];
        let mut received = vec![0; sent.len()];
        event_loop.block_on(async {
            let (written, read) = zip(one.write_all(&sent), other.read_exact(&mut received)).await;
            written.and(read).expect("transferred");
        });
        assert!(received == sent);
        drop((one, other));
        assert_eq!(event_loop.socket_count(), 0);
    }
}
