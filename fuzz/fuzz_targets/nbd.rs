//! Arbitrary messages of an NBD server: each read returns exactly the requested bytes or an error of one line.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use rtftp_runtime::{fs::BlockDevice, nbd::NbdClient};
use smol::{
    Executor, block_on,
    io::{AsyncRead, AsyncWrite, Cursor},
};

/// A server that sends fixed bytes regardless of the requests, then closes the connection.
struct Server(Cursor<Vec<u8>>);

impl AsyncRead for Server {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Server {
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

fn is_one_line(message: &str) -> bool {
    !message.is_empty() && !message.contains(char::is_control)
}

async fn read_from(messages: Vec<u8>, executor: &Executor<'static>) {
    let server = Server(Cursor::new(messages));
    let nbd = match NbdClient::from_stream(server, "disk", Duration::from_secs(60), executor).await {
        Ok(nbd) => nbd,
        Err(error) => return assert!(is_one_line(&error.to_string()), "{error}"),
    };
    // The cookies of the requests are 1, 2, 3, ...
    let size = nbd.size();
    let ranges = [(0, 16), (size / 2, 5), (size - 1, 1), (0, 3000), (size, 1)];
    let reads = ranges.map(|(offset, len)| (len, nbd.read(offset, len)));
    for (len, read) in reads {
        match read.await {
            Ok(bytes) => assert_eq!(bytes.len(), len),
            Err(error) => assert!(is_one_line(&error.to_string()), "{error}"),
        }
    }
}

fuzz_target!(|messages: &[u8]| {
    let executor = Executor::new();
    block_on(executor.run(read_from(messages.to_vec(), &executor)));
});
