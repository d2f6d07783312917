//! One connection: requests and their responses, one after the other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::sockopt;
use smol::future::or;

use super::{
    body::SEND_BUFFER,
    exchange::{Exchange, send_head},
    handshake::Handshakes,
    request::{self, Persistence},
    response,
    service::Service,
    status::Status,
    transport::Transport,
};
use crate::{clock::within, connections::Place, event_loop::Stream};

/// The time limit for the next request of a connection. iPXE keeps one connection for a whole boot.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of bytes to read at a time.
const READ_SIZE: usize = 1024;

/// The time without packets after which the kernel asks whether the client is still there, the interval and the number of questions.
/// GRUB uses the same ports at each boot, so a connection that the machine left open at its last boot would block one of the next.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(3), Duration::from_secs(1), 3);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    pub(super) service: &'a Service,
    pub(super) client: SocketAddr,
    pub(super) place: Place<IpAddr>,
}

impl Connection<'_> {
    /// Serves requests until the client or a limit ends the connection; after a handshake if it uses TLS.
    pub(super) async fn serve(self, stream: Stream, tls: Option<&Handshakes>) {
        // Failures make the connection slower, not wrong.
        let _ = sockopt::set_tcp_nodelay(stream.as_fd(), true);
        let _ = sockopt::set_socket_send_buffer_size(stream.as_fd(), SEND_BUFFER);
        let _ = keep_alive(stream.as_fd());
        or(self.run(stream, tls), self.place.stopped()).await;
    }

    /// The large futures are boxed, so that a connection that waits for a request needs little memory.
    async fn run(&self, stream: Stream, tls: Option<&Handshakes>) {
        let transport = match tls {
            None => Some(Transport::Plain(stream)),
            Some(tls) => Box::pin(tls.accept(stream, self.client)).await,
        };
        let Some(mut transport) = transport else { return };
        // An error means that the client has left, or must not take what it has for the whole file.
        match self.serve_requests(&mut transport).await {
            Ok(Persistence::ClosedByClient) => Box::pin(transport.close_after_client()).await,
            Ok(_) => Box::pin(transport.close()).await,
            Err(_) => transport.limit_end(),
        }
    }

    /// Serves requests until a response is the last one. Returns how the connection ends.
    async fn serve_requests(&self, stream: &mut Transport) -> io::Result<Persistence> {
        let exchange = Exchange { service: self.service, client: self.client, place: &self.place };
        let mut received = Vec::new();
        loop {
            let head = within(REQUEST_TIMEOUT, read_head(stream, &mut received)).await;
            let head = head.ok_or(io::ErrorKind::TimedOut)??;
            self.place.set_busy(true);
            let request = head.as_ref().map_err(|status| *status).and_then(|head| request::parse(head));
            let persistence = match request {
                Ok(request) => Box::pin(exchange.respond(stream, &request)).await?,
                Err(status) => {
                    log::debug!("{}: HTTP request refused: {}", self.client, status.line());
                    let head = response::head(status, None, Persistence::Closed);
                    Box::pin(send_head(stream, &head)).await?;
                    Persistence::Closed
                }
            };
            self.place.set_busy(false);
            if !persistence.keeps_open() {
                return Ok(persistence);
            }
        }
    }
}

/// Makes the kernel close the connection of a client that has vanished.
fn keep_alive(socket: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, interval)?;
    sockopt::set_tcp_keepcnt(socket, count)?;
    sockopt::set_socket_keepalive(socket, true)
}

/// Reads the head of the next request; `received` keeps what follows it. The inner error is the status to respond with.
async fn read_head(stream: &mut Transport, received: &mut Vec<u8>) -> io::Result<Result<Vec<u8>, Status>> {
    loop {
        if let Some(head) = request::take_head(received).transpose() {
            return Ok(head);
        }
        let len = received.len();
        received.resize(len + READ_SIZE, 0);
        let read = stream.read(&mut received[len..]).await?;
        received.truncate(len + read);
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
