//! The server: takes requests in and lets one task a transfer answer them.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use rtftp_core::options::{Limits, MAX_BLKSIZE, MAX_WINDOWSIZE};
use rtftp_core::{Packet, packet::ErrorCode};
use smol::{
    Executor, Timer,
    channel::{Sender, bounded},
    future::{or, pending, yield_now},
};

use crate::{
    remote::{
        Disks,
        guestfs::client::{self, Launcher},
    },
    roots::Roots,
    session::{self, Heard, Refusal, Session},
    udp::{Listener, Route},
    watch::watch,
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
    /// Whether disks are connected as soon as their `.nbd` file appears.
    pub monitor_configs: bool,
    /// What clients are granted at most.
    pub limits: Limits,
    /// How long connecting a disk may take in all.
    pub open_limit: Duration,
    /// How long one answer of a connected disk may take.
    pub read_limit: Duration,
}

/// The most transfers at a time.
const MAX_TRANSFERS: usize = 4096;
/// How long running transfers may go on when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// A boot server, listening.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    root_dir: PathBuf,
    roots: Arc<Roots>,
    limits: Limits,
    sessions: Arc<Mutex<Sessions>>,
    executor: Arc<Executor<'static>>,
    monitor_configs: bool,
}

/// The sessions by their clients' addresses and ports: what TFTP tells them apart by.
type Sessions = HashMap<SocketAddr, Running>;

/// A session in the list. Dropping it ends the session.
#[derive(Debug)]
struct Running {
    request: Vec<u8>,
    heard: Arc<Heard>,
    stop: Sender<&'static str>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    ///
    /// The root is not a directory, or the address or port cannot be listened on.
    pub fn bind(config: Config) -> io::Result<Self> {
        let Config { listen_ip, listen_port, root_dir, idle_timeout, monitor_configs, limits, open_limit, read_limit } =
            config;
        let launcher = Launcher::new(client::Limits { start: open_limit, answer: read_limit, ..Default::default() });
        let at_root = |error| io::Error::other(format!("{}: {error}", root_dir.display()));
        // Also a first look: a root that cannot be read would look empty to every client.
        std::fs::read_dir(&root_dir).map_err(at_root)?;
        let listener = Listener::bind(listen_ip, listen_port).map_err(|error| {
            let ip = listen_ip.map_or("all addresses".to_owned(), |ip| ip.to_string());
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                " (a port below 1024 needs root, or the capability CAP_NET_BIND_SERVICE)"
            } else {
                ""
            };
            io::Error::other(format!("cannot listen on {ip}, port {listen_port}: {error}{hint}"))
        })?;
        let executor = Arc::new(Executor::new());
        let disks = Disks::new(root_dir.clone(), idle_timeout, launcher, executor.clone());
        let roots = Arc::new(Roots::new(root_dir.clone(), disks));
        Ok(Self { listener, root_dir, roots, limits, sessions: Arc::default(), executor, monitor_configs })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    ///
    /// As the operating system has it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready, gives running transfers a short grace, and lets every disk go.
    pub fn run(self, stop: impl Future<Output = ()>) {
        let watching = async {
            if self.monitor_configs {
                watch(&self.root_dir, self.roots.disks()).await;
            }
            pending::<()>().await;
        };
        smol::block_on(self.executor.run(async {
            or(stop, or(self.accept(), watching)).await;
            self.wind_up().await;
            self.roots.disks().close().await;
        }));
    }

    /// Takes requests in, for ever. Nothing here waits for anything but the next datagram.
    async fn accept(&self) {
        let mut buf = [0; 2048];
        loop {
            match self.listener.recv(&mut buf).await {
                Ok((len, route)) => self.take(&buf[..len], route),
                Err(error) => log::debug!("receiving requests: {error}"),
            }
            // However fast they come, the sessions have their turn.
            yield_now().await;
        }
    }

    /// Starts what a datagram asks for.
    fn take(&self, datagram: &[u8], route: Route) {
        let refusal = match Packet::parse(datagram) {
            Ok(Packet::ReadRequest(_)) => match self.start(datagram, route) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
            Ok(Packet::WriteRequest(_)) => (ErrorCode::ACCESS_VIOLATION, "this server does not take files"),
            // Never answered, or two programs could go on for ever.
            Ok(Packet::Error { .. }) => return,
            _ => (ErrorCode::ILLEGAL_OPERATION, "not a TFTP request"),
        };
        log::debug!("{}: refused: {}", route.client, refusal.1);
        self.executor.spawn(session::refuse(route, refusal)).detach();
    }

    /// Starts a session for a read request, unless it is a copy of the one that is being answered.
    fn start(&self, datagram: &[u8], route: Route) -> Result<(), Refusal> {
        let mut sessions = lock(&self.sessions);
        if sessions.get(&route.client).is_some_and(|other| other.request == datagram && other.heard.explains_copy()) {
            log::debug!("{}: request repeated", route.client);
            return Ok(());
        }
        if sessions.len() >= MAX_TRANSFERS {
            return Err((ErrorCode::NOT_DEFINED, "the server is busy"));
        }
        let heard = Arc::new(Heard::default());
        let (stop, stopped) = bounded(1);
        let session = Session {
            roots: self.roots.clone(),
            limits: self.limits,
            route,
            request: datagram.to_vec(),
            heard: heard.clone(),
            stop: stopped,
        };
        // A client's port is its transfer: a new request from it gives up the old one.
        sessions.insert(route.client, Running { request: datagram.to_vec(), heard: heard.clone(), stop });
        let sessions = self.sessions.clone();
        let run = async move {
            session.run().await;
            let mut sessions = lock(&sessions);
            if sessions.get(&route.client).is_some_and(|running| Arc::ptr_eq(&running.heard, &heard)) {
                sessions.remove(&route.client);
            }
        };
        self.executor.spawn(run).detach();
        Ok(())
    }

    /// Lets running transfers end, or ends them.
    async fn wind_up(&self) {
        let deadline = Instant::now() + GRACE;
        while !lock(&self.sessions).is_empty() && Instant::now() < deadline {
            Timer::after(Duration::from_millis(20)).await;
        }
        for running in lock(&self.sessions).values() {
            let _ = running.stop.try_send("the server is shutting down");
        }
        // Time for each to say so.
        while !lock(&self.sessions).is_empty() && Instant::now() < deadline + Duration::from_millis(200) {
            Timer::after(Duration::from_millis(5)).await;
        }
    }
}

fn lock(sessions: &Mutex<Sessions>) -> MutexGuard<'_, Sessions> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}
