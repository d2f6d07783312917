//! One disk: connected when it is asked for, let go when nobody asks.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use rtftp_core::{RequestPath, uri::NbdUri};
use smol::{
    Executor, Task, Timer,
    channel::{Receiver, Sender, bounded, unbounded},
    future::{or, pending},
    lock::{Semaphore, SemaphoreGuardArc},
};

use super::{
    file::RemoteFile,
    guestfs::client::{Appliance, Launcher, OpenedFile},
    nbd,
};
use crate::error::{OpenError, Unavailable};

/// How many disks are connected at a time that no client waits for.
const UNASKED_CONNECTS: usize = 2;
/// How long after a failure a disk that no client waits for is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What all disks share.
#[derive(Debug)]
pub(super) struct Backend {
    launcher: Launcher,
    unasked: Arc<Semaphore>,
}

impl Backend {
    pub(super) fn new(launcher: Launcher) -> Self {
        Self { launcher, unasked: Arc::new(Semaphore::new(UNASKED_CONNECTS)) }
    }

    /// Waits for the end of all that was started for disks which are let go.
    pub(super) async fn all_ended(&self) {
        self.launcher.all_ended().await;
    }
}

/// A disk, connected or not. Cheap to clone; when the last clone goes, so does the connection.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    requests: Sender<Request>,
    /// Dropped with the last [`Disk`], which ends whatever the owner is doing.
    _owner: Task<()>,
}

/// Which file of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    connection: u64,
    id: u32,
}

/// What the owner of a disk is asked.
#[derive(Debug)]
enum Request {
    Connect,
    /// Carries the disk, which is gone if nobody waits for the file any more.
    Open {
        path: Box<RequestPath>,
        disk: Weak<Handle>,
        reply: Sender<Result<RemoteFile, OpenError>>,
    },
    Read {
        file: FileId,
        offset: u64,
        len: u32,
        reply: Sender<Result<Vec<u8>, Unavailable>>,
    },
    Close(FileId),
}

impl Request {
    /// Answers that the disk is not to be had.
    fn refuse(self, why: &Unavailable) {
        // A send fails only when nobody waits for the answer any more; here and below that is no matter.
        match self {
            Self::Open { reply, .. } => drop(reply.try_send(Err(why.clone().into()))),
            Self::Read { reply, .. } => drop(reply.try_send(Err(why.clone()))),
            Self::Connect | Self::Close(_) => {}
        }
    }
}

impl Disk {
    /// A disk that is not connected yet.
    pub(super) fn new(
        name: String,
        json: Vec<u8>,
        url: NbdUri,
        idle: Duration,
        backend: Arc<Backend>,
        executor: &Executor<'static>,
    ) -> Self {
        let (requests, inbox) = unbounded();
        let owner = Owner { name, json, url, idle, backend, inbox, connections: 0, reported: None };
        Self(Arc::new(Handle { requests, _owner: executor.spawn(owner.run()) }))
    }

    /// Has the disk connected in the background.
    pub(super) fn connect(&self) {
        let _ = self.0.requests.try_send(Request::Connect);
    }

    /// Opens a file, on a disk that is connected first if need be.
    pub(super) async fn open(&self, path: &RequestPath) -> Result<RemoteFile, OpenError> {
        let (reply, answer) = bounded(1);
        let _ = self.0.requests.try_send(Request::Open {
            path: Box::new(path.clone()),
            disk: Arc::downgrade(&self.0),
            reply,
        });
        answer.recv().await.unwrap_or_else(|_| Err(let_go().into()))
    }

    /// Asks for a part of a file; the answer comes through the channel.
    pub(super) fn read(&self, file: FileId, offset: u64, len: u32) -> Receiver<Result<Vec<u8>, Unavailable>> {
        let (reply, answer) = bounded(1);
        let _ = self.0.requests.try_send(Request::Read { file, offset, len, reply });
        answer
    }

    /// Says that a file is not needed any more.
    pub(super) fn close(&self, file: FileId) {
        let _ = self.0.requests.try_send(Request::Close(file));
    }
}

/// Why a file of an earlier connection cannot be read on.
pub(super) fn let_go() -> Unavailable {
    Unavailable { to_client: "the disk was disconnected", reason: "the disk was disconnected".into() }
}

/// The task that a disk belongs to: it alone talks to the appliance.
struct Owner {
    name: String,
    json: Vec<u8>,
    url: NbdUri,
    idle: Duration,
    backend: Arc<Backend>,
    inbox: Receiver<Request>,
    /// How often the disk has been connected.
    connections: u64,
    /// The failure that the log shows already.
    reported: Option<String>,
}

impl Owner {
    /// Runs until the last [`Disk`] is dropped.
    async fn run(mut self) {
        let mut retry = None;
        let mut again = None;
        loop {
            let first = match again.take() {
                Some(request) => request,
                None => or(self.wanted(), after(retry, Request::Connect)).await,
            };
            let (first, permit) = self.permit(first).await;
            let unasked = matches!(first, Request::Connect);
            let connected = self.connect().await;
            drop(permit);
            match connected {
                Ok(appliance) => {
                    retry = None;
                    again = self.serve(appliance, first).await;
                }
                Err(why) => {
                    self.report(&why);
                    first.refuse(&why);
                    while let Ok(waiting) = self.inbox.try_recv() {
                        waiting.refuse(&why);
                    }
                    if unasked {
                        retry = Some(retry.map_or(RETRY.0, |last: Duration| (2 * last).min(RETRY.1)));
                    }
                }
            }
        }
    }

    /// The next request. The channel is closed only when this task is being dropped.
    async fn next(&self) -> Request {
        match self.inbox.recv().await {
            Ok(request) => request,
            Err(_) => pending().await,
        }
    }

    /// The next request that a disk which is not connected should be connected for.
    async fn wanted(&self) -> Request {
        loop {
            match self.next().await {
                request @ (Request::Connect | Request::Open { .. }) => return request,
                request @ (Request::Read { .. } | Request::Close(_)) => request.refuse(&let_go()),
            }
        }
    }

    /// Waits its turn to connect if no client waits for the disk; one that comes meanwhile has it at once.
    async fn permit(&self, mut first: Request) -> (Request, Option<SemaphoreGuardArc>) {
        while matches!(first, Request::Connect) {
            let turn = async { Err(self.backend.unasked.acquire_arc().await) };
            match or(turn, async { Ok(self.wanted().await) }).await {
                Ok(request) => first = request,
                Err(permit) => return (first, Some(permit)),
            }
        }
        (first, None)
    }

    async fn connect(&mut self) -> Result<Appliance, Unavailable> {
        log::debug!("{}: connecting to {}", self.name, self.url);
        let started = Instant::now();
        // An appliance needs long to tell what a look at the server tells at once.
        nbd::check(&self.url).await?;
        let appliance = self.backend.launcher.start(&self.name, &self.json).await?;
        self.connections += 1;
        self.reported = None;
        log::info!("{}: connected to {} in {:.1} s", self.name, self.url, started.elapsed().as_secs_f64());
        Ok(appliance)
    }

    /// Tells of a failure, but not of the same one again and again.
    fn report(&mut self, why: &Unavailable) {
        if self.reported.as_ref() != Some(&why.reason) {
            log::error!("{}: {why}", self.name);
            self.reported = Some(why.reason.clone());
        }
    }

    /// Answers requests until the disk has been idle for its time or the connection is lost.
    ///
    /// Returns a request that found the connection lost and deserves a new one.
    async fn serve(&mut self, mut appliance: Appliance, first: Request) -> Option<Request> {
        let mut open_files = 0usize;
        let mut answered = 0usize;
        let mut request = first;
        loop {
            match request {
                Request::Open { path, disk, reply } => match appliance.open(&path).await {
                    Err(_) if !appliance.is_alive() && answered > 0 => {
                        return Some(Request::Open { path, disk, reply });
                    }
                    Ok(OpenedFile { id, size }) => {
                        // A file that nobody takes any more is closed when it is dropped here.
                        if let Some(disk) = disk.upgrade() {
                            open_files += 1;
                            let file = FileId { connection: self.connections, id };
                            let _ = reply.try_send(Ok(RemoteFile::new(Disk(disk), file, size)));
                        }
                    }
                    Err(error) => {
                        if let OpenError::Unavailable(why) = &error {
                            self.report(why);
                        }
                        let _ = reply.try_send(Err(error));
                    }
                },
                Request::Read { file, offset, len, reply } if file.connection == self.connections => {
                    let read = appliance.read(file.id, offset, len).await;
                    if let Err(why) = &read {
                        self.report(why);
                    }
                    let _ = reply.try_send(read);
                }
                Request::Close(file) if file.connection == self.connections => {
                    open_files -= 1;
                    // What fails here shows in the next line.
                    let _ = appliance.close(file.id).await;
                }
                request => request.refuse(&let_go()),
            }
            if !appliance.is_alive() {
                log::warn!("{}: let go, the connection is lost", self.name);
                return None;
            }
            answered += 1;
            request = loop {
                match or(async { Some(self.next().await) }, after(Some(self.idle), None)).await {
                    Some(request) => break request,
                    None if open_files > 0 => {}
                    None => {
                        appliance.stop().await;
                        log::info!("{}: let go, idle for {} s", self.name, self.idle.as_secs());
                        return None;
                    }
                }
            };
        }
    }
}

/// The value, after some time or never.
async fn after<T>(time: Option<Duration>, value: T) -> T {
    match time {
        Some(time) => drop(Timer::after(time).await),
        None => pending().await,
    }
    value
}
