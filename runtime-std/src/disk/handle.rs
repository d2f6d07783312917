//! A handle to the actor of a disk.

use std::sync::Arc;

use smol::{
    Executor, Task,
    channel::{Sender, bounded, unbounded},
};

use super::{
    DiskError,
    actor::{DiskActor, Message},
    connector::Connector,
    error_log::DiskLog,
    snapshot::Snapshot,
};
use crate::memory::DiskMemory;

/// A disk, connected or not. Cheap to clone; dropping the last clone disconnects the disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    log: Arc<DiskLog>,
    messages: Sender<Message>,
    executor: Arc<Executor<'static>>,
    memory: DiskMemory,
    /// Dropped with the last [`Disk`], which cancels the actor.
    _actor: Task<()>,
}

impl Disk {
    /// Starts the actor of a disk, which is not connected yet.
    pub(super) fn new(connector: Connector) -> Self {
        let (messages, inbox) = unbounded();
        let log = Arc::new(DiskLog::new(connector.name().to_owned()));
        let executor = connector.backend().executor().clone();
        let memory = connector.memory().clone();
        let actor = executor.spawn(DiskActor::new(connector, log.clone(), inbox).run());
        Self(Arc::new(Handle { log, messages, executor, memory, _actor: actor }))
    }

    /// Returns the name of the `.nbd` file.
    pub(super) fn name(&self) -> &str {
        self.0.log.name()
    }

    /// Returns the log of its errors.
    pub(super) fn log(&self) -> &DiskLog {
        &self.0.log
    }

    /// Returns the executor for tasks of this disk.
    pub(super) fn executor(&self) -> &Executor<'static> {
        &self.0.executor
    }

    /// Returns the memory for what is read from this disk.
    pub(super) fn memory(&self) -> &DiskMemory {
        &self.0.memory
    }

    /// Drops a value in a task: freeing a large one would delay the transfers of this thread.
    pub(super) fn drop_later(&self, value: impl Send + 'static) {
        self.0.executor.spawn(async move { drop(value) }).detach();
    }

    /// Connects in the background.
    pub(super) fn connect(&self) {
        // The actor's channel is only closed when the executor is being dropped.
        let _ = self.0.messages.try_send(Message::Connect);
    }

    /// Returns the snapshot of the current boot; with `refresh`, one taken after this call. Connects if necessary.
    pub(super) async fn snapshot(&self, refresh: bool) -> Result<Arc<Snapshot>, DiskError> {
        let (reply, snapshot) = bounded(1);
        let _ = self.0.messages.try_send(Message::Snapshot { refresh, reply });
        snapshot.recv().await.unwrap_or(Err(DiskError::Disconnected))
    }
}
