//! One connection: requests and their responses, one after the other.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use rustix::net::sockopt;
use smol::{
    Async,
    future::{or, yield_now},
};

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
use crate::{clock::within, connections::Place};

/// The time limit for the next request of a connection. iPXE keeps one connection for a whole boot.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    pub(super) service: &'a Service,
    pub(super) client: SocketAddr,
    pub(super) place: Place<IpAddr>,
}

impl Connection<'_> {
    /// Serves requests until the client or a limit ends the connection; after a handshake if it uses TLS.
    pub(super) async fn serve(self, stream: Async<TcpStream>, tls: Option<&Handshakes>) {
        // Failures make the connection slower, not wrong.
        let _ = stream.get_ref().set_nodelay(true);
        let _ = sockopt::set_socket_send_buffer_size(stream.as_fd(), SEND_BUFFER);
        let serve = async {
            let transport = match tls {
                None => Some(Transport::Plain(stream)),
                Some(tls) => tls.accept(stream, self.client).await,
            };
            let Some(mut transport) = transport else { return };
            // An error means that the client has left, or must not take what it has for the whole file.
            if self.serve_requests(&mut transport).await.is_ok() {
                transport.close().await;
            }
        };
        or(serve, self.place.stopped()).await;
    }

    /// Serves requests until a response is the last one.
    async fn serve_requests(&self, stream: &mut Transport) -> io::Result<()> {
        let exchange = Exchange { service: self.service, client: self.client, place: &self.place };
        let mut received = Vec::new();
        loop {
            let head = within(REQUEST_TIMEOUT, read_head(stream, &mut received)).await;
            let head = head.ok_or(io::ErrorKind::TimedOut)??;
            self.place.set_busy(true);
            let request = head.as_ref().map_err(|status| *status).and_then(|head| request::parse(head));
            let persistence = match request {
                Ok(request) => exchange.respond(stream, &request).await?,
                Err(status) => {
                    log::debug!("{}: HTTP request refused: {}", self.client, status.line());
                    send_head(stream, &response::head(status, None, Persistence::Closed), false).await?;
                    Persistence::Closed
                }
            };
            self.place.set_busy(false);
            if !persistence.keeps_open() {
                return Ok(());
            }
            // Other connections are served between two requests of a client that never waits.
            yield_now().await;
        }
    }
}

/// Reads the head of the next request; `received` keeps what follows it. The inner error is the status to respond with.
async fn read_head(stream: &mut Transport, received: &mut Vec<u8>) -> io::Result<Result<Vec<u8>, Status>> {
    let mut buf = [0; 2048];
    loop {
        if let Some(head) = request::take_head(received).transpose() {
            return Ok(head);
        }
        match stream.read(&mut buf).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => received.extend_from_slice(&buf[..len]),
        }
    }
}
