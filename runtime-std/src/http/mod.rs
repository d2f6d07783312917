//! The HTTP server: serves the files of the boot server to UEFI HTTP boot, iPXE, GRUB and others (RFC 9110, RFC 9112).
//!
//! It has a thread of its own, so that neither affects the other: `HttpServer::start` starts it, dropping the server ends it. A
//! client finds the same files as over TFTP, in the same roots and the same snapshot of its disk.

mod body;
mod conditions;
mod connection;
pub mod range;
pub mod request;
mod response;
mod service;
mod status;
mod table;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use smol::{
    Async, Executor, Timer,
    channel::{Receiver, Sender, bounded},
    future::or,
};

pub(crate) use self::response::{TYPE_BYTES, content_type};
pub use self::status::Status;
use self::{
    connection::Connection,
    service::Service,
    table::{Connections, Limits},
};
use crate::{files::FileStore, history::History, rate_limit::RateLimit, thread};

/// The largest number of connections.
const MAX_CONNECTIONS: usize = 1024;
/// The time to wait after a connection could not be accepted, such as without a free descriptor.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The number of log lines about refused connections: at once, and each second.
const REFUSALS_LOGGED: (u32, u32) = (10, 1);

/// The configuration of an [`HttpServer`].
#[derive(Debug)]
pub struct HttpConfig {
    /// The socket to accept connections on.
    pub listener: TcpListener,
    /// The start of paths that is removed, such as `/boot`; a path without it is used as it is.
    pub prefix: String,
}

/// A running HTTP server.
#[derive(Debug)]
pub struct HttpServer {
    connections: Connections,
    /// Ends the server when it is closed.
    stop: Sender<()>,
}

impl HttpServer {
    /// Starts a thread that accepts connections, of which each client can have `per_client`.
    ///
    /// # Errors
    ///
    /// The socket cannot be configured, or the thread cannot be started.
    pub(crate) fn start(
        HttpConfig { listener, prefix }: HttpConfig,
        per_client: usize,
        files: Arc<FileStore>,
        history: History,
    ) -> io::Result<Self> {
        let connections = Connections::new(Limits { total: MAX_CONNECTIONS, per_client });
        let listener = Async::new(listener)?;
        let service = Arc::new(Service { prefix, files, history });
        let (stop, stopped) = bounded(1);
        let table = connections.clone();
        thread::spawn("http", move || smol::block_on(serve(listener, service, table, stopped)))?;
        Ok(Self { connections, stop })
    }

    /// Stops accepting connections, and waits until the running responses are complete, for at most `grace`.
    pub(crate) async fn finish(&self, grace: Duration) {
        self.stop.close();
        let deadline = Instant::now() + grace;
        while !self.connections.is_empty() && Instant::now() < deadline {
            self.connections.close_idle();
            Timer::after(Duration::from_millis(20)).await;
        }
    }
}

/// Accepts connections and serves them until `stopped` is closed; then serves those that are open.
async fn serve(listener: Async<TcpListener>, service: Arc<Service>, table: Connections, stopped: Receiver<()>) {
    let executor = Executor::new();
    let accepting = async {
        let mut refusals = RateLimit::new(REFUSALS_LOGGED.0, REFUSALS_LOGGED.1);
        loop {
            match listener.accept().await {
                Ok((stream, client)) => match table.add(client.ip()) {
                    Some(place) => {
                        let (service, client) =
                            (service.clone(), SocketAddr::new(client.ip().to_canonical(), client.port()));
                        let serve =
                            async move { Connection { service: &service, stream, client, place }.serve().await };
                        executor.spawn(serve).detach();
                    }
                    // Closing the connection is the answer.
                    None if refusals.allows(crate::clock::now()) => {
                        log::warn!("{client}: HTTP connection refused: too many connections (--max-per-client)");
                    }
                    None => {}
                },
                Err(error) => {
                    log::debug!("cannot accept an HTTP connection: {error}");
                    Timer::after(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    };
    let stop = async {
        let _ = stopped.recv().await;
    };
    executor.run(or(accepting, stop)).await;
    drop(listener);
    executor
        .run(async {
            while !table.is_empty() {
                Timer::after(Duration::from_millis(20)).await;
            }
        })
        .await;
}
