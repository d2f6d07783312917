//! Whatever an NBD server says, a reading ends: in exactly the bytes that were asked for, or in a message of one line.
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

/// A server that says its piece, however it is spoken to, and hangs up.
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

async fn talk(words: Vec<u8>, executor: &Executor<'static>) {
    let server = Server(Cursor::new(words));
    let nbd = match NbdClient::from_stream(server, "disk", Duration::from_secs(60), executor).await {
        Ok(nbd) => nbd,
        Err(error) => return assert!(is_one_line(&error.to_string()), "{error}"),
    };
    // The requests have the cookies 1, 2, 3, ...
    let size = nbd.size();
    let places = [(0, 16), (size / 2, 5), (size - 1, 1), (0, 3000), (size, 1)];
    let readings = places.map(|(offset, len)| (len, nbd.read(offset, len)));
    for (len, reading) in readings {
        match reading.await {
            Ok(bytes) => assert_eq!(bytes.len(), len),
            Err(error) => assert!(is_one_line(&error.to_string()), "{error}"),
        }
    }
}

fuzz_target!(|words: &[u8]| {
    let executor = Executor::new();
    block_on(executor.run(talk(words.to_vec(), &executor)));
});
