//! The server: receives requests and runs one session for each.
//!
//! [`Server`] receives datagrams and asks `admission` about each read request. An admitted one becomes a `session`, a task that
//! opens the file, negotiates options, runs a `transfer` and writes a log line. The event loop polls the transfer, which sends the
//! file.

pub(crate) mod admission;
mod config;
mod context;
mod encoded_file;
mod error_reply;
mod health;
mod limit_warnings;
mod probes;
mod requests;
mod session;
mod shutdown;
mod transfer;

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::Mutex;
use smol::{
    Executor,
    future::{or, pending, zip},
};

pub use self::{
    config::{Capacity, Config, Limits, MAX_BLKSIZE, MAX_WINDOWSIZE},
    health::HealthError,
};
use self::{context::ServerContext, health::Health};
use crate::{
    descriptors,
    disk::{DiskTimeouts, Disks},
    event_loop::{EventLoop, TaskThread, run_tasks},
    files::FileStore,
    guestfs::{HelperTimeouts, Launcher},
    history::History,
    hostnames::Hostnames,
    http::{HttpConfig, HttpServer, Tls},
    memory::Memory,
    monitor::Monitor,
    net::Listener,
    rate_limit::RateLimit,
    status::Socket,
};

/// The number of ERROR packets per second for requests that are rejected without a session: a flood deserves no more replies.
const REJECTIONS_PER_SECOND: u32 = 200;

/// A boot server that listens on its port.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: Listener,
    context: Arc<ServerContext>,
    rejections: Mutex<RateLimit>,
    status: Option<Socket>,
    /// The certificate of the HTTP server, if it has one.
    tls: Option<Arc<Tls>>,
    /// The configuration of the HTTP server until that runs.
    http: Mutex<Option<HttpConfig>>,
    /// Runs everything but the sessions of unknown clients.
    executor: Executor<'static>,
    /// Runs the sessions of unknown clients, which may be a flood: all others come first.
    newcomers: Executor<'static>,
    /// Connects and reads the disks.
    disk_thread: TaskThread,
    health: Health,
}

impl Server {
    /// Binds the configured address and port.
    ///
    /// # Errors
    ///
    /// The root is not a readable directory, or the address, port or status socket cannot be bound.
    pub fn bind(config: Config) -> io::Result<Self> {
        let (listen_ip, listen_port) = (config.listen_ip, config.listen_port);
        let event_loop = EventLoop::new()?;
        let listener = Listener::bind(&event_loop, listen_ip, listen_port).map_err(|error| {
            let ip = listen_ip.map_or("all addresses".to_owned(), |ip| ip.to_string());
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    " (a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE)"
                }
                io::ErrorKind::AddrNotAvailable => {
                    " (this machine does not have the address: see `ip address`; if it gets it later, start rtftp after \
                     network-online.target, or by a socket unit with FreeBind=yes)"
                }
                _ => "",
            };
            io::Error::other(format!("cannot listen on {ip}, port {listen_port}: {error}{hint}"))
        })?;
        Self::new(config, event_loop, listener)
    }

    /// Listens on a socket that is already bound, and ignores the configured address and port.
    ///
    /// # Errors
    ///
    /// The root is not a readable directory, the socket cannot report destination addresses, or the status socket cannot be bound.
    pub fn on(socket: UdpSocket, config: Config) -> io::Result<Self> {
        let event_loop = EventLoop::new()?;
        let listener = Listener::on(&event_loop, socket)?;
        Self::new(config, event_loop, listener)
    }

    fn new(mut config: Config, event_loop: Arc<EventLoop>, listener: Listener) -> io::Result<Self> {
        let root_dir = &config.root_dir;
        // An unreadable root would look empty to every client.
        std::fs::read_dir(root_dir).map_err(|error| io::Error::other(format!("{}: {error}", root_dir.display())))?;
        let status = Socket::open(&config.status_socket)?;
        descriptors::raise_limit();
        let (executor, newcomers) = (Executor::new(), Executor::new());
        let disk_thread = TaskThread::new("disks")?;
        let timeouts = DiskTimeouts {
            idle: config.idle_timeout,
            view_gap: config.view_gap,
            open: config.open_limit,
            connect: config.read_limit,
            reply: config.read_limit,
        };
        let helper = HelperTimeouts { start: config.open_limit, reply: config.read_limit, ..Default::default() };
        let launcher = Launcher::new(helper);
        let disks = Disks::new(
            root_dir.clone(),
            timeouts,
            launcher,
            disk_thread.executor().clone(),
            Some(disk_thread.event_loop().clone()),
            Memory::new(config.disk_memory),
        );
        let files = FileStore::with_disks(disks, Hostnames::new(config.hostname_files.clone()));
        let context = Arc::new(ServerContext::new(&config, event_loop, &listener, files)?);
        let rejections = Mutex::new(RateLimit::new(REJECTIONS_PER_SECOND, REJECTIONS_PER_SECOND));
        let http = config.http.take();
        let tls = http.as_ref().and_then(|http| Some(http.tls.as_ref()?.1.clone()));
        let http = Mutex::new(http);
        Ok(Self {
            config,
            listener,
            context,
            rejections,
            status,
            http,
            tls,
            executor,
            newcomers,
            disk_thread,
            health: Health::default(),
        })
    }

    /// Returns the address of the listening socket.
    ///
    /// # Errors
    ///
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the history of boots, which the server updates while it runs.
    pub fn history(&self) -> History {
        self.context.history.clone()
    }

    /// Returns the source of what monitoring shows.
    pub fn monitor(&self) -> Monitor {
        let ServerContext { history, files, .. } = &*self.context;
        Monitor::new(history.clone(), files.clone(), self.context.sessions.lock().capacity())
    }

    /// Returns the number of running transfers.
    pub fn transfers(&self) -> usize {
        self.context.sessions.lock().len()
    }

    /// Reads the certificate and every `.nbd` file again, and connects the disks, even if the directory is not watched. Running
    /// transfers continue.
    pub async fn reload(&self) {
        if let Some(tls) = &self.tls {
            tls.reload().await;
        }
        self.context.files.reload().await;
    }

    /// Serves until `stop` completes. Then it receives no more requests, and running transfers continue until `grace` completes; those
    /// that are left are aborted with an ERROR. Disconnects all disks at the end.
    ///
    /// Both futures run on the main worker, which receives requests and sends files, and delay both if they block. `grace` is
    /// polled after `stop` has completed.
    pub fn run(
        self: Arc<Self>,
        stop: impl Future<Output = ()> + Send + 'static,
        grace: impl Future<Output = ()> + Send + 'static,
    ) {
        let server = self;
        let context = server.context.clone();
        // Not earlier: this thread inherits the sandbox of the one that starts it.
        if let Err(error) = server.disk_thread.start() {
            log::error!("cannot start the thread for disks, which cannot be served: {error}");
        }
        if let Some(directory) = &server.config.history_dir {
            context.history.start_journal(directory);
        }
        let http = server.start_http();
        // Spawned: the future passed to `block_on` is polled whenever any task has run.
        let stop = server.executor.spawn(stop);
        let serving = server.executor.spawn(server.clone().serve());
        let serve_until_stopped = async {
            stop.await;
            drop(serving);
            server.health.is_serving.store(false, Relaxed);
            server.status.iter().for_each(Socket::remove);
            let complete_http = async {
                if let Some(http) = &http {
                    http.finish().await;
                }
            };
            let complete = async {
                zip(shutdown::complete_transfers(&context.sessions), complete_http).await;
            };
            let finish = async {
                or(complete, grace).await;
                shutdown::abort_transfers(&context.sessions).await;
            };
            or(finish, server.deliver_only()).await;
            context.unverified_log.report_suppressed();
            context.files.close().await;
            context.history.flush_journal().await;
        };
        let running = or(serve_until_stopped, run_tasks(&server.executor, &server.newcomers));
        context.workers.main().block_on(running);
    }

    /// Starts the HTTP server, if there is one.
    fn start_http(&self) -> Option<HttpServer> {
        let Self { config, context, .. } = self;
        let http = self.http.lock().take()?;
        let started =
            HttpServer::start(http, config.capacity.per_client, context.files.clone(), context.history.clone());
        started.inspect_err(|error| log::error!("HTTP disabled: {error}")).ok()
    }

    /// Answers requests and watches the root. Never returns.
    async fn serve(self: Arc<Self>) {
        self.health.is_serving.store(true, Relaxed);
        let context = &self.context;
        let watching = async {
            if self.config.monitor_configs {
                context.files.watch().await;
            }
            pending::<()>().await;
        };
        let status = async {
            if let Some(status) = &self.status {
                status.serve(&self.monitor(), &self.executor).await;
            }
            pending::<()>().await;
        };
        let unknown_tids = async {
            if let Err(error) = context.unknown_tids.run().await {
                log::warn!("no longer replying ERROR 5 to unknown sources: {error}");
            }
            pending::<()>().await;
        };
        let receiving = self.receive(|datagram, route, root| self.handle(datagram, route, root));
        or(receiving, or(watching, or(status, or(unknown_tids, context.unverified_log.run())))).await;
    }
}

#[cfg(test)]
mod tests;
