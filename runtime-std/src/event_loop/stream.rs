//! A stream socket that is looked after like the sockets of clients.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use rustix::{event::epoll::EventFlags, io::Errno, net::SendFlags};
use smol::io::{AsyncRead, AsyncWrite};

use super::{
    EventLoop,
    registry::{Descriptor, Wait},
};

/// A connection of a task to somebody else. A wait on it costs no system call, and wakes no thread but the event loop's own.
#[derive(Debug)]
pub(crate) struct Stream {
    reading: Side,
    /// The same socket under another descriptor, for the day when there is no room to write.
    writing: OnceLock<Side>,
}

/// A descriptor with its place in the table.
#[derive(Debug)]
struct Side {
    event_loop: Arc<EventLoop>,
    id: usize,
    socket: Arc<OwnedFd>,
}

impl Stream {
    /// Has a connected socket looked after, which must be non-blocking.
    pub(crate) fn new(event_loop: &Arc<EventLoop>, socket: OwnedFd) -> Self {
        Self { reading: Side::new(event_loop, socket, EventFlags::IN), writing: OnceLock::new() }
    }

    /// Has a task woken when there is room to write again.
    fn wait_for_room(&self, context: &Context<'_>) -> io::Result<()> {
        if self.writing.get().is_none() {
            let again = self.reading.socket.try_clone()?;
            // Nobody else can have set it: whoever writes has the stream for itself.
            let _ = self.writing.set(Side::new(&self.reading.event_loop, again, EventFlags::OUT));
        }
        if let Some(writing) = self.writing.get() {
            writing.wait(EventFlags::OUT, context);
        }
        Ok(())
    }
}

impl Side {
    fn new(event_loop: &Arc<EventLoop>, socket: OwnedFd, concerns: EventFlags) -> Self {
        let socket = Arc::new(socket);
        let id = event_loop.lock().insert(socket.clone() as Arc<dyn Descriptor>, concerns);
        Self { event_loop: event_loop.clone(), id, socket }
    }

    /// Has a task woken when this side is ready.
    fn wait(&self, event: EventFlags, context: &Context<'_>) {
        self.event_loop.lock().begin(&self.event_loop.epoll, self.id, Wait::Ready(event, None), context.waker());
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.event_loop.lock().remove(&self.event_loop.epoll, self.id);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reading.socket.as_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match rustix::io::read(&self.reading.socket, buf) {
            Err(Errno::AGAIN) => self.reading.wait(EventFlags::IN, context),
            read => return Poll::Ready(Ok(read?)),
        }
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match rustix::net::send(&self.reading.socket, buf, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => self.wait_for_room(context)?,
            sent => return Poll::Ready(Ok(sent?)),
        }
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(&self.reading.socket, rustix::net::Shutdown::Write)?))
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

    /// A stream, and its other end, which blocks.
    fn pair(event_loop: &Arc<EventLoop>) -> (Stream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("two sockets");
        near.set_nonblocking(true).expect("set");
        (Stream::new(event_loop, near.into()), far)
    }

    #[test]
    fn what_comes_is_waited_for() {
        let event_loop = EventLoop::new().expect("a event_loop");
        let (mut stream, mut far) = pair(&event_loop);
        let mut buf = [0; 4];
        event_loop.block_on(async {
            assert!(poll_once(stream.read(&mut buf)).await.is_none());
            // From another thread, which cannot wake this one but through the kernel.
            let sender = thread::spawn(move || {
                far.write_all(b"abcd").expect("sent");
                far
            });
            stream.read_exact(&mut buf).await.expect("received");
            assert_eq!(&buf, b"abcd");
            drop(sender.join().expect("sent"));
            assert_eq!(stream.read(&mut buf).await.expect("the end"), 0);
        });
    }

    #[test]
    fn room_is_waited_for() {
        let event_loop = EventLoop::new().expect("a event_loop");
        let (mut stream, mut far) = pair(&event_loop);
        let sent: Vec<u8> = (0..8 << 20).map(|at| (at / 5) as u8).collect();
        let mut received = vec![];
        event_loop.block_on(async {
            while poll_once(stream.write(&[1; 4096])).await.is_some() {}
            // Somebody who waits for what comes is not woken by room.
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
    fn two_talk_at_the_same_time() {
        let event_loop = EventLoop::new().expect("a event_loop");
        let (near, far) = UnixStream::pair().expect("two sockets");
        let [mut one, mut other] = [near, far].map(|socket| {
            socket.set_nonblocking(true).expect("set");
            Stream::new(&event_loop, socket.into())
        });
        let sent = vec![7; 4 << 20];
        let mut received = vec![0; sent.len()];
        event_loop.block_on(async {
            let (written, read) = zip(one.write_all(&sent), other.read_exact(&mut received)).await;
            written.and(read).expect("all of it");
        });
        assert!(received == sent);
        drop((one, other));
        assert!(event_loop.lock().is_empty(), "nothing is left behind");
    }
}
