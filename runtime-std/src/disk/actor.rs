//! The actor that owns one disk: connects on demand, takes a snapshot per boot, disconnects when idle.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_channel::{mpsc::UnboundedReceiver, oneshot};
use smol::{
    future::{or, pending},
    lock::SemaphoreGuardArc,
};

use super::{
    Contents, DiskError,
    connector::{Connector, DiskTimeouts},
    error_log::DiskLog,
    snapshot::Snapshot,
};
use crate::{
    clock::{self, Timer, within},
    fs::{BlockDevice, DiskWork},
    memory::DiskMemory,
};

/// The delay before a failed background connect is repeated, at first; it doubles with each failure.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The maximum delay before a failed background connect is repeated.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// The time after which a disk that is slow to connect lets another one connect in the background, too.
const MAX_PERMIT_TIME: Duration = Duration::from_secs(1);
/// The maximum age of a snapshot that is given out. No boot loads files for longer, and a board that keeps requesting must
/// eventually see changes.
const MAX_SNAPSHOT_AGE: Duration = Duration::from_secs(60);
/// The interval at which the end of the transfers from a snapshot, and a shortage of memory are polled.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A message to the actor.
#[derive(Debug)]
pub(super) enum Message {
    /// Connects in the background.
    Connect,
    /// Returns the snapshot of the current boot; with `refresh`, one taken after this message.
    Snapshot { refresh: bool, reply: oneshot::Sender<Result<Arc<Snapshot>, DiskError>> },
    /// Returns the connection of the disk, or the reason why it does not show what its board does.
    Connection { reply: oneshot::Sender<Result<Connection, &'static str>> },
}

/// The connection of a disk, for reading its marks of mounts.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) memory: DiskMemory,
    pub(super) work: DiskWork,
}

/// The owner of one disk.
pub(super) struct DiskActor {
    connector: Connector,
    timeouts: DiskTimeouts,
    /// The snapshot of the latest boot.
    snapshot: Option<Arc<Snapshot>>,
    /// The time of the last use of a snapshot, or of connecting.
    last_used: Instant,
    log: Arc<DiskLog>,
}

impl DiskActor {
    /// Creates the actor of a disk.
    pub(super) fn new(connector: Connector, log: Arc<DiskLog>) -> Self {
        let timeouts = connector.backend().timeouts();
        Self { connector, timeouts, snapshot: None, last_used: clock::instant(), log }
    }

    /// Handles messages until it is dropped.
    pub(super) async fn run(mut self, mut inbox: UnboundedReceiver<Message>) {
        let mut retry_delay = None;
        loop {
            self.log.set_connected(self.snapshot.is_some() || self.connector.is_connected());
            let idle = async {
                self.idle().await;
                None
            };
            let message = or(async { Some(or(receive(&mut inbox), retry_after(retry_delay)).await) }, idle).await;
            let Some(message) = message else {
                self.release();
                continue;
            };
            let (message, permit) = self.permit(message, &mut inbox).await;
            match message {
                Message::Connect if self.snapshot.is_some() || self.connector.is_connected() => retry_delay = None,
                // What connecting needs is on the heap: the task of an idle disk must not reserve the space.
                Message::Connect => {
                    match Box::pin(release_after(MAX_PERMIT_TIME, permit, self.snapshot(false))).await {
                        Ok(_) => retry_delay = None,
                        Err(error) => {
                            self.report(&error);
                            fail_waiting(&mut inbox, &error);
                            let doubled = retry_delay.map(|delay: Duration| (2 * delay).min(MAX_RETRY_DELAY));
                            let doubled = doubled.filter(|_| error.exhaustion().is_none());
                            // After too much work, a client may try again. Nobody else should pay for that.
                            retry_delay =
                                Some(doubled.unwrap_or(MIN_RETRY_DELAY)).filter(|_| !error.is_too_much_work());
                        }
                    }
                }
                Message::Snapshot { refresh, reply } => {
                    let snapshot = Box::pin(self.snapshot(refresh)).await;
                    if let Err(error) = &snapshot {
                        // The requester retries transient errors, and logs the last one.
                        if !error.is_transient() {
                            self.report(error);
                        }
                        fail_waiting(&mut inbox, error);
                    }
                    let _ = reply.send(snapshot);
                }
                Message::Connection { reply } => drop(reply.send(self.connection())),
            }
        }
    }

    /// Logs an error of the disk. The server warns about a lack of descriptors itself.
    fn report(&self, error: &DiskError) {
        match error.exhaustion() {
            Some(error) => log::debug!("{}: not connected: {error}", self.connector.name()),
            None => self.log.opening_failed(error),
        }
    }

    /// Waits for a permit to connect in the background. A message from a client that arrives meanwhile is returned at once.
    async fn permit(
        &self,
        mut message: Message,
        inbox: &mut UnboundedReceiver<Message>,
    ) -> (Message, Option<SemaphoreGuardArc>) {
        while matches!(message, Message::Connect) {
            let permit = async { Err(self.connector.backend().background_permit().await) };
            match or(permit, async { Ok(receive(inbox).await) }).await {
                Ok(next) => message = next,
                Err(permit) => return (message, Some(permit)),
            }
        }
        (message, None)
    }

    /// Waits until a timeout of the snapshot or the connection may have passed. Never completes without either.
    async fn idle(&self) {
        let deadline = match &self.snapshot {
            Some(snapshot) if has_transfers(snapshot) => clock::instant() + POLL_INTERVAL,
            Some(snapshot) => (snapshot.last_used() + self.lifetime(snapshot)).min(clock::instant() + POLL_INTERVAL),
            None if self.connector.is_connected() => self.last_used + self.timeouts.idle,
            None => pending().await,
        };
        Timer::at(deadline).await;
    }

    /// Drops the snapshot, or without one the connection, if its timeout has passed. Drops an unused snapshot earlier if memory is
    /// short.
    fn release(&mut self) {
        if let Some(snapshot) = &self.snapshot {
            let is_native = matches!(snapshot.contents(), Contents::Native(_));
            let is_needed = snapshot.last_used() + self.lifetime(snapshot) > clock::instant();
            if has_transfers(snapshot) || is_needed && !(is_native && self.connector.memory().is_short()) {
                return;
            }
            self.last_used = self.last_used.max(snapshot.last_used());
            self.snapshot = None;
            if self.connector.is_single_connection() {
                self.connector.disconnect();
            }
        } else {
            self.connector.disconnect();
        }
        if !self.connector.is_connected() {
            let seconds = clock::elapsed(self.last_used).as_secs();
            log::info!("{}: disconnected after {seconds} s idle", self.connector.name());
        }
    }

    /// Returns how long an unused snapshot is kept. That of an appliance is its connection.
    fn lifetime(&self, snapshot: &Snapshot) -> Duration {
        let DiskTimeouts { idle, view_gap, .. } = self.timeouts;
        match snapshot.contents() {
            Contents::Native(_) => view_gap,
            Contents::Guestfs(_) => view_gap.min(idle),
        }
    }

    /// Returns the snapshot of the current boot; takes a new one if there is none, or if `refresh`.
    async fn snapshot(&mut self, refresh: bool) -> Result<Arc<Snapshot>, DiskError> {
        let is_alive = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.is_alive());
        if !is_alive && self.snapshot.take().is_some() {
            log::warn!("{}: disconnected: connection lost", self.connector.name());
        }
        let current = self.snapshot.as_ref().filter(|snapshot| !refresh && self.is_current(snapshot));
        if let Some(snapshot) = current {
            snapshot.touch();
            return Ok(snapshot.clone());
        }
        if !refresh && self.snapshot.as_ref().is_some_and(|snapshot| !has_transfers(snapshot)) {
            // It would keep the old connection open if a new one is needed.
            self.snapshot = None;
        }
        let limit = self.timeouts.open;
        let opened = within(limit, self.connector.mount(refresh)).await;
        let contents = opened.unwrap_or(Err(DiskError::OpenTimeout(limit)));
        if let Err(DiskError::OpenTimeout(_)) = contents {
            // A server that is so slow would only delay the next attempt, and reads of this one may be under way.
            self.connector.disconnect();
        }
        self.last_used = clock::instant();
        let snapshot = Arc::new(Snapshot::new(contents?));
        self.log.opened();
        if !refresh || self.snapshot.is_none() {
            self.snapshot = Some(snapshot.clone());
        }
        Ok(snapshot)
    }

    /// Returns the connection for reading the marks of mounts, which is a use of the disk. Does not connect.
    fn connection(&mut self) -> Result<Connection, &'static str> {
        if self.connector.is_shared() {
            return Err("several boards may use the disk");
        }
        if matches!(self.snapshot.as_ref().map(|snapshot| snapshot.contents()), Some(Contents::Guestfs(_))) {
            return Err("the disk is read through libguestfs");
        }
        let Some(nbd) = self.connector.connected() else { return Err("the disk is disconnected") };
        if !nbd.export().multi_conn {
            return Err("the NBD server does not announce that several connections see the same data (CAN_MULTI_CONN)");
        }
        let (device, connector): (Arc<dyn BlockDevice>, _) = (nbd.clone(), &self.connector);
        self.last_used = clock::instant();
        Ok(Connection { device, memory: connector.memory().clone(), work: connector.work().clone() })
    }

    /// Returns whether a snapshot belongs to a boot that is not over.
    fn is_current(&self, snapshot: &Arc<Snapshot>) -> bool {
        let is_in_boot = has_transfers(snapshot) || clock::elapsed(snapshot.last_used()) < self.timeouts.view_gap;
        is_in_boot && snapshot.age() < MAX_SNAPSHOT_AGE
    }
}

/// Receives the next message. The channel is only closed when the actor is being dropped.
async fn receive(inbox: &mut UnboundedReceiver<Message>) -> Message {
    match inbox.recv().await {
        Ok(message) => message,
        Err(_) => pending().await,
    }
}

/// Replies to all waiting messages with an error.
fn fail_waiting(inbox: &mut UnboundedReceiver<Message>, error: &DiskError) {
    while let Ok(message) = inbox.try_recv() {
        if let Message::Snapshot { reply, .. } = message {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// Returns whether a file of this snapshot is open.
fn has_transfers(snapshot: &Arc<Snapshot>) -> bool {
    Arc::strong_count(snapshot) > 1
}

/// Returns the result of an operation. Releases its permit at its end, and after `limit` at the latest.
fn release_after<T>(
    limit: Duration,
    permit: Option<SemaphoreGuardArc>,
    operation: impl Future<Output = T>,
) -> impl Future<Output = T> {
    let release = async move {
        Timer::after(limit).await;
        drop(permit);
        pending().await
    };
    or(operation, release)
}

/// Returns [`Message::Connect`] after a delay; never without one.
async fn retry_after(delay: Option<Duration>) -> Message {
    match delay {
        Some(delay) => drop(Timer::after(delay).await),
        None => pending().await,
    }
    Message::Connect
}
