//! The server: takes requests in and lets one task a transfer answer them.

pub(crate) mod admission;
pub(crate) mod session;
mod transfer;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
pub use rtftp_core::wire::options::{Limits, MAX_BLKSIZE, MAX_WINDOWSIZE};
use rtftp_core::{Packet, wire::packet::ErrorCode};
use smol::{
    Executor, Timer,
    channel::Receiver,
    future::{or, pending, yield_now},
};

pub use crate::server::admission::Capacity;
use crate::{
    clock,
    disk::{DiskTimeouts, Disks},
    event_loop::{EventLoop, Workers},
    files::{
        store::FileStore,
        watch::{look_again, watch},
    },
    guestfs::client::{HelperTimeouts, Launcher},
    history::{History, RequestRecord, snapshot::State},
    net::{Listener, Route, UnknownTidSockets, ports::Ports},
    rate_limit::{RateLimit, UnverifiedLog},
    server::{
        admission::{Admission, SessionHandle, Sessions},
        session::Session,
    },
    status::{Socket, StatusSocket},
};

/// What the server is told.
#[derive(Debug)]
pub struct Config {
    /// The address to listen on; all of them, IPv4 and IPv6, if it is not given.
    pub listen_ip: Option<IpAddr>,
    /// The UDP port to listen on; 0 for any that is free.
    pub listen_port: u16,
    /// The directory with the clients' directories, their `.nbd` files and `default/`.
    pub root_dir: PathBuf,
    /// How long a disk stays connected that nobody asks for.
    pub idle_timeout: Duration,
    /// After how long without a request and without a transfer a boot is over: the next request sees the disk as it is then.
    pub view_gap: Duration,
    /// Whether disks are connected as soon as their `.nbd` file appears.
    pub monitor_configs: bool,
    /// What clients are granted at most.
    pub limits: Limits,
    /// Whether no larger blocks are granted than reach the client in one packet.
    pub mtu_clamp: bool,
    /// The ports that transfers are served from; any that are free, if it is not given. There are no more transfers than ports.
    pub port_range: Option<RangeInclusive<u16>>,
    /// Whether transfers are served from the port that is listened on, and `port_range` is not used. That departs from RFC 1350
    /// section 4, for networks where answers from another port get lost: what comes late for a transfer is not told apart from
    /// what is meant for the next one of the same client's port.
    pub single_port: bool,
    /// How many transfers there may be.
    pub capacity: Capacity,
    /// How long connecting a disk may take in all.
    pub open_limit: Duration,
    /// How long one answer of a connected disk may take.
    pub read_limit: Duration,
    /// Where the record of boots can be asked for.
    pub status_socket: StatusSocket,
}

/// How many ERRORs a second go to those who are not served; a flood of nonsense is not worth more answers.
const REFUSALS: u32 = 200;

/// How long running transfers may go on when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// A boot server, listening.
#[derive(Debug)]
pub struct Server {
    config: Config,
    workers: Arc<Workers>,
    ports: Arc<Ports>,
    listener: Listener,
    files: Arc<FileStore>,
    sessions: Arc<Mutex<Sessions>>,
    guards: Arc<UnknownTidSockets>,
    refusals: Mutex<RateLimit>,
    strangers: Arc<UnverifiedLog>,
    history: History,
    status: Option<Socket>,
    executor: Arc<Executor<'static>>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The root is not a directory, or the address or port, or the status socket, cannot be listened on.
    pub fn bind(config: Config) -> io::Result<Self> {
        let (listen_ip, listen_port) = (config.listen_ip, config.listen_port);
        let event_loop = EventLoop::new()?;
        let listener = Listener::bind(&event_loop, listen_ip, listen_port).map_err(|error| {
            let ip = listen_ip.map_or("all addresses".to_owned(), |ip| ip.to_string());
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                " (a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE)"
            } else {
                ""
            };
            io::Error::other(format!("cannot listen on {ip}, port {listen_port}: {error}{hint}"))
        })?;
        Self::new(config, event_loop, listener)
    }

    /// Listens on a socket that is bound already, whatever the configuration says of address and port.
    ///
    /// # Errors
    ///
    /// The root is not a directory, or the socket does not tell where datagrams are sent to.
    pub fn on(socket: UdpSocket, config: Config) -> io::Result<Self> {
        let event_loop = EventLoop::new()?;
        let listener = Listener::on(&event_loop, socket)?;
        Self::new(config, event_loop, listener)
    }

    fn new(config: Config, event_loop: Arc<EventLoop>, listener: Listener) -> io::Result<Self> {
        let limits = HelperTimeouts { start: config.open_limit, reply: config.read_limit, ..Default::default() };
        let launcher = Launcher::new(limits);
        let root_dir = &config.root_dir;
        let at_root = |error| io::Error::other(format!("{}: {error}", root_dir.display()));
        // Also a first look: a root that cannot be read would look empty to every client.
        std::fs::read_dir(root_dir).map_err(at_root)?;
        let status = Socket::open(&config.status_socket)?;
        allow_descriptors();
        let executor = Arc::new(Executor::new());
        let workers = Arc::new(Workers::new(event_loop.clone()));
        let times = DiskTimeouts { idle: config.idle_timeout, view_gap: config.view_gap, reply: config.read_limit };
        let disks = Disks::new(root_dir.clone(), times, launcher, executor.clone(), Some(event_loop));
        let ports =
            if config.single_port { Ports::sharing(listener.share()?) } else { Ports::new(config.port_range.clone()) };
        let ports = Arc::new(ports);
        // With all ports in use, too, a client that has never answered gives way to a newcomer.
        let transfers = config.capacity.transfers.min(ports.count().unwrap_or(usize::MAX));
        let sessions = Arc::new(Mutex::new(Sessions::new(Capacity { transfers, ..config.capacity })));
        let guards = UnknownTidSockets::new()?;
        let refusals = Mutex::new(RateLimit::new(REFUSALS, REFUSALS));
        let strangers = Arc::new(UnverifiedLog::new());
        let history = History::new();
        let files = Arc::new(FileStore::new(root_dir.clone(), disks));
        Ok(Self {
            config,
            workers,
            ports,
            listener,
            files,
            sessions,
            guards,
            refusals,
            strangers,
            history,
            status,
            executor,
        })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    ///
    /// As the operating system has it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The record of who booted how, which goes on while the server runs.
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// How many transfers are running.
    pub fn transfers(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Looks at every `.nbd` file again and connects the disks, also where nobody watches them; running transfers go on.
    pub async fn reload(&self) {
        look_again(&self.config.root_dir, self.files.disks()).await;
    }

    /// Serves until `stop` is ready, gives running transfers a short grace, and lets every disk go.
    ///
    /// `stop` runs where requests are taken in and disks are read: as long as it has its turns, so have they. Of many transfers, some
    /// are served by other threads.
    pub fn run(self: Arc<Self>, stop: impl Future<Output = ()> + Send + 'static) {
        let server = self;
        // Tasks of their own: what this thread waits for itself is looked at whenever any task has run.
        let stop = server.executor.spawn(stop);
        let serving = server.executor.spawn(server.clone().serve());
        server.workers.first().block_on(server.executor.run(async {
            stop.await;
            drop(serving);
            server.status.iter().for_each(Socket::remove);
            or(server.wind_up(), server.hear_the_rest()).await;
            server.strangers.tell();
            server.files.disks().close().await;
        }));
    }

    /// Answers requests and watches the root, for ever.
    async fn serve(self: Arc<Self>) {
        let watching = async {
            if self.config.monitor_configs {
                watch(&self.config.root_dir, self.files.disks()).await;
            }
            pending::<()>().await;
        };
        let status = async {
            if let Some(status) = &self.status {
                status.serve(&self.history, &self.executor).await;
            }
            pending::<()>().await;
        };
        let guarding = async {
            if let Err(error) = self.guards.run().await {
                log::warn!("who sends to the port of a transfer of somebody else is not told any more: {error}");
            }
            pending::<()>().await;
        };
        let accepting = self.accept(|datagram, route| self.take(datagram, route));
        or(accepting, or(watching, or(status, or(guarding, self.strangers.tell_of_the_rest())))).await;
    }

    /// Takes datagrams in, for ever. Nothing here waits for anything but the next one.
    async fn accept(&self, take: impl Fn(&[u8], Route)) {
        let mut buf = [0; 2048];
        for count in 1usize.. {
            match self.listener.recv(&mut buf).await {
                Ok((len, route)) => take(&buf[..len], route),
                Err(error) => log::debug!("receiving requests: {error}"),
            }
            // However fast they come, the sessions have their turn; but a burst must not overflow the socket meanwhile.
            if count % 32 == 0 {
                yield_now().await;
            }
        }
    }

    /// Starts what a datagram asks for.
    fn take(&self, datagram: &[u8], route: Route) {
        let client = route.client.ip();
        let refusal = match Packet::parse(datagram) {
            Ok(Packet::ReadRequest(request)) => match lock(&self.sessions).admit(route.client, datagram) {
                Admission::Start(ticket, stop) => {
                    let record = self.history.record_request(client, request.file);
                    return self.start(datagram, route, ticket, stop, record);
                }
                Admission::Copy => {
                    self.history.record_copy(client, request.file);
                    return log::debug!("{}: request repeated", route.client);
                }
                Admission::Full(why) => {
                    self.history.record_request(client, request.file).finish(State::Refused, Some(why));
                    (ErrorCode::NOT_DEFINED, why)
                }
            },
            Ok(Packet::WriteRequest(request)) => {
                let why = "this server does not take files";
                self.history.record_request(client, request.file).finish(State::Refused, Some(why));
                (ErrorCode::ACCESS_VIOLATION, why)
            }
            _ if self.deliver(datagram, route) => return,
            // It may be the repeated last ACK of a transfer that is over: an ERROR could hit the client's next one.
            Ok(Packet::Ack { .. }) if self.config.single_port => return,
            // An ERROR, whole or not, is never answered: two programs could go on for ever.
            _ if datagram.starts_with(&[0, 5]) => return,
            _ => (ErrorCode::ILLEGAL_OPERATION, "not a TFTP request"),
        };
        if lock(&self.refusals).allows(clock::now()) {
            log::debug!("{}: refused: {}", route.client, refusal.1);
            session::refuse(&self.ports, route, refusal, &self.strangers);
        }
    }

    /// Hands a datagram to the transfer that it is for, if transfers share this port; whether there is such a transfer.
    fn deliver(&self, datagram: &[u8], route: Route) -> bool {
        let session = if self.config.single_port { lock(&self.sessions).of(route.client) } else { None };
        session.is_some_and(|ticket| ticket.delivery.get().is_some_and(|delivery| delivery.deliver(datagram, route)))
    }

    /// Lets a task of its own answer a request.
    fn start(
        &self,
        datagram: &[u8],
        route: Route,
        ticket: Arc<SessionHandle>,
        stop: Receiver<&'static str>,
        record: RequestRecord,
    ) {
        let sessions = self.sessions.clone();
        let session = Session {
            workers: self.workers.clone(),
            ports: self.ports.clone(),
            guards: self.guards.clone(),
            files: self.files.clone(),
            limits: self.config.limits,
            mtu_clamp: self.config.mtu_clamp,
            route,
            request: datagram.to_vec(),
            ticket: ticket.clone(),
            stop,
            strangers: self.strangers.clone(),
            record: Arc::new(record),
        };
        let run = async move {
            session.run().await;
            lock(&sessions).finish(&ticket);
        };
        self.executor.spawn(run).detach();
    }

    /// Takes in what comes for running transfers, if they share the port of requests, and no requests any more.
    async fn hear_the_rest(&self) {
        if self.config.single_port {
            self.accept(|datagram, route| _ = self.deliver(datagram, route)).await;
        }
        pending::<()>().await;
    }

    /// Lets running transfers end, or ends them.
    async fn wind_up(&self) {
        let deadline = Instant::now() + GRACE;
        while !lock(&self.sessions).is_empty() && Instant::now() < deadline {
            Timer::after(Duration::from_millis(20)).await;
        }
        lock(&self.sessions).stop_all("the server is shutting down");
        // Time for each to say so.
        while !lock(&self.sessions).is_empty() && Instant::now() < deadline + Duration::from_millis(200) {
            Timer::after(Duration::from_millis(5)).await;
        }
    }
}

/// Lets this process open as many files as it may be allowed: each transfer has a socket and a file.
fn allow_descriptors() {
    let allowed =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = allowed {
        log::debug!("the number of open files stays as it was: {error}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
