//! The bytes of a connection, with or without TLS.

use std::{
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    time::Duration,
};

use futures_rustls::server::TlsStream;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown, sockopt};
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::{clock::within, event_loop::Stream};

/// The time for which a client that has got no file may close the connection first.
const CLIENT_CLOSES: Duration = Duration::from_millis(200);
/// The time after which the kernel gives up a connection that the client has closed, in milliseconds.
const END_TIMEOUT_MS: u32 = 5000;
/// The time limit for the end of a connection, and the bytes of the client that are discarded meanwhile.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_DISCARDED: usize = 64 << 10;

/// A connection to a client.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

impl Transport {
    /// Receives bytes. Returns their number; 0 at the end.
    pub(super) async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf).await,
            Self::Tls(stream) => stream.read(buf).await,
        }
    }

    /// Sends bytes, one part after the other.
    pub(super) async fn send(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => send_plain(stream, parts, SendFlags::empty()).await,
            Self::Tls(stream) => {
                for part in parts {
                    stream.write_all(part).await?;
                }
                stream.flush().await
            }
        }
    }

    /// Closes the connection after a response. A socket that is closed with unread data resets the connection, and the client may
    /// lose the response (RFC 9112 section 9.6).
    pub(super) async fn close(mut self) {
        let close = async {
            match &mut self {
                Self::Plain(stream) => shutdown(stream, Shutdown::Write)?,
                Self::Tls(stream) => stream.close().await?,
            }
            self.discard().await
        };
        // An error means that the client has left.
        let _ = within(CLOSE_TIMEOUT, close).await;
    }

    /// Lets the client close the connection first, unless it waits for the server.
    ///
    /// The side that closes first keeps the pair of ports in use for a minute (TIME-WAIT). PXELINUX takes the same ports at each boot,
    /// and needs 3.3 s more for each that is in use. It closes the connection itself after an error, but not after a file.
    pub(super) async fn close_after_client(mut self) {
        let _ = within(CLIENT_CLOSES, self.discard()).await;
        self.close().await;
    }

    /// Limits the time for which the kernel keeps a connection that the client has closed. GRUB closes it with a window of 0, in which
    /// the server's own end has no space, and uses the same ports at each boot.
    pub(super) fn limit_end(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // A failure makes the next boot slower.
        let _ = sockopt::set_tcp_user_timeout(stream, END_TIMEOUT_MS);
    }

    /// Discards what the client sends, until it closes the connection.
    async fn discard(&mut self) -> io::Result<()> {
        let (mut buf, mut discarded) = ([0; 4096], 0);
        while discarded < MAX_DISCARDED {
            match self.read(&mut buf).await? {
                0 => break,
                len => discarded += len,
            }
        }
        Ok(())
    }
}

/// Sends bytes without TLS, one part after the other.
pub(super) async fn send_plain(stream: &Stream, parts: [&[u8]; 2], flags: SendFlags) -> io::Result<()> {
    let (mut slices, mut left) = (parts.map(IoSlice::new), parts[0].len() + parts[1].len());
    let mut rest = &mut slices[..];
    while left > 0 {
        let send = |socket: BorrowedFd<'_>| {
            sendmsg(socket, rest, &mut SendAncillaryBuffer::default(), flags | SendFlags::NOSIGNAL)
        };
        let sent = stream.write_with(send).await?;
        left -= sent;
        IoSlice::advance_slices(&mut rest, sent);
    }
    Ok(())
}
