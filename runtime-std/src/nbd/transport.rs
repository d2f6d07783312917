//! Connections to NBD servers over TCP, Unix sockets and vsock.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, ToSocketAddrs},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix,
    },
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_io::Async;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect as start_connecting, socket},
};
use rtftp_core::config::uri::NbdServer;
use rustix::net::sockopt::set_tcp_quickack;
use smol::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, unix::UnixStream},
};

use crate::{event_loop, event_loop::EventLoop, unsandboxed};

/// A connection of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A boxed connection of any kind.
pub(super) type BoxedStream = Box<dyn Stream>;

/// Connects to a server. The socket is registered with an event loop if there is one.
pub(super) async fn connect(server: &NbdServer, event_loop: Option<&Arc<EventLoop>>) -> io::Result<BoxedStream> {
    #[cfg(test)]
    if let Some(connected) = super::simulated::connect() {
        return connected;
    }
    let socket = match server {
        NbdServer::Tcp { host, port } => unshared(connect_tcp(host, *port).await?)?,
        NbdServer::Unix(path) => unshared(UnixStream::connect(path.as_str()).await?)?,
        NbdServer::Vsock { cid, port } => connect_vsock(*cid, *port).await?.into_inner()?.into(),
    };
    let is_tcp = matches!(server, NbdServer::Tcp { .. });
    Ok(match event_loop {
        Some(event_loop) => boxed(event_loop::Stream::new(event_loop, socket), is_tcp),
        // The type of the stream does not matter: all families read and write in the same way.
        None => boxed(Async::new_nonblocking(unix::net::UnixStream::from(socket))?, is_tcp),
    })
}

/// Returns the socket of a new connection, which nothing else uses.
fn unshared<T: Into<OwnedFd>>(stream: impl Into<Arc<Async<T>>>) -> io::Result<OwnedFd> {
    let stream = Arc::into_inner(stream.into());
    Ok(stream.ok_or_else(|| io::Error::other("the new connection is already shared"))?.into_inner()?.into())
}

fn boxed(stream: impl Stream + AsFd + 'static, is_tcp: bool) -> BoxedStream {
    if is_tcp { Box::new(QuickAck(stream)) } else { Box::new(stream) }
}

/// Connects to a port of a virtual machine, or of its host.
async fn connect_vsock(cid: u32, port: u32) -> io::Result<Async<unix::net::UnixStream>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    let connecting = start_connecting(socket.as_raw_fd(), &VsockAddr::new(cid, port));
    let stream = Async::new_nonblocking(unix::net::UnixStream::from(socket))?;
    match connecting {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => {
            stream.writable().await?;
            if let Some(error) = stream.get_ref().take_error()? {
                return Err(error);
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(stream)
}

/// Connects to the first address of a host that accepts the connection.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(&addresses(host, port).await?[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Resolves a host name; a literal address needs no lookup.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    unsandboxed::unblock(move || Ok((host, port).to_socket_addrs()?.collect())).await
}

/// A TCP connection that acknowledges received segments without delay.
///
/// A server without `TCP_NODELAY` (qemu-nbd 7.2) holds back the end of a reply until the segments before it are acknowledged,
/// which Linux delays by 40 ms. `TCP_QUICKACK` does not persist, so it is set again before each wait.
#[derive(Debug)]
struct QuickAck<S>(S);

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for QuickAck<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_vectored(cx, &mut [IoSliceMut::new(buf)])
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let received = Pin::new(&mut self.0).poll_read_vectored(cx, bufs);
        if received.is_pending() {
            // A failure only costs speed.
            let _ = set_tcp_quickack(&self.0, true);
        }
        received
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for QuickAck<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use smol::{
        block_on,
        future::zip,
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// With 40 ms each, these would take two seconds.
    const REPLIES: usize = 50;

    #[test]
    fn receives_without_delayed_acknowledgements() {
        let took = block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let serve = async {
                let (mut client, _) = listener.accept().await.expect("a client");
                let mut request = [0; 2];
                while client.read_exact(&mut request).await.is_ok() {
                    // Nagle's algorithm holds the second write back until the first is acknowledged.
                    client.write_all(b"head").await.expect("sent");
                    client.write_all(b"data").await.expect("sent");
                }
            };
            let request = async {
                let mut server = QuickAck(connect_tcp("127.0.0.1", port).await.expect("connected"));
                let started = Instant::now();
                let mut reply = [0; 8];
                for _ in 0..REPLIES {
                    server.write_all(b"go").await.expect("sent");
                    server.read_exact(&mut reply).await.expect("a reply");
                }
                started.elapsed()
            };
            zip(request, serve).await.0
        });
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
