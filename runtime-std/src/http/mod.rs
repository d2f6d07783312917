//! The HTTP server: serves the files of the boot server to UEFI HTTP boot, iPXE, GRUB and others (RFC 9110, RFC 9112).
//!
//! It has threads of its own, so that neither affects the other: `HttpServer::start` starts them, dropping the server ends them. A
//! client finds the same files as over TFTP, in the same roots and the same snapshot of its disk. With TLS, another thread computes
//! the handshakes.

mod body;
mod certificate;
pub mod conditions;
mod connection;
mod exchange;
mod ffdhe;
mod handshake;
pub mod range;
pub mod request;
mod response;
mod service;
mod status;
mod transport;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use parking_lot::Mutex;
use smol::{Task, future::yield_now};

pub(crate) use self::response::{TYPE_BYTES, content_type};
pub use self::{
    certificate::{Tls, TlsError, TlsFiles},
    status::Status,
};
use self::{connection::Connection, handshake::Handshakes, service::Service};
use crate::{
    clock::{self, Timer},
    connections::{Connections, Limit},
    descriptors,
    event_loop::{Registered, Stream, TaskThread},
    files::FileStore,
    history::History,
    network::network,
    rate_limit::OncePerMinute,
};

/// The names of the threads that serve connections, at most one for each processor. More would only take processors from TFTP.
const THREADS: [&str; 2] = ["http", "http-1"];
/// The number of connections up to which one thread serves all of them, which is fast enough.
const ONE_THREAD: usize = 32;
/// The largest number of connections.
const MAX_CONNECTIONS: usize = 1024;
/// The part of the process's descriptors that connections may use, half of them. Each has up to three: two of its socket, and a file.
const DESCRIPTORS_PER_CONNECTION: u64 = 6;
/// The number of connections that wait to be accepted; the kernel may limit it further (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// The time to wait after a connection could not be accepted, such as without a free descriptor.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The configuration of an [`HttpServer`].
#[derive(Debug)]
pub struct HttpConfig {
    /// The socket to accept connections without TLS on.
    pub plain: Option<TcpListener>,
    /// The socket to accept connections with TLS on, and the certificate.
    pub tls: Option<(TcpListener, Arc<Tls>)>,
    /// The start of paths that is removed, such as `/boot`; a path without it is used as it is.
    pub prefix: String,
}

/// A running HTTP server.
#[derive(Debug)]
pub struct HttpServer {
    connections: Connections<IpAddr>,
    /// Accept connections until they are dropped.
    acceptors: Mutex<Vec<Task<()>>>,
    /// The threads that serve connections.
    _threads: Arc<[TaskThread]>,
}

impl HttpServer {
    /// Starts threads that accept and serve connections, of which each client can have `per_client`.
    ///
    /// # Errors
    ///
    /// A socket cannot be configured, or a thread cannot be started.
    pub(crate) fn start(
        HttpConfig { plain, tls, prefix }: HttpConfig,
        per_client: usize,
        files: Arc<FileStore>,
        history: History,
    ) -> io::Result<Self> {
        let total = max_connections();
        let connections = Connections::new(total, per_client);
        let service = Arc::new(Service::new(prefix, files, history));
        let processors = available_parallelism().map_or(1, usize::from);
        let threads = THREADS.into_iter().take(processors).map(TaskThread::new).collect::<io::Result<Arc<[_]>>>()?;
        threads.iter().try_for_each(TaskThread::start)?;
        let acceptor = |listener: TcpListener, tls| {
            let (service, connections) = (service.clone(), connections.clone());
            let warnings = [OncePerMinute::default(), OncePerMinute::default()];
            // Connections that arrive while others are accepted must not wait for the client to repeat its packet after 1 s.
            rustix::net::listen(&listener, BACKLOG)?;
            listener.set_nonblocking(true)?;
            let listener = Registered::new(threads[0].event_loop(), listener.into());
            let acceptor = Acceptor { listener, tls, service, connections, total, per_client, warnings };
            let accepting = threads.clone();
            io::Result::Ok(threads[0].executor().spawn(async move { acceptor.accept(&accepting).await }))
        };
        let plain = plain.map(|listener| acceptor(listener, None)).transpose()?;
        let tls = match tls {
            Some((listener, tls)) => Some(acceptor(listener, Some(Arc::new(Handshakes::start(tls)?)))?),
            None => None,
        };
        Ok(Self { connections, acceptors: Mutex::new(plain.into_iter().chain(tls).collect()), _threads: threads })
    }

    /// Stops accepting connections, and waits until the running responses are complete.
    pub(crate) async fn finish(&self) {
        self.acceptors.lock().clear();
        while !self.connections.is_empty() {
            self.connections.close_idle();
            Timer::after(Duration::from_millis(20)).await;
        }
    }
}

/// Returns the number of connections that the descriptors suffice for, at most [`MAX_CONNECTIONS`].
fn max_connections() -> usize {
    usize::try_from(descriptors::limit() / DESCRIPTORS_PER_CONNECTION).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

/// A listening socket.
#[derive(Debug)]
struct Acceptor {
    listener: Registered<TcpListener>,
    tls: Option<Arc<Handshakes>>,
    service: Arc<Service>,
    connections: Connections<IpAddr>,
    total: usize,
    per_client: usize,
    /// About the limit for all clients, and that for each.
    warnings: [OncePerMinute; 2],
}

impl Acceptor {
    /// Accepts connections, and spawns a task for each on one of the threads. Never returns.
    async fn accept(&self, threads: &[TaskThread]) {
        loop {
            match self.listener.get().accept() {
                Ok((stream, client)) => {
                    let count = if self.connections.len() < ONE_THREAD { 1 } else { threads.len() };
                    let thread = threads[..count].iter().min_by_key(|thread| thread.event_loop().socket_count());
                    self.serve(stream, client, thread.unwrap_or(&threads[0]));
                    // A flood of connections must not hold up those that are open.
                    yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.listener.readable().await,
                Err(error) => {
                    log::debug!("cannot accept an HTTP connection: {error}");
                    Timer::after(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Spawns a task that serves a connection, if there is a place for it. Without one, closing the connection is the answer.
    fn serve(&self, stream: TcpStream, client: SocketAddr, thread: &TaskThread) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let (place, limit) = self.connections.add(network(client.ip()));
        if let Some(limit) = limit {
            self.warn_about(limit, client, place.is_some());
        }
        let Some(place) = place.filter(|_| stream.set_nonblocking(true).is_ok()) else { return };
        let stream = Stream::new(thread.event_loop(), stream.into());
        let (service, tls) = (self.service.clone(), self.tls.clone());
        let serve = async move {
            Connection { service: &service, client, place }.serve(stream, tls.as_deref()).await;
        };
        thread.executor().spawn(serve).detach();
    }

    /// Warns that a limit has been reached, at most once a minute for each.
    fn warn_about(&self, limit: Limit, client: SocketAddr, has_replaced: bool) {
        let [total, per_client] = &self.warnings;
        let (warning, number, whose) = match limit {
            Limit::Total => (total, self.total, "all clients"),
            Limit::PerPeer => (per_client, self.per_client, "one client (--max-per-client)"),
        };
        if warning.allows(clock::now()) {
            let effect = if has_replaced { "it replaces an idle one" } else { "it is refused, since none is idle" };
            log::warn!("{client}: HTTP connection beyond the limit of {number} for {whose}: {effect}");
        }
    }
}
