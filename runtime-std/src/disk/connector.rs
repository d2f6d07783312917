//! Connects to the export of a disk and mounts its file systems.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_core::config::{
    disk,
    disk::DiskConfig,
    uri::{NbdServer, NbdUri},
};
use smol::{
    Executor,
    lock::{Semaphore, SemaphoreGuardArc},
};

use super::{
    Contents, Description, DiskError,
    urls::{CountedUrl, Urls},
    watched::Watched,
};
use crate::{
    clock,
    event_loop::EventLoop,
    fs::{self, DiskWork, MountedDisk, Turns},
    guestfs::{Launcher, SharedAppliance},
    memory::{DiskMemory, Memory},
    nbd::{self, NbdClient, Target},
};

/// The maximum number of disks that connect at the same time without a waiting client.
const MAX_BACKGROUND_CONNECTS: usize = 2;

/// The age from which a connection is replaced if the contents of its disk contradict each other.
const MIN_RECONNECT_AGE: Duration = Duration::from_secs(1);

/// The timeouts of a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskTimeouts {
    /// The time without a request after which a disk is disconnected.
    pub(crate) idle: Duration,
    /// The time without a request or transfer after which a boot is over; the next request gets a new snapshot.
    pub(crate) view_gap: Duration,
    /// The time limit for opening a file: connecting, mounting and looking up.
    pub(crate) open: Duration,
    /// The time limit for connecting to the NBD server.
    pub(crate) connect: Duration,
    /// The time limit for each reply of the NBD server.
    pub(crate) reply: Duration,
}

/// The state that all disks share.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The directory of the descriptions.
    root: PathBuf,
    launcher: Launcher,
    timeouts: DiskTimeouts,
    executor: Arc<Executor<'static>>,
    /// The event loop for connections to NBD servers; async-io's if there is none.
    event_loop: Option<Arc<EventLoop>>,
    background_connects: Arc<Semaphore>,
    /// The memory for what is read from all disks.
    memory: Memory,
    /// The turns of the disks.
    turns: Turns,
    /// The number of disks that are watched after a boot.
    watched: Watched,
    /// The URLs of the disks.
    urls: Urls,
}

impl Backend {
    pub(crate) fn new(
        root: PathBuf,
        launcher: Launcher,
        timeouts: DiskTimeouts,
        executor: Arc<Executor<'static>>,
        event_loop: Option<Arc<EventLoop>>,
        memory: Memory,
    ) -> Self {
        let background_connects = Arc::new(Semaphore::new(MAX_BACKGROUND_CONNECTS));
        let (turns, watched, urls) = (Turns::default(), Watched::default(), Urls::default());
        Self { root, launcher, timeouts, executor, event_loop, background_connects, memory, turns, watched, urls }
    }

    /// Returns the executor for the tasks of disks.
    pub(super) fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }

    /// Returns the number of disks that are watched after a boot.
    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn timeouts(&self) -> DiskTimeouts {
        self.timeouts
    }

    /// Waits until a disk may connect without a waiting client.
    pub(super) async fn background_permit(&self) -> SemaphoreGuardArc {
        self.background_connects.acquire_arc().await
    }

    /// Waits until all helper processes of disconnected disks have ended.
    pub(crate) async fn helpers_ended(&self) {
        self.launcher.all_ended().await;
    }
}

/// Connects to the export of one disk and mounts its file systems, natively or through libguestfs.
pub(crate) struct Connector {
    /// The name of the `.nbd` file.
    name: String,
    description: Description,
    backend: Arc<Backend>,
    memory: DiskMemory,
    work: DiskWork,
    /// `None` if the description is not valid.
    url: Option<CountedUrl>,
    /// The connection of the native backend.
    nbd: Option<Arc<NbdClient>>,
    /// The time at which it was connected.
    connected: Instant,
    /// The drivers of the file systems that were mounted last.
    drivers: Vec<&'static str>,
    /// Messages that are already in the log and are not repeated.
    logged: Logged,
}

#[derive(Debug, Default)]
struct Logged {
    in_use: String,
    warnings: Vec<String>,
    is_not_multi_conn: bool,
    is_unverified: bool,
    unsupported: Option<String>,
}

impl Connector {
    /// Creates the connector of the disk that the file `name` describes. It is not connected yet.
    pub(crate) fn new(name: String, description: Description, backend: Arc<Backend>) -> Self {
        let memory = backend.memory.disk();
        let (work, logged) = (DiskWork::new(&backend.turns), Logged::default());
        let url = description.config().ok().map(|config| backend.urls.add(&config.url));
        Self {
            name,
            description,
            backend,
            memory,
            work,
            url,
            nbd: None,
            connected: clock::instant(),
            drivers: Vec::new(),
            logged,
        }
    }

    /// Returns the name of the `.nbd` file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Parses the description.
    fn config(&self) -> Result<Box<DiskConfig>, DiskError> {
        self.description.config().map_err(|error| DiskError::InvalidDescription(error.to_string()))
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Returns the memory for what is read from the disk.
    pub(super) fn memory(&self) -> &DiskMemory {
        &self.memory
    }

    /// Returns the work of the disk.
    pub(super) fn work(&self) -> &DiskWork {
        &self.work
    }

    /// Returns the connection of the native backend, if it is connected.
    pub(super) fn connected(&self) -> Option<&Arc<NbdClient>> {
        self.nbd.as_ref().filter(|nbd| nbd.is_alive())
    }

    /// Returns whether several boards may use the disk: other descriptions have the same URL, or that of a group has no placeholder.
    pub(super) fn is_shared(&self) -> bool {
        self.description.is_of_all_boards() || self.url.as_ref().is_some_and(CountedUrl::is_shared)
    }

    /// Returns whether the native backend is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.nbd.is_some()
    }

    /// Returns whether the server may serve one connection at a time, which is then needed by the owner of the disk. No server
    /// says so, but those that do not announce several connections include them.
    pub(super) fn is_single_connection(&self) -> bool {
        self.nbd.as_ref().is_some_and(|nbd| !nbd.export().multi_conn)
    }

    /// Returns whether the size of the disk may have changed since the handshake.
    fn is_connection_outdated(&self) -> bool {
        clock::elapsed(self.connected) > MIN_RECONNECT_AGE
    }

    /// Disconnects the native backend.
    pub(super) fn disconnect(&mut self) {
        self.nbd = None;
    }

    /// Connects if necessary and mounts the file systems as they are now, through the first backend that supports them.
    ///
    /// With `again`, the disk is being used and has been mounted before over the same connection: file systems of another kind are not
    /// searched for.
    pub(crate) async fn mount(&mut self, again: bool) -> Result<Contents, DiskError> {
        let config = self.config()?;
        let choice = config.backend;
        if choice == Some(disk::Backend::Guestfs) {
            // Some servers accept one connection at a time.
            self.disconnect();
            if let Some(connection) = not_in_helper(&config.url) {
                return Err(DiskError::NotInHelper("\"backend\" is \"guestfs\"".into(), connection));
            }
            // The appliance would need seconds to find out what a probe finds out in milliseconds.
            nbd::probe(&config.url).await.map_err(|error| connect_error(&config.url, error))?;
            return self.start_appliance(&config).await;
        }
        let started = clock::instant();
        let is_new = !self.nbd.as_ref().is_some_and(|nbd| nbd.is_alive());
        let nbd = self.connect_to(&config).await?;
        let known = if again && !is_new { &self.drivers[..] } else { &[] };
        let disk = match MountedDisk::open_within(nbd, &config, self.memory.clone(), &self.work, known).await {
            Ok(disk) => disk,
            Err(fs::Error::Corrupt(problem)) if self.is_connection_outdated() => {
                // The size of an export is that of its handshake: the disk may have grown since.
                log::debug!("{}: {problem}; connecting again", self.name);
                self.disconnect();
                return Box::pin(self.mount(false)).await;
            }
            Err(fs::Error::Unsupported(problem)) if choice.is_none() => {
                let reason = problem.to_string();
                if let Some(connection) = not_in_helper(&config.url) {
                    return Err(DiskError::NotInHelper(reason, connection));
                }
                if self.logged.unsupported.as_ref() != Some(&reason) {
                    log::info!("{}: {reason}; using libguestfs", self.name);
                    self.logged.unsupported = Some(reason);
                }
                self.disconnect();
                return self.start_appliance(&config).await;
            }
            Err(error) => return Err(error.into()),
        };
        if is_new {
            let seconds = clock::elapsed(started).as_secs_f64();
            log::info!("{}: connected to {} in {seconds:.3} s: {}", self.name, config.url, disk.contents());
        }
        self.drivers = disk.drivers();
        let in_use = disk.in_use();
        if self.logged.in_use != in_use {
            if !in_use.is_empty() {
                log::info!("{}: in use or not cleanly unmounted: {in_use}", self.name);
            }
            self.logged.in_use = in_use;
        }
        let warnings = disk.warnings();
        if self.logged.warnings != warnings {
            warnings.iter().for_each(|warning| log::warn!("{}: {warning}", self.name));
            self.logged.warnings = warnings;
        }
        Ok(Contents::Native(disk))
    }

    /// Returns the connection of the native backend; connects if necessary.
    pub(crate) async fn connect(&mut self) -> Result<Arc<NbdClient>, DiskError> {
        let config = self.config()?;
        self.connect_to(&config).await
    }

    async fn connect_to(&mut self, config: &DiskConfig) -> Result<Arc<NbdClient>, DiskError> {
        if let Some(nbd) = self.nbd.as_ref().filter(|nbd| nbd.is_alive()) {
            return Ok(nbd.clone());
        }
        let url = &config.url;
        log::debug!("{}: connecting to {url}", self.name);
        let nbd = Arc::new(self.open_connection(config).await?);
        if config.accepts_any_server() && !self.logged.is_unverified {
            log::warn!("{}: any server can pass itself off as {url}, since tls-verify-peer is false", self.name);
            self.logged.is_unverified = true;
        }
        if !nbd.export().multi_conn && !self.logged.is_not_multi_conn {
            log::warn!(
                "{}: {} does not announce CAN_MULTI_CONN: changes by other clients of the export may become visible late; \
                 if it serves one connection at a time, allow several (qemu-nbd: --shared=0)",
                self.name,
                url
            );
            self.logged.is_not_multi_conn = true;
        }
        self.nbd = Some(nbd.clone());
        self.connected = clock::instant();
        Ok(nbd)
    }

    /// Opens another connection than that of [`connect`](Self::connect).
    pub(crate) async fn new_connection(&self) -> Result<NbdClient, DiskError> {
        let config = self.config()?;
        self.open_connection(&config).await
    }

    async fn open_connection(&self, config: &DiskConfig) -> Result<NbdClient, DiskError> {
        let Backend { root, timeouts, executor, event_loop, .. } = &*self.backend;
        let limits = (timeouts.connect, timeouts.reply);
        let target = Target { url: &config.url, tls: config.tls.as_ref(), directory: root };
        let connected = NbdClient::connect_on(event_loop.as_ref(), target, limits, executor).await;
        connected.map_err(|error| connect_error(&config.url, error))
    }

    async fn start_appliance(&self, config: &DiskConfig) -> Result<Contents, DiskError> {
        let (started, description) = (clock::instant(), self.description.for_helper(config));
        let appliance = self.backend.launcher.start(&self.name, &description).await.map_err(DiskError::Start)?;
        let seconds = clock::elapsed(started).as_secs_f64();
        log::info!("{}: connected to {} in {seconds:.1} s, through libguestfs", self.name, config.url);
        Ok(Contents::Guestfs(SharedAppliance::new(appliance, &self.backend.executor)))
    }
}

/// Returns the kind of connection that a URL asks for, if libguestfs does not support it.
fn not_in_helper(url: &NbdUri) -> Option<&'static str> {
    match url.server {
        _ if url.tls.is_some() => Some("with TLS (nbds://)"),
        NbdServer::Vsock { .. } => Some("over vsock (nbd+vsock://)"),
        NbdServer::Tcp { .. } | NbdServer::Unix(_) => None,
    }
}

fn connect_error(url: &NbdUri, error: nbd::NbdError) -> DiskError {
    DiskError::Connect { url: url.to_string(), error }
}
