//! A handle to the actor of a disk.

use std::sync::Arc;

use futures_channel::{
    mpsc::{UnboundedSender, unbounded},
    oneshot,
};
use parking_lot::Mutex;
use rtftp_core::RequestPath;
use smol::{Executor, Task};

use super::{
    DiskError,
    actor::{DiskActor, Message},
    board_watch::BoardWatch,
    connector::Connector,
    error_log::DiskLog,
    snapshot::Snapshot,
};
use crate::{
    boot_entries::{Entry, Menu},
    history::RequestRecord,
    memory::DiskMemory,
};

/// A disk, connected or not. Cheap to clone; dropping the last clone disconnects the disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    log: Arc<DiskLog>,
    messages: UnboundedSender<Message>,
    executor: Arc<Executor<'static>>,
    memory: DiskMemory,
    /// The kernels and titles of the boot menu that was generated last.
    boot_entries: Mutex<Vec<BootEntry>>,
    /// Watches whether the board comes up.
    watch: BoardWatch,
    /// Dropped with the last [`Disk`], which cancels the actor.
    _actor: Task<()>,
}

/// An entry of a boot menu.
#[derive(Debug)]
struct BootEntry {
    kernel: Box<str>,
    title: Box<str>,
}

impl Disk {
    /// Starts the actor of a disk, which is not connected yet.
    pub(super) fn new(connector: Connector) -> Self {
        let (messages, inbox) = unbounded();
        let log = Arc::new(DiskLog::new(connector.name().to_owned()));
        let executor = connector.backend().executor().clone();
        let memory = connector.memory().clone();
        let watch = BoardWatch::new(connector.backend().watched().clone());
        let actor = executor.spawn(DiskActor::new(connector, log.clone()).run(inbox));
        Self(Arc::new(Handle { log, messages, executor, memory, boot_entries: Mutex::default(), watch, _actor: actor }))
    }

    /// Returns the name of the `.nbd` file.
    pub(super) fn name(&self) -> &str {
        self.0.log.name()
    }

    /// Returns the log of its errors.
    pub(super) fn log(&self) -> &DiskLog {
        &self.0.log
    }

    /// Remembers the entries of a boot menu that was generated.
    pub(super) fn remember(&self, menu: &Menu) {
        let entry = |entry: &Entry| BootEntry { kernel: (*entry.kernel).into(), title: (*entry.title).into() };
        *self.0.boot_entries.lock() = menu.entries.iter().map(entry).collect();
    }

    /// Returns the titles of the entries of the last boot menu with the kernel at this path; `None` if it is no kernel of the menu.
    pub(super) fn boot_entry(&self, path: &RequestPath) -> Option<Box<str>> {
        let entries = self.0.boot_entries.lock();
        let titles = entries.iter().filter(|entry| entry.kernel.as_bytes() == path.as_bytes());
        let titles: Vec<&str> = titles.take(3).map(|entry| &*entry.title).collect();
        (!titles.is_empty()).then(|| titles.join(" or ").into())
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
        let _ = self.0.messages.unbounded_send(Message::Connect);
    }

    /// Notes that a board has received a file of this disk: the disk shows after that whether the board comes up.
    pub(super) fn file_received(&self, record: Arc<RequestRecord>) {
        self.0.watch.file_received(record, &self.0.messages, &self.0.executor);
    }

    /// Returns the snapshot of the current boot; with `refresh`, one taken after this call. Connects if necessary.
    pub(super) async fn snapshot(&self, refresh: bool) -> Result<Arc<Snapshot>, DiskError> {
        let (reply, snapshot) = oneshot::channel();
        let _ = self.0.messages.unbounded_send(Message::Snapshot { refresh, reply });
        snapshot.await.unwrap_or(Err(DiskError::Disconnected))
    }
}
