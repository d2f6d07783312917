//! The status over HTTP: a page and its events, the history as JSON, and metrics for Prometheus. It is read-only.

mod events;
mod fleet;
mod metrics;
mod page;
mod peers;
mod probes;
mod request;
mod response;
mod row;
mod rows;
mod send;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    num::ParseIntError,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_runtime::{
    connections::{Connections, Place},
    monitor::Monitor,
    network::network,
    server::Server,
    text::printable,
    thread,
};
use rustix::{net::sockopt::set_socket_send_buffer_size, system::uname};
use smol::{
    Async, Executor, Timer, block_on,
    future::or,
    io::{AsyncReadExt, AsyncWriteExt},
    lock::Mutex,
    net::{Shutdown, TcpStream},
    unblock,
};

use self::{
    fleet::Fleet,
    peers::Peers,
    probes::Probe,
    request::{Method, Request},
    response::{Response, Status},
    send::{RESPONSE_TIMEOUT, send_chunks, with_timeout},
};
use crate::status;

/// The number of concurrent connections, and of those from one address. A new connection replaces an older one.
const MAX_CONNECTIONS: usize = 32;
const MAX_CONNECTIONS_PER_ADDRESS: usize = 8;
/// The time limit for receiving a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for discarding further data of the client after the response.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of bytes to discard after the response.
const MAX_DISCARDED: u64 = 64 << 10;
/// The kernel's memory in bytes for what a client has not received; the kernel doubles it. A client that never reads would occupy
/// megabytes.
const SEND_BUFFER: usize = 128 << 10;
/// The time to wait after a connection could not be accepted.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The maximum age of the JSON document, which is shared by all connections.
const MAX_JSON_AGE: Duration = Duration::from_millis(250);
/// The address to listen on: `IP:PORT`, or `PORT` for 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenAddress(SocketAddr);

impl FromStr for ListenAddress {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(address) => Ok(Self(address)),
            Err(_) => text.parse().map(|port| Self((Ipv4Addr::LOCALHOST, port).into())),
        }
    }
}

/// The HTTP server, listening.
#[derive(Debug)]
pub(crate) struct StatusPage {
    listener: TcpListener,
    address: SocketAddr,
}

impl StatusPage {
    /// Listens on an address. Starts no thread.
    ///
    /// # Errors
    ///
    /// Fails if the address is not available.
    pub(crate) fn bind(ListenAddress(address): ListenAddress) -> io::Result<Self> {
        let with_option = |error| io::Error::other(format!("--status-listen: cannot listen on {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(with_option)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Returns the address of the listening socket.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to serve the status of a server and its peers, on a thread of its own: no request can delay a transfer. It ends with the
    /// process.
    ///
    /// # Errors
    ///
    /// Fails if the thread cannot be started.
    pub(crate) fn start(self, server: Arc<Server>, peers: Vec<status::Server>) -> io::Result<()> {
        let listener = Async::new(self.listener)?;
        thread::spawn("status-page", move || block_on(serve(listener, server, peers)))
    }
}

/// Serves all connections. Never returns.
async fn serve(listener: Async<TcpListener>, server: Arc<Server>, peers: Vec<status::Server>) {
    let executor = Executor::new();
    let host_name = uname().nodename().to_string_lossy().into_owned();
    let peers = Arc::new(Peers::new(printable(host_name.as_bytes()), peers));
    peers.start(&executor);
    let monitor = server.monitor();
    let fleet = Fleet::new(monitor.clone(), peers);
    let site = Arc::new(Site { monitor, server, host_name, fleet, json: Mutex::new(None) });
    let accept = async {
        let connections = Connections::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (Some(place), _) = connections.add(network(peer.ip())) else { continue };
                    // Fails only if the client has disconnected.
                    let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER);
                    let site = site.clone();
                    let serve = async move {
                        let serve = async {
                            // An error means that the client has closed the connection.
                            let _ = site.serve(stream.into(), &place).await;
                        };
                        or(serve, place.stopped()).await;
                    };
                    executor.spawn(serve).detach();
                }
                Err(error) => {
                    log::debug!("status page: cannot accept a connection: {error}");
                    Timer::after(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    };
    executor.run(accept).await;
}

/// The resources that the server provides.
#[derive(Debug)]
struct Site {
    server: Arc<Server>,
    monitor: Monitor,
    /// The host name of this machine.
    host_name: String,
    fleet: Fleet,
    /// The last JSON document and the time of its creation.
    json: Mutex<Option<(Instant, Arc<Vec<u8>>)>>,
}

impl Site {
    /// Serves the one request of a connection.
    async fn serve(&self, mut stream: TcpStream, place: &Place<IpAddr>) -> io::Result<()> {
        let request = with_timeout(REQUEST_TIMEOUT, request::read(&mut stream)).await;
        let (method, response) = match request {
            Ok(Ok(request)) => {
                let response = async { Ok(self.response(&request).await) };
                (request.method, with_timeout(RESPONSE_TIMEOUT, response).await?)
            }
            Ok(Err(status)) => (Method::Get, Response::error(status)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                (Method::Get, Response::error(Status::RequestTimeout))
            }
            Err(error) => return Err(error),
        };
        with_timeout(RESPONSE_TIMEOUT, send(&mut stream, method, &response)).await?;
        if response.has_events && method == Method::Get {
            return events::send(&mut stream, &self.fleet, place).await;
        }
        // Closing a socket with unread data resets the connection, and the client may lose the response.
        stream.shutdown(Shutdown::Write)?;
        let mut rest = stream.take(MAX_DISCARDED);
        with_timeout(DISCARD_TIMEOUT, smol::io::copy(&mut rest, &mut smol::io::sink())).await.map(drop)
    }

    async fn response(&self, request: &Request) -> Response {
        let probe = Probe::at(&request.path);
        // Prevents DNS rebinding: a foreign site whose name resolves to this address could otherwise read the history. Probes show
        // nothing of it, and may use any name.
        if probe.is_none() && !request.host_is_trusted(&self.host_name) {
            return Response::error(Status::Misdirected);
        }
        match request.path.as_str() {
            "/" | "/events" | "/boots.json" | "/board.json" | "/metrics" | "/healthz" | "/readyz"
                if request.method == Method::Other =>
            {
                Response::error(Status::MethodNotAllowed)
            }
            "/" => page::response(),
            "/events" => Response::events(),
            "/board.json" => match self.fleet.board(&request.query).await {
                Some(json) => Response::new("application/json", Arc::new(json.into_bytes())),
                None => Response::error(Status::NotFound),
            },
            "/boots.json" => Response::new("application/json", self.json().await),
            "/metrics" => self.metrics().await,
            _ => match probe {
                Some(probe) => probe.response(&self.server).await,
                None => Response::error(Status::NotFound),
            },
        }
    }

    async fn metrics(&self) -> Response {
        let monitor = self.monitor.clone();
        unblock(move || metrics::response(&monitor)).await
    }

    /// Returns the history as JSON, at most [`MAX_JSON_AGE`] old.
    async fn json(&self) -> Arc<Vec<u8>> {
        let mut last = self.json.lock().await;
        if let Some((created, json)) = &*last
            && created.elapsed() < MAX_JSON_AGE
        {
            return json.clone();
        }
        let json = Arc::new(self.monitor.json().await);
        *last = Some((Instant::now(), json.clone()));
        json
    }
}

/// Sends a response.
async fn send(stream: &mut TcpStream, method: Method, response: &Response) -> io::Result<()> {
    stream.write_all(response.head().as_bytes()).await?;
    send_chunks(stream, if method == Method::Head { &[][..] } else { &response.body }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_an_address_of_the_loopback_interface() {
        for (text, expected) in
            [("8080", "127.0.0.1:8080"), ("0", "127.0.0.1:0"), ("0.0.0.0:80", "0.0.0.0:80"), ("[::1]:80", "[::1]:80")]
        {
            assert_eq!(text.parse(), Ok(ListenAddress(expected.parse().expect("an address"))), "{text}");
        }
        for text in ["", "here", "localhost:80", "::1", "127.0.0.1", ":80", "65536", "127.0.0.1:65536"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn reports_an_address_in_use() {
        let first = StatusPage::bind("0".parse().expect("an address")).expect("a port");
        let error = StatusPage::bind(ListenAddress(first.address())).expect_err("the address is in use").to_string();
        assert!(error.starts_with(&format!("--status-listen: cannot listen on {}: ", first.address())), "{error}");
    }
}
