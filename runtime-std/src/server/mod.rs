//! The server: receives requests and runs one session for each.
//!
//! [`Server`] receives datagrams and asks `admission` about each read request. An admitted one becomes a `session`, a task that
//! opens the file, negotiates options, runs a `transfer` and writes a log line. The event loop polls the transfer, which sends the
//! file.

mod admission;
mod config;
mod context;
mod encoded_file;
mod error_reply;
mod health;
mod limit_warnings;
mod session;
mod shutdown;
mod transfer;

use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use rtftp_core::{Packet, wire::packet::ErrorCode};
use smol::{
    Executor,
    future::{or, pending, yield_now, zip},
};

use self::{
    admission::{Admission, Admitted, Limit},
    context::ServerContext,
    error_reply::ErrorReply,
    health::Health,
    session::Session,
};
pub use self::{
    config::{Capacity, Config, Limits, MAX_BLKSIZE, MAX_WINDOWSIZE},
    health::HealthError,
};
use crate::{
    clock::{self, within},
    descriptors,
    disk::{DiskTimeouts, Disks},
    event_loop::{EventLoop, TaskThread, run_tasks},
    files::FileStore,
    guestfs::{HelperTimeouts, Launcher},
    history::{History, RequestRecord, snapshot::State},
    hostnames::Hostnames,
    http::{HttpConfig, HttpServer, Tls},
    memory::Memory,
    monitor::Monitor,
    net::{Listener, Route},
    rate_limit::RateLimit,
    status::Socket,
};

/// The number of ERROR packets per second for requests that are rejected without a session: a flood deserves no more replies.
const REJECTIONS_PER_SECOND: u32 = 200;
/// The largest datagram that is read, in bytes. A request has at most 512 (RFC 2347).
const MAX_DATAGRAM: usize = 2048;
/// The number of datagrams received before other tasks run. A burst must not overflow the socket meanwhile.
const RECEIVE_BATCH: usize = 32;

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

    /// Checks that the thread that serves requests and the one that reads disks run a task within `limit`.
    ///
    /// # Errors
    ///
    /// Returns the thread that does not.
    pub async fn check_alive(&self, limit: Duration) -> Result<(), HealthError> {
        self.health.check_alive(&self.executor, self.disk_thread.executor(), limit).await
    }

    /// Checks that the server is alive, receives requests, and can read its root directory, each within `limit`.
    ///
    /// # Errors
    ///
    /// Returns what does not work.
    pub async fn check_ready(&self, limit: Duration) -> Result<(), HealthError> {
        if !self.health.is_serving.load(Relaxed) {
            return Err(HealthError::NotServing);
        }
        self.check_alive(limit).await?;
        let read = within(limit, self.context.files.check_root()).await;
        let read = read.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        read.map_err(|error| HealthError::Root { path: self.config.root_dir.clone(), error })
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
        let receiving = self.receive(|datagram, route| self.handle(datagram, route));
        or(receiving, or(watching, or(status, or(unknown_tids, context.unverified_log.run())))).await;
    }

    /// Receives datagrams and hands each to `handle`, which must not block. Never returns.
    async fn receive(&self, handle: impl Fn(&[u8], Route)) {
        let mut buf = [0; MAX_DATAGRAM];
        for count in 1usize.. {
            match self.listener.recv(&mut buf).await {
                Ok((len, route)) => handle(&buf[..len], route),
                Err(error) => {
                    log::debug!("cannot receive requests: {error}");
                    self.listener.closed_ports().for_each(|client| self.end_transfer(client));
                }
            }
            if count % RECEIVE_BATCH == 0 {
                yield_now().await;
            }
        }
    }

    /// Starts a session for a read request, delivers a datagram to its transfer, or rejects it.
    fn handle(&self, datagram: &[u8], route: Route) {
        let (context, client) = (&self.context, route.client.ip());
        let reply = match Packet::parse(datagram) {
            Ok(Packet::ReadRequest(request)) => {
                let admission = context.sessions.lock().admit(route.client, datagram, &request);
                match admission {
                    Admission::Start(admitted) => {
                        return self.start(route, admitted, context.history.record_request(client, request.file));
                    }
                    Admission::Duplicate => {
                        context.history.record_copy(client, request.file);
                        return log::debug!("{}: duplicate request ignored", route.client);
                    }
                    Admission::Ignored => {
                        return context.requests_warning.log(format_args!(
                            "{}: request ignored until it is repeated: too many requests of unknown clients",
                            route.client
                        ));
                    }
                    Admission::Full(limit) => {
                        let reason = limit.to_client();
                        context.history.record_request(client, request.file).finish(State::Refused, Some(reason));
                        self.warn_about(limit, route.client);
                        ErrorReply::new(ErrorCode::NOT_DEFINED, reason)
                    }
                }
            }
            Ok(Packet::WriteRequest(request)) => {
                let reason = "this server does not take files";
                context.history.record_request(client, request.file).finish(State::Refused, Some(reason));
                ErrorReply::new(ErrorCode::ACCESS_VIOLATION, "Access violation: this server does not take files")
            }
            _ if self.deliver(datagram, route) => return,
            // It may repeat the last ACK of a finished transfer: an ERROR could end the client's next one.
            Ok(Packet::Ack { .. }) if self.config.single_port => return,
            // An ERROR, even a truncated one, is never answered: two programs could reply to each other forever.
            _ if datagram.starts_with(&[0, 5]) => return,
            _ => ErrorReply::new(ErrorCode::ILLEGAL_OPERATION, "Illegal TFTP operation: not a TFTP request"),
        };
        if self.rejections.lock().allows(clock::now()) {
            log::debug!("{}: rejected: {}", route.client, reply.message);
            reply.send_to(context, route);
        }
    }

    /// Warns that a limit has been reached.
    fn warn_about(&self, limit: Limit, client: SocketAddr) {
        let warning = match limit {
            Limit::Transfers => &self.context.transfers_warning,
            Limit::PerClient => &self.context.per_client_warning,
        };
        warning.log(format_args!("{client}: request refused: {} ({})", limit.to_client(), limit.option()));
    }

    /// Delivers a datagram to its transfer, if transfers share the listening port, and returns whether there is one.
    fn deliver(&self, datagram: &[u8], route: Route) -> bool {
        let handle = if self.config.single_port { self.context.sessions.lock().get(route.client) } else { None };
        handle.is_some_and(|handle| handle.delivery.get().is_some_and(|delivery| delivery.deliver(datagram, route)))
    }

    /// Ends the transfer to a client that has closed its port, if transfers share the listening port.
    fn end_transfer(&self, client: SocketAddr) {
        let handle = self.context.sessions.lock().get(client);
        if let Some(delivery) = handle.as_ref().and_then(|handle| handle.delivery.get()) {
            delivery.port_closed();
        }
    }

    /// Spawns the session of an admitted request.
    fn start(&self, route: Route, admitted: Admitted, record: RequestRecord) {
        let context = self.context.clone();
        let executor = if admitted.is_known { &self.executor } else { &self.newcomers };
        let handle = admitted.handle.clone();
        let run = async move {
            // Boxed once it runs: in a flood, many wait for that.
            Box::pin(Session::new(context.clone(), route, admitted, record).run()).await;
            context.sessions.lock().finish(&handle);
        };
        executor.spawn(run).detach();
    }

    /// Delivers datagrams to running transfers that share the listening port, and ignores requests. Never returns.
    async fn deliver_only(&self) {
        if self.config.single_port {
            self.receive(|datagram, route| _ = self.deliver(datagram, route)).await;
        }
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
