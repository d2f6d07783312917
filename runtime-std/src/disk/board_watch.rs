//! Watches a disk after its board has received files from it, to see whether the board has come up: its kernel mounts the disk.
//!
//! The marks of mounts are read over the connection that is open anyway, and less often with time. Nothing is claimed that two readings
//! do not show: disks that several boards may use, and connections that may return old data, show nothing.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_channel::{mpsc::UnboundedSender, oneshot};
use parking_lot::Mutex;
use smol::{
    Executor, Task,
    channel::{Receiver, Sender, bounded},
    future::or,
};

use super::{
    actor::{Connection, Message},
    watched::{Counted, Watched},
};
use crate::{
    clock::{self, Timer, within},
    fs::{Change, DiskChange, DiskMarks, Error},
    history::{
        RequestRecord,
        snapshot::{Mount, MountState},
    },
};

/// The shortest time from the last file to the first comparison, and between two comparisons.
const MIN_INTERVAL: Duration = Duration::from_secs(4);
/// The time from the last file to the last comparison.
const MAX_TIME: Duration = Duration::from_secs(120);
/// The time limit for reading the marks with which later ones are compared. No kernel starts and mounts a disk as fast.
const FIRST_READ_LIMIT: Duration = Duration::from_secs(1);
/// The number of files that wait while the disk is read. The newest count.
const MAX_WAITING: usize = 16;

/// Watches whether the board of a disk comes up.
#[derive(Debug, Default)]
pub(super) struct BoardWatch {
    watched: Watched,
    running: Mutex<Option<(Sender<Received>, Task<()>)>>,
}

/// A file of the disk that the board has received.
#[derive(Debug)]
struct Received {
    record: Arc<RequestRecord>,
    at: Instant,
}

impl BoardWatch {
    /// Creates the watch of one of the disks that are counted together.
    pub(super) fn new(watched: Watched) -> Self {
        Self { watched, running: Mutex::default() }
    }

    /// Notes a file that the board has received. The disk's actor gets `messages`.
    pub(super) fn file_received(
        &self,
        record: Arc<RequestRecord>,
        messages: &UnboundedSender<Message>,
        executor: &Executor<'static>,
    ) {
        let mut received = Received { record, at: clock::instant() };
        let mut watch = self.running.lock();
        if let Some((files, _)) = &*watch {
            match files.force_send(received) {
                Ok(_) => return,
                // The board has come up, or it is too late.
                Err(rejected) => received = rejected.into_inner(),
            }
        }
        let (files, inbox) = bounded(MAX_WAITING);
        let watcher = Watcher { messages: messages.clone(), counted: self.watched.enter() };
        *watch = Some((files, executor.spawn(Box::pin(watcher.watch(received, inbox)))));
    }
}

/// The watcher of one disk, which asks its actor for the connection.
struct Watcher {
    messages: UnboundedSender<Message>,
    counted: Counted,
}

impl Watcher {
    /// Watches one boot after another, until one is over before the next begins.
    async fn watch(self, first: Received, files: Receiver<Received>) {
        let mut next = Some(first);
        while let Some(file) = next.take() {
            next = match self.read_first(&file).await {
                Ok(before) => self.watch_boot(file, &before, &files).await,
                Err(reason) => {
                    file.report(MountState::Unknown, &reason);
                    None
                }
            };
        }
        files.close();
    }

    /// Compares the marks until the board has mounted its disk, or it is too late. Returns the first file of the next boot if that
    /// begins before.
    async fn watch_boot(&self, mut file: Received, before: &DiskMarks, files: &Receiver<Received>) -> Option<Received> {
        let mut has_changed = false;
        let mut last_read = clock::instant();
        loop {
            let min_interval = self.counted.interval().max(MIN_INTERVAL);
            let interval = (clock::elapsed(file.at) / 4).max(min_interval);
            let due = last_read.max(file.at) + interval;
            let is_last = due > file.at + MAX_TIME;
            let next = async { files.recv().await.ok() };
            let wait = async {
                Timer::at(due.min(file.at + MAX_TIME)).await;
                None
            };
            let next = or(next, wait).await;
            // A kernel and its initrd follow each other closely.
            if let Some(next) = next.as_ref().filter(|_| !has_changed && clock::elapsed(last_read) < min_interval)
                && next.is_same_boot(&file)
            {
                file = Received { record: next.record.clone(), at: next.at };
                continue;
            }
            last_read = clock::instant();
            let change = match self.compare(before).await {
                Ok(change) => change,
                // It may be being written.
                Err(ReadError::Read(Error::Corrupt(_))) if !is_last && next.is_none() => continue,
                Err(error) => {
                    // Has no effect if more is known.
                    file.report(MountState::Unknown, &error.to_string());
                    return next;
                }
            };
            let text = &change.text;
            match change.change {
                Change::Mounted => {
                    file.report(MountState::Mounted, text);
                    return next;
                }
                Change::Written if !has_changed => {
                    has_changed = true;
                    file.report(MountState::Written, text);
                }
                Change::None if text.is_empty() => {
                    file.report(MountState::Unknown, "nothing on the disk shows whether it is mounted");
                    return next;
                }
                Change::None if is_last || next.as_ref().is_some_and(|next| !next.is_same_boot(&file)) => {
                    file.report(MountState::Unchanged, text);
                }
                _ => {}
            }
            match next {
                Some(next) if has_changed || !next.is_same_boot(&file) => return Some(next),
                Some(next) => file = next,
                None if is_last => return None,
                None => {}
            }
        }
    }

    /// Reads the marks with which later ones are compared. Fails with the reason why they would show nothing.
    async fn read_first(&self, file: &Received) -> Result<DiskMarks, String> {
        let read = async {
            let Connection { device, memory, work } = self.connection().await?;
            DiskMarks::read(device, memory, &work).await.map_err(|error| error.to_string())
        };
        let left = FIRST_READ_LIMIT.saturating_sub(clock::elapsed(file.at));
        within(left, read).await.unwrap_or_else(|| Err("the disk was too slow to be looked at before".into()))
    }

    /// Compares the marks with earlier ones.
    async fn compare(&self, before: &DiskMarks) -> Result<DiskChange, ReadError> {
        let Connection { device, memory, work } = self.connection().await.map_err(ReadError::Refused)?;
        before.compare(device, memory, &work).await.map_err(ReadError::Read)
    }

    async fn connection(&self) -> Result<Connection, &'static str> {
        let (reply, connection) = oneshot::channel();
        let _ = self.messages.unbounded_send(Message::Connection { reply });
        connection.await.unwrap_or(Err("the disk is disconnected"))
    }
}

/// The reason why the disk shows nothing.
#[derive(Debug)]
enum ReadError {
    Refused(&'static str),
    Read(Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl Received {
    fn is_same_boot(&self, other: &Self) -> bool {
        self.record.boot_began() == other.record.boot_began()
    }

    /// Records what the disk has shown.
    fn report(&self, state: MountState, text: &str) {
        let seconds = clock::elapsed(self.at).as_secs_f64();
        let text = match state {
            MountState::Unknown => text.to_owned(),
            // Reading takes some milliseconds.
            _ => format!("{text} within {:.0} s", (seconds - 0.1).ceil()),
        };
        self.record.set_mount(Mount { state, seconds, text });
    }
}
