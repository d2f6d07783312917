//! Who a disk belongs to: connects it when it is asked for, looks at it refresh for every boot, lets it go when nobody asks.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rtftp_core::{
    RequestPath,
    config::{disk, disk::DiskConfig},
};
use smol::{
    Executor, Timer,
    channel::{Receiver, Sender, bounded},
    future::{or, pending},
    lock::{Semaphore, SemaphoreGuardArc},
};

use super::snapshot::{Contents, DiskError, Opened};
use crate::{
    event_loop::EventLoop,
    fs,
    guestfs::{client::Launcher, shared::SharedAppliance},
    nbd::{self, NbdClient},
};

/// How many disks are connected at a time that no client waits for.
const UNASKED_CONNECTS: usize = 2;
/// How long after a failure a disk that no client waits for is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest that a view serves, however often it is asked: no boot loads files for longer, and a board that asks for ever must
/// see what has changed.
const LONGEST_BURST: Duration = Duration::from_secs(60);
/// How often to ask whether the transfers from a view are over.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long things on a disk may take, and how long they hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskTimeouts {
    /// After this long without a request the connection is let go.
    pub(crate) idle: Duration,
    /// After this long without a request and without a transfer, a boot is over: the next request sees the disk refresh.
    pub(crate) view_gap: Duration,
    /// For connecting to the NBD server, and then for one answer of it.
    pub(crate) reply: Duration,
}

/// What all disks share.
#[derive(Debug)]
pub(crate) struct Backend {
    launcher: Launcher,
    times: DiskTimeouts,
    executor: Arc<Executor<'static>>,
    /// Where NBD servers are waited for; with smol if there is none.
    event_loop: Option<Arc<EventLoop>>,
    unasked: Arc<Semaphore>,
}

impl Backend {
    pub(crate) fn new(
        launcher: Launcher,
        times: DiskTimeouts,
        executor: Arc<Executor<'static>>,
        event_loop: Option<Arc<EventLoop>>,
    ) -> Self {
        Self { launcher, times, executor, event_loop, unasked: Arc::new(Semaphore::new(UNASKED_CONNECTS)) }
    }

    /// Where tasks for disks run.
    pub(crate) fn executor(&self) -> Arc<Executor<'static>> {
        self.executor.clone()
    }

    /// Waits for the end of all that was started for disks which are let go.
    pub(crate) async fn all_ended(&self) {
        self.launcher.all_ended().await;
    }
}

/// What the owner of a disk is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Connect, for nobody in particular.
    Connect,
    /// Give the view of this boot, or one that is younger than the request.
    Snapshot { refresh: bool, reply: Sender<Result<Arc<Snapshot>, DiskError>> },
}

/// A view while a boot lasts.
#[derive(Debug)]
pub(super) struct Snapshot {
    view: Contents,
    since: Instant,
    /// When a file of it was last opened or done with.
    used: Mutex<Instant>,
}

impl Snapshot {
    fn new(view: Contents) -> Self {
        let now = Instant::now();
        Self { view, since: now, used: Mutex::new(now) }
    }

    /// Opens a regular file.
    pub(super) async fn open(&self, path: &RequestPath) -> Result<Opened, DiskError> {
        self.view.open(path).await
    }

    /// How long ago it was taken.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether it was taken before this time.
    pub(super) fn is_older_than(&self, time: Instant) -> bool {
        self.since < time
    }

    /// Whether somebody writes to the disk, as far as is known.
    pub(super) fn is_in_use(&self) -> bool {
        self.view.is_in_use()
    }

    /// Notes that somebody was here.
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that a disk belongs to: it alone connects it, and says how long a view is good.
pub(crate) struct DiskActor {
    name: String,
    json: Vec<u8>,
    config: DiskConfig,
    backend: Arc<Backend>,
    inbox: Receiver<Request>,
    /// The connection of the native reader.
    nbd: Option<Arc<NbdClient>>,
    /// The view of the latest boot.
    look: Option<Arc<Snapshot>>,
    /// When there last was a view, or the connection began.
    used: Instant,
    told: Told,
}

/// What the log shows already, and need not show again.
#[derive(Debug, Default)]
struct Told {
    failure: Option<String>,
    in_use: String,
    may_lag: bool,
    unsupported: Option<String>,
}

impl DiskActor {
    /// The owner of a disk that is not connected yet.
    pub(super) fn new(
        name: String,
        json: Vec<u8>,
        config: DiskConfig,
        backend: Arc<Backend>,
        inbox: Receiver<Request>,
    ) -> Self {
        Self { name, json, config, backend, inbox, nbd: None, look: None, used: Instant::now(), told: Told::default() }
    }

    /// The owner of a disk whom nobody asks, and who does not run: for one look.
    pub(crate) fn standalone(name: String, json: Vec<u8>, config: DiskConfig, backend: Arc<Backend>) -> Self {
        Self::new(name, json, config, backend, bounded(1).1)
    }

    /// Runs until it is dropped, with the last [`Disk`](super::handle::Disk).
    pub(super) async fn run(mut self) {
        let mut retry = None;
        loop {
            let idle = async {
                self.idle().await;
                None
            };
            let request = or(async { Some(or(self.next(), after(retry, Request::Connect)).await) }, idle).await;
            let Some(request) = request else {
                self.let_go();
                continue;
            };
            let (request, permit) = self.permit(request).await;
            match request {
                Request::Connect if self.look.is_some() || self.nbd.is_some() => retry = None,
                Request::Connect => match self.look(false).await {
                    Ok(_) => retry = None,
                    Err(failure) => {
                        self.report(&failure);
                        self.refuse_waiting(&failure);
                        retry = Some(retry.map_or(RETRY.0, |last: Duration| (2 * last).min(RETRY.1)));
                    }
                },
                Request::Snapshot { refresh, reply } => {
                    let look = self.look(refresh).await;
                    if let Err(failure) = &look {
                        // What may be over in a moment is tried again, and reported by who loses patience.
                        if let DiskError::Permanent(_) = failure {
                            self.report(failure);
                        }
                        self.refuse_waiting(failure);
                    }
                    let _ = reply.try_send(look);
                }
            }
            drop(permit);
        }
    }

    /// The next request. The channel is closed only when this task is being dropped.
    async fn next(&self) -> Request {
        match self.inbox.recv().await {
            Ok(request) => request,
            Err(_) => pending().await,
        }
    }

    /// Waits its turn to connect if no client waits for the disk; one that comes meanwhile has it at once.
    async fn permit(&self, mut request: Request) -> (Request, Option<SemaphoreGuardArc>) {
        while matches!(request, Request::Connect) {
            let turn = async { Err(self.backend.unasked.acquire_arc().await) };
            match or(turn, async { Ok(self.next().await) }).await {
                Ok(next) => request = next,
                Err(permit) => return (request, Some(permit)),
            }
        }
        (request, None)
    }

    /// Tells of a failure, but not of the same one again and again.
    fn report(&mut self, failure: &DiskError) {
        let reason = failure.to_string();
        if self.told.failure.as_ref() != Some(&reason) {
            log::error!("{}: {reason}", self.name);
            self.told.failure = Some(reason);
        }
    }

    /// Tells everybody who waits that the disk is not to be had.
    fn refuse_waiting(&self, failure: &DiskError) {
        while let Ok(request) = self.inbox.try_recv() {
            if let Request::Snapshot { reply, .. } = request {
                let _ = reply.try_send(Err(failure.clone()));
            }
        }
    }

    /// Returns when something may have been kept for its time; never, if nothing is kept.
    async fn idle(&self) {
        let until = match (&self.look, &self.nbd) {
            (Some(look), _) if is_used(look) => Instant::now() + ASK_AGAIN,
            (Some(look), _) => look.used() + self.lifetime(look),
            (None, Some(_)) => self.used + self.backend.times.idle,
            (None, None) => pending().await,
        };
        Timer::at(until).await;
    }

    /// Lets go what nobody has used for its time.
    fn let_go(&mut self) {
        if let Some(look) = &self.look {
            if is_used(look) || look.used() + self.lifetime(look) > Instant::now() {
                return;
            }
            self.used = look.used();
            self.look = None;
        } else {
            self.nbd = None;
        }
        if self.nbd.is_none() {
            log::info!("{}: let go, idle for {} s", self.name, self.used.elapsed().as_secs());
        }
    }

    /// How long a view that nobody uses is kept.
    fn lifetime(&self, look: &Snapshot) -> Duration {
        let DiskTimeouts { idle, view_gap: gap, .. } = self.backend.times;
        match look.view {
            Contents::Native(_) => gap,
            Contents::Guestfs(_) => gap.min(idle),
        }
    }

    /// The view of this boot; a new one if there is none, or if it must be younger than this call.
    async fn look(&mut self, refresh: bool) -> Result<Arc<Snapshot>, DiskError> {
        let is_alive = self.look.as_ref().is_some_and(|look| look.view.is_alive());
        if !is_alive && self.look.take().is_some() {
            log::warn!("{}: let go, the connection is lost", self.name);
        }
        if let Some(look) = self.look.as_ref().filter(|look| !refresh && self.is_of_this_boot(look)) {
            look.touch();
            return Ok(look.clone());
        }
        let look = Arc::new(Snapshot::new(self.mount().await?));
        self.told.failure = None;
        if !refresh || self.look.is_none() {
            self.look = Some(look.clone());
        }
        Ok(look)
    }

    fn is_of_this_boot(&self, look: &Arc<Snapshot>) -> bool {
        look.since.elapsed() < LONGEST_BURST && (is_used(look) || look.used().elapsed() < self.backend.times.view_gap)
    }

    /// Looks at the disk, connected first if need be, in the first way that can.
    pub(crate) async fn mount(&mut self) -> Result<Contents, DiskError> {
        let choice = self.config.backend;
        if choice == Some(disk::Backend::Guestfs) {
            // Some servers take one connection at a time.
            self.nbd = None;
            // An appliance needs long to tell what a look at the server tells at once.
            nbd::check(&self.config.url).await.map_err(|why| DiskError::Permanent(why.into()))?;
            return self.appliance().await;
        }
        let started = Instant::now();
        let (nbd, is_new) = self.connect().await?;
        let view = match fs::MountedDisk::open(nbd, &self.config).await {
            Ok(view) => view,
            Err(fs::Error::Unsupported(problem)) if choice.is_none() => {
                let reason = problem.to_string();
                if self.told.unsupported.as_ref() != Some(&reason) {
                    log::info!("{}: {reason}; libguestfs is asked", self.name);
                    self.told.unsupported = Some(reason);
                }
                self.nbd = None;
                return self.appliance().await;
            }
            Err(error) => return Err(error.into()),
        };
        if is_new {
            let seconds = started.elapsed().as_secs_f64();
            log::info!("{}: connected to {} in {seconds:.3} s: {}", self.name, self.config.url, view.contents());
        }
        let in_use = view.in_use();
        if self.told.in_use != in_use {
            if !in_use.is_empty() {
                log::info!("{}: in use by its owner, or not unmounted: {in_use}", self.name);
            }
            self.told.in_use = in_use;
        }
        Ok(Contents::Native(view))
    }

    /// The connection of the native reader, and whether it is a new one.
    pub(crate) async fn connect(&mut self) -> Result<(Arc<NbdClient>, bool), DiskError> {
        if let Some(nbd) = self.nbd.as_ref().filter(|nbd| nbd.is_alive()) {
            return Ok((nbd.clone(), false));
        }
        log::debug!("{}: connecting to {}", self.name, self.config.url);
        let Backend { times, executor, event_loop, .. } = &*self.backend;
        let connected = NbdClient::connect_on(event_loop.as_ref(), &self.config.url, times.reply, executor).await;
        let nbd = Arc::new(connected.map_err(|why| DiskError::Permanent(why.into()))?);
        if !nbd.export().multi_conn && !self.told.may_lag {
            log::warn!(
                "{}: {} does not say that all its connections see the same data (CAN_MULTI_CONN): what the owner writes may be \
                 seen late",
                self.name,
                self.config.url
            );
            self.told.may_lag = true;
        }
        self.used = Instant::now();
        self.nbd = Some(nbd.clone());
        Ok((nbd, true))
    }

    async fn appliance(&mut self) -> Result<Contents, DiskError> {
        let started = Instant::now();
        let appliance = self.backend.launcher.start(&self.name, &self.json).await;
        let appliance = appliance.map_err(|why| DiskError::Permanent(why.into()))?;
        let seconds = started.elapsed().as_secs_f64();
        log::info!("{}: connected to {} in {seconds:.1} s, through libguestfs", self.name, self.config.url);
        Ok(Contents::Guestfs(SharedAppliance::new(appliance, &self.backend.executor)))
    }
}

/// Whether a transfer goes on that began with this look.
fn is_used(look: &Arc<Snapshot>) -> bool {
    Arc::strong_count(look) > 1
}

/// The value, after some time or never.
async fn after<T>(time: Option<Duration>, value: T) -> T {
    match time {
        Some(time) => drop(Timer::after(time).await),
        None => pending().await,
    }
    value
}
