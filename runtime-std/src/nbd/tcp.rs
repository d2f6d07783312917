//! TCP as this protocol needs it.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::net::sockopt::set_tcp_quickack;
use smol::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::unsandboxed;

/// A TCP connection that acknowledges at once what it receives.
///
/// A server that does not set `TCP_NODELAY` (qemu-nbd 7.2) holds back the end of its replies until what came before is
/// acknowledged, which Linux delays by 40 ms. It does so again after each segment it sends, so it is asked anew before each wait.
#[derive(Debug)]
pub(super) struct QuickAck<S>(pub(super) S);

/// Connects to the first address of a host that answers.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(&addresses(host, port).await?[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The addresses of a host, which need not be looked up where it is one itself.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    unsandboxed::unblock(move || Ok((host, port).to_socket_addrs()?.collect())).await
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for QuickAck<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let received = Pin::new(&mut self.0).poll_read(cx, buf);
        if received.is_pending() {
            // It would only be slower without.
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

    /// As many answers as would take two seconds with 40 ms each.
    const ANSWERS: usize = 50;

    #[test]
    fn a_server_without_nodelay_is_not_waited_for() {
        let took = block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let serve = async {
                let (mut client, _) = listener.accept().await.expect("a client");
                let mut asked = [0; 2];
                while client.read_exact(&mut asked).await.is_ok() {
                    // Nagle's algorithm holds the second one back until the first is acknowledged.
                    client.write_all(b"head").await.expect("sent");
                    client.write_all(b"data").await.expect("sent");
                }
            };
            let ask = async {
                let mut server = QuickAck(connect("127.0.0.1", port).await.expect("connected"));
                let started = Instant::now();
                let mut answer = [0; 8];
                for _ in 0..ANSWERS {
                    server.write_all(b"go").await.expect("sent");
                    server.read_exact(&mut answer).await.expect("an answer");
                }
                started.elapsed()
            };
            zip(ask, serve).await.0
        });
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
